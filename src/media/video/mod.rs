//! A video's file, or a list of its frames -> the frames that the model sees -> a clip of patches with its times.
//!
//! `container` tells what a file is, `ffmpeg` (with `packets`, `places` and `ppm`) or `animation` decodes it, `sampling` picks frames,
//! `size` and `clip` prepare them as `processor` wants. What is picked and how it is sized is Transformers' to the bit.

mod animation;
mod clip;
mod container;
mod ffmpeg;
mod packets;
mod places;
mod ppm;
pub mod processor;
pub mod sampling;
pub mod size;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::Semaphore;

use super::kind::Kind;
use super::memory::Share;
use super::source::{self, Located};
use super::{Area, Media, MediaLimits, Source, Times};
use crate::engine::Clip;
use crate::error::Error;
use animation::Animated;
use clip::Making;
use container::{Animation, Container};
use ffmpeg::{Ffmpeg, VideoFile};
use processor::VideoProcessor;
use sampling::{Rate, Timing};

pub use sampling::Part;

/// A video as a client sends it.
#[derive(Debug, Clone, PartialEq)]
pub struct Video {
    pub footage: Footage,
    pub options: VideoOptions,
}

impl From<Source> for Video {
    /// The video in a file, read as the checkpoint says.
    fn from(source: Source) -> Video {
        Video { footage: Footage::File(source), options: VideoOptions::default() }
    }
}

/// What a video is made of.
#[derive(Debug, Clone, PartialEq)]
pub enum Footage {
    /// A file, which frames are sampled from.
    File(Source),
    /// Frames that the client sampled itself, in order.
    Frames(Vec<Source>),
}

/// How a client wants its video read. What it does not say is the checkpoint's to say.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct VideoOptions {
    /// Of a file: frames to sample per second. Of a list of frames: how many of them are one second.
    pub fps: Option<f64>,
    /// Frames to spread over the video, in place of `fps`.
    pub num_frames: Option<usize>,
    /// Bounds on the area of a resized frame, in pixels, on average over the clip.
    pub min_pixels: Option<usize>,
    pub max_pixels: Option<usize>,
    /// A bound on the area of all resized frames together, in pixels.
    pub total_pixels: Option<usize>,
    /// What of a file is read.
    pub part: Part,
}

impl VideoOptions {
    /// These, and those of `others` that are not among them.
    pub fn or(self, others: VideoOptions) -> VideoOptions {
        // One that says how many frames it wants has said at which rate.
        let rate = if self.fps.is_some() || self.num_frames.is_some() { self } else { others };
        VideoOptions {
            fps: rate.fps,
            num_frames: rate.num_frames,
            min_pixels: self.min_pixels.or(others.min_pixels),
            max_pixels: self.max_pixels.or(others.max_pixels),
            total_pixels: self.total_pixels.or(others.total_pixels),
            part: if self.part == Part::default() { others.part } else { self.part },
        }
    }

    /// The bounds that a picture shares with a frame.
    pub(super) fn area(self) -> Area {
        Area { min_pixels: self.min_pixels, max_pixels: self.max_pixels }
    }

    /// How frames are picked from a file.
    fn rate(&self, max_frames: usize) -> Result<Rate, Error> {
        let rate = match (self.fps, self.num_frames) {
            (Some(_), Some(_)) => {
                return Err(Error::invalid(
                    "a video has both `fps` and `num_frames`, which exclude each other: send one",
                ));
            }
            (Some(fps), None) => Rate::Fps(fps),
            (None, Some(num_frames)) => Rate::NumFrames(num_frames),
            (None, None) => Rate::Usual,
        };
        sampling::check(rate, max_frames)?;
        Ok(rate)
    }
}

/// What reads the videos of a checkpoint that sees.
pub(super) struct Videos {
    processor: Arc<VideoProcessor>,
    /// Or why there is none.
    ffmpeg: Result<Ffmpeg, String>,
    /// Held from before a file is fetched until its last frame is prepared: files are large.
    files: Semaphore,
}

impl Videos {
    /// Reads how `checkpoint` wants its videos prepared, and says in the log what will decode them.
    pub(super) fn start(processor: VideoProcessor, limits: &MediaLimits) -> Videos {
        let ffmpeg = find_ffmpeg(limits);
        match &ffmpeg {
            Ok((_, version)) => tracing::info!("videos are decoded by ffmpeg {version}"),
            Err(reason) => tracing::warn!(
                "video files other than animated pictures are refused: {reason} (--ffmpeg, SARDINE_FFMPEG); lists of frames are read"
            ),
        }
        Videos {
            processor: Arc::new(processor),
            ffmpeg: ffmpeg.map(|(ffmpeg, _)| ffmpeg),
            files: Semaphore::new(limits.decode_concurrency),
        }
    }

    fn ffmpeg(&self) -> Result<&Ffmpeg, Error> {
        self.ffmpeg.as_ref().map_err(|reason| {
            Error::invalid(format!(
                "this server has no decoder for video files: {reason} (--ffmpeg, SARDINE_FFMPEG); send the frames as a list of \
                 pictures: {{\"type\": \"video\", \"video\": [...], \"fps\": 2}}"
            ))
        })
    }
}

fn find_ffmpeg(limits: &MediaLimits) -> Result<(Ffmpeg, String), String> {
    let program = limits.ffmpeg.as_deref().ok_or("no ffmpeg was found")?;
    Ffmpeg::find(program, limits.max_image_pixels, limits.video_timeout)
}

impl Media {
    /// One video's clip. Errors are those of a picture.
    pub(super) async fn clip(&self, videos: &Videos, video: &Video, share: Arc<Share>) -> Result<(Clip, Times), Error> {
        let reading = Reading { media: self, videos, options: video.options, share };
        match &video.footage {
            Footage::File(source) => reading.file(source).await,
            Footage::Frames(frames) => reading.frames(frames).await,
        }
    }
}

/// A video that is being read.
struct Reading<'a> {
    media: &'a Media,
    videos: &'a Videos,
    options: VideoOptions,
    share: Arc<Share>,
}

impl Reading<'_> {
    fn limits(&self) -> &MediaLimits {
        &self.media.limits
    }

    /// Room for a clip of the frames at `indices`.
    fn making(&self, indices: &[usize], fps: f64) -> Making {
        Making::new((self.videos.processor.clone(), self.options), self.share.clone(), indices, fps)
    }

    /// Frames that the client sampled: all of them, or as many as it asks for.
    async fn frames(&self, frames: &[Source]) -> Result<(Clip, Times), Error> {
        /// Frames fetched and decoded ahead of the one that is prepared.
        const AHEAD: usize = 4;
        let max_frames = self.limits().max_video_frames;
        if frames.len() > max_frames {
            return Err(Error::invalid(format!(
                "the video has {} frames, more than the {max_frames} that this server shows the model \
                 (--max-video-frames, SARDINE_MAX_VIDEO_FRAMES)",
                frames.len()
            )));
        }
        if self.options.part != Part::default() {
            return Err(Error::invalid(
                "`video_start` and `video_end` are for video files; of a list of frames, leave out those that are not meant",
            ));
        }
        let fps = self.options.fps.unwrap_or(self.videos.processor.fps);
        sampling::check(Rate::Fps(fps), max_frames)?;
        let indices = match self.options.num_frames {
            Some(num_frames) => {
                sampling::check(Rate::NumFrames(num_frames), max_frames)?;
                sampling::spread(frames.len(), num_frames)
            }
            None => (0..frames.len()).collect(),
        };
        if indices.is_empty() || frames.is_empty() {
            return Err(Error::invalid("the video is an empty list of frames"));
        }
        let mut making = self.making(&indices, fps);
        let mut spent = Times::default();
        let decoded =
            stream::iter(&indices).map(|index| self.media.pixels(&frames[*index], &self.share, Ok)).buffered(AHEAD);
        let mut decoded = std::pin::pin!(decoded);
        while let Some((frame, times)) = decoded.try_next().await? {
            spent.add(times);
            let (next, took) = push(making, frame, 1).await?;
            making = next;
            spent.prepare += took;
        }
        Ok((making.finish(), spent))
    }

    /// A file: fetched, told by its first bytes, and decoded where frames are wanted.
    async fn file(&self, source: &Source) -> Result<(Clip, Times), Error> {
        let _permit = self.videos.files.acquire().await.expect("the semaphore is never closed");
        let begun = Instant::now();
        let located = source::locate(source, Kind::Video)?;
        let is_remote = matches!(located, Located::Remote(_));
        let file = self.bytes(located).await?;
        let fetch = is_remote.then(|| begun.elapsed());
        let times = Times { fetch, ..Times::default() };
        let timeout = self.limits().video_timeout;
        match container::recognise(&file)? {
            Container::Animation(kind) => self.animation(file, kind, times).await,
            Container::Ffmpeg(demuxer) => {
                let decoded = tokio::time::timeout(timeout, self.decoded(file, demuxer, times));
                decoded.await.unwrap_or_else(|_| Err(self.limits().video_too_slow()))
            }
        }
    }

    /// The bytes of a file, wherever it is.
    async fn bytes(&self, located: Located<'_>) -> Result<Bytes, Error> {
        let max_bytes = self.limits().max_video_bytes;
        let file = match located {
            Located::Remote(url) => self.media.fetch(url, Kind::Video).await?,
            Located::File(bytes) => bytes.clone(),
            Located::Base64(text) => {
                let text = text.to_owned();
                blocking(move || source::decode_base64(&text, Kind::Video, max_bytes).map(Bytes::from)).await?
            }
        };
        if file.len() > max_bytes {
            return Err(Error::invalid(Kind::Video.too_many_bytes(max_bytes)));
        }
        Ok(file)
    }

    /// Which frames the model sees of a video with `timing`, and its frames per second.
    fn sample(&self, timing: &Timing) -> Result<(Vec<usize>, f64), Error> {
        let limits = self.limits();
        let (first, read) = self.options.part.of(timing)?;
        if read.seconds > limits.max_video_seconds {
            return Err(Error::invalid(format!(
                "the video lasts {:.1} s, longer than the {} s that this server reads \
                 (--max-video-seconds, SARDINE_MAX_VIDEO_SECONDS); have a part of it read (`video_start`, `video_end`), \
                 or send its frames as a list of pictures",
                read.seconds, limits.max_video_seconds
            )));
        }
        let rate = self.options.rate(limits.max_video_frames)?;
        let indices = sampling::indices(&read, rate, &self.videos.processor, limits.max_video_frames);
        let indices = indices.into_iter().map(|index| first + index).collect();
        Ok((indices, timing.fps.unwrap_or(sampling::UNKNOWN_FPS)))
    }

    /// What ffmpeg decodes. Dropping the future ends the process.
    async fn decoded(&self, file: Bytes, demuxer: &'static str, mut times: Times) -> Result<(Clip, Times), Error> {
        let ffmpeg = self.videos.ffmpeg()?;
        let begun = Instant::now();
        let video = blocking(move || VideoFile::new(&file, demuxer)).await?;
        let mut packets = ffmpeg.packets(&video).await?;
        let (indices, fps) = self.sample(&packets.timing())?;
        let mut unique = indices.clone();
        unique.dedup();
        let mut making = self.making(&indices, fps);
        let entry = packets.entry(&unique).filter(|_| container::SOUGHT.contains(&demuxer));
        let mut frames = ffmpeg.frames(&video, &unique, entry.as_ref())?;
        for index in &unique {
            let frame = frames.next().await?;
            let copies = indices.iter().filter(|shown| *shown == index).count();
            let (next, took) = push(making, frame, copies).await?;
            making = next;
            times.prepare += took;
        }
        times.decode = begun.elapsed().saturating_sub(times.prepare);
        Ok((making.finish(), times))
    }

    /// What this process decodes, on a blocking thread.
    async fn animation(&self, file: Bytes, kind: Animation, times: Times) -> Result<(Clip, Times), Error> {
        let begun = Instant::now();
        let (limits, in_file) = (self.limits().clone(), file.clone());
        let timing = blocking(move || Animated::new(&in_file, kind, &limits).timing()).await?;
        let (indices, fps) = self.sample(&timing)?;
        let (limits, mut making) = (self.limits().clone(), self.making(&indices, fps));
        blocking(move || {
            Animated::new(&file, kind, &limits).frames(&indices, |frame, copies| making.push(frame, copies))?;
            Ok((making.finish(), Times { decode: begun.elapsed(), ..times }))
        })
        .await
    }
}

/// Prepares a frame on a blocking thread, and says how long that took.
async fn push(mut making: Making, frame: super::Rgb, copies: usize) -> Result<(Making, Duration), Error> {
    blocking(move || {
        let begun = Instant::now();
        making.push(frame, copies)?;
        Ok((making, begun.elapsed()))
    })
    .await
}

/// Runs `work` off the async threads. A decoder that panics has been given a malformed file.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_panic| {
        Err(Error::invalid(
            "the video's file is malformed in a way that its decoder cannot handle; convert it to H.264 in MP4",
        ))
    })
}
