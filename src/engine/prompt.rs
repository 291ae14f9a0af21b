//! What the model is asked, as plain data: token ids, their positions, and the pictures among them.

use std::ops::Range;
use std::sync::Arc;

/// A picture's size in patches, both even: the tower merges blocks of 2 x 2 patches into one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    pub height: usize,
    pub width: usize,
}

impl Grid {
    /// Patches of the picture: rows of [`Picture::patches`].
    pub fn num_patches(self) -> usize {
        self.height * self.width
    }

    /// Tokens that the picture costs in the prompt.
    pub fn num_tokens(self) -> usize {
        self.num_patches() / 4
    }
}

/// One picture as the vision tower reads it: a still image, or a pair of a video's frames.
///
/// `patches` is `[grid.num_patches(), patch_len]` in merge-block order, a patch being (channel 3, temporal 2, row, column),
/// normalised to -1..1.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    pub patches: Vec<f32>,
    pub grid: Grid,
    digest: Digest,
}

/// Tells a picture from every other: BLAKE3, so that nobody can make one that passes for somebody else's.
pub type Digest = [u8; 32];

impl Picture {
    pub fn new(patches: Vec<f32>, grid: Grid) -> Picture {
        let mut hasher = blake3::Hasher::new();
        for side in [grid.height, grid.width] {
            hasher.update(&(side as u64).to_le_bytes());
        }
        for some in patches.chunks(HASHED_AT_A_TIME) {
            let mut bytes = [0; HASHED_AT_A_TIME * size_of::<f32>()];
            bytes.as_chunks_mut().0.iter_mut().zip(some).for_each(|(bytes, number)| *bytes = number.to_le_bytes());
            hasher.update(&bytes[..size_of_val(some)]);
        }
        Picture { patches, grid, digest: *hasher.finalize().as_bytes() }
    }

    /// Of patches and grid: all that the vision tower reads.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}

/// Numbers: BLAKE3 takes 16 KiB and more at its full speed.
const HASHED_AT_A_TIME: usize = 4096;

/// A video as the vision tower reads it: consecutive frames in groups (pairs), each a picture of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Clip {
    pub groups: Vec<Arc<Picture>>,
    /// When each group is shown, from the beginning of the video.
    pub seconds: Vec<f64>,
}

/// What a prompt has places for: each kind in the order of its places.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Visuals {
    pub pictures: Vec<Arc<Picture>>,
    pub clips: Vec<Clip>,
}

impl Visuals {
    pub fn is_empty(&self) -> bool {
        self.pictures.is_empty() && self.clips.is_empty()
    }
}

impl From<Vec<Arc<Picture>>> for Visuals {
    fn from(pictures: Vec<Arc<Picture>>) -> Visuals {
        Visuals { pictures, clips: Vec::new() }
    }
}

/// A picture and the placeholders in [`Prompt::ids`] that its embeddings replace.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacedPicture {
    pub picture: Arc<Picture>,
    /// As long as `picture.grid.num_tokens()`.
    pub placeholders: Range<usize>,
}

/// A prompt ready for the engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    pub ids: Vec<u32>,
    /// (t, h, w) of each token: the three axes of interleaved mRoPE, equal for text.
    pub positions: Vec<[i64; 3]>,
    /// Added to a generated token's index in the sequence to give its position on all three axes.
    pub rope_delta: i64,
    /// In the order of their placeholders.
    pub pictures: Vec<PlacedPicture>,
}

impl Prompt {
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::{Grid, Picture};

    #[test]
    fn pictures_differ_in_a_number_or_in_their_shape() {
        let (wide, tall) = (Grid { height: 2, width: 4 }, Grid { height: 4, width: 2 });
        let numbers: Vec<f32> = (0..10_000).map(|number| number as f32).collect();
        let mut others = numbers.clone();
        others[9_999] += 1.0;
        let picture = Picture::new(numbers.clone(), wide);
        assert_eq!(picture.digest(), Picture::new(numbers.clone(), wide).digest());
        assert_ne!(picture.digest(), Picture::new(numbers, tall).digest());
        assert_ne!(picture.digest(), Picture::new(others, wide).digest());
    }
}
