//! `Rgb`: a decoded picture.

/// A picture of `height` x `width` pixels, eight bits a channel, in sRGB as the file had it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rgb {
    pub height: usize,
    pub width: usize,
    /// `[height, width, 3]`
    pub pixels: Vec<u8>,
}

impl Rgb {
    /// A row's pixels, `[width, 3]`.
    pub fn row(&self, y: usize) -> &[u8] {
        &self.pixels[y * self.width * 3..(y + 1) * self.width * 3]
    }
}
