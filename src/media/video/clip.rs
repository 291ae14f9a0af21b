//! Frames, one after another, become a clip: groups of frames as the vision tower reads them.

use std::sync::Arc;

use super::VideoOptions;
use super::processor::VideoProcessor;
use super::sampling::timestamps;
use crate::engine::{Clip, Picture};
use crate::error::Error;
use crate::media::Rgb;
use crate::media::memory::Share;
use crate::media::patches::patches_of_frames;
use crate::media::resize::resize;

/// A clip that is being made. Of its frames it holds those of one group, resized.
pub(super) struct Making {
    processor: Arc<VideoProcessor>,
    options: VideoOptions,
    share: Arc<Share>,
    num_frames: usize,
    seconds: Vec<f64>,
    /// The first frame's size and that of all after resizing, each (height, width).
    sizes: Option<((usize, usize), (usize, usize))>,
    group: Vec<Rgb>,
    groups: Vec<Arc<Picture>>,
}

impl Making {
    /// A clip of the frames at `indices` of a video with `fps` frames per second.
    pub(super) fn new(
        (processor, options): (Arc<VideoProcessor>, VideoOptions),
        share: Arc<Share>,
        indices: &[usize],
        fps: f64,
    ) -> Making {
        let seconds = timestamps(indices, fps, processor.frames.temporal_patch_size);
        let num_frames = indices.len();
        Making { processor, options, share, num_frames, seconds, sizes: None, group: Vec::new(), groups: Vec::new() }
    }

    /// Takes the next frame, which is shown `copies` times in a row. Errors where its size is not that of those before, or where there is no room for the clip.
    pub(super) fn push(&mut self, frame: Rgb, copies: usize) -> Result<(), Error> {
        let size = (frame.height, frame.width);
        let (first, target) = match self.sizes {
            Some(sizes) => sizes,
            None => *self.sizes.insert((size, self.measure(size)?)),
        };
        if size != first {
            let number = self.groups.len() * self.processor.frames.temporal_patch_size + self.group.len() + 1;
            return Err(Error::invalid(format!(
                "frame {number} of the video has {}x{} pixels and the first has {}x{}: they must have the same size",
                size.1, size.0, first.1, first.0
            )));
        }
        let resized = resize(frame, target.0, target.1);
        for _ in 0..copies {
            self.group.push(resized.clone());
            if self.group.len() == self.processor.frames.temporal_patch_size {
                self.close_group();
            }
        }
        Ok(())
    }

    /// The size of the resized frames, once there is room for all of them.
    fn measure(&self, frame: (usize, usize)) -> Result<(usize, usize), Error> {
        let (height, width) = self.processor.target_size(self.num_frames, frame, &self.options)?;
        self.share.take(self.seconds.len() * self.processor.frames.grid(height, width).num_tokens())?;
        Ok((height, width))
    }

    fn close_group(&mut self) {
        let frames = std::mem::take(&mut self.group);
        let grid = self.processor.frames.grid(frames[0].height, frames[0].width);
        let patches = patches_of_frames(&frames, &self.processor.frames);
        self.groups.push(Arc::new(Picture::new(patches, grid)));
    }

    /// The clip. Its last frame is repeated where the last group is not full.
    pub(super) fn finish(mut self) -> Clip {
        if !self.group.is_empty() {
            self.close_group();
        }
        Clip { groups: self.groups, seconds: self.seconds }
    }
}
