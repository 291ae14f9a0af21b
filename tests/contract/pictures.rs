//! A small picture in every form that a client may send it.

use std::io::Cursor;

use base64::Engine;
use image::{ImageFormat, Rgb, RgbImage};

/// A red square's file.
pub fn file(format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    RgbImage::from_pixel(64, 64, Rgb([200, 30, 30])).write_to(&mut file, format).unwrap();
    file.into_inner()
}

pub fn png_base64() -> String {
    base64::engine::general_purpose::STANDARD.encode(file(ImageFormat::Png))
}

pub fn png_data_url() -> String {
    format!("data:image/png;base64,{}", png_base64())
}
