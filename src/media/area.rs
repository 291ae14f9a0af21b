//! `Area`: how large a picture may become, where a client says so.

/// Bounds on the area of a resized picture, in pixels. What is `None`, the checkpoint says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Area {
    pub min_pixels: Option<usize>,
    pub max_pixels: Option<usize>,
}

impl Area {
    /// The area of OpenAI's `detail: low`: as many pixels as the 512 x 512 that such a picture has there.
    pub const LOW_DETAIL: Area = Area { min_pixels: None, max_pixels: Some(512 * 512) };

    /// This, and what it leaves open from `other`.
    pub fn or(self, other: Area) -> Area {
        Area { min_pixels: self.min_pixels.or(other.min_pixels), max_pixels: self.max_pixels.or(other.max_pixels) }
    }
}
