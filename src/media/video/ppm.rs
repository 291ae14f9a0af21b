//! Frames as ffmpeg writes them into a pipe: PPM, which tells the size of each.

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::error::Error;
use crate::media::Rgb;
use crate::media::kind::Kind;

/// The next frame; `None` at the end, also where it comes inside a frame. Errors where a frame is larger than `max_pixels`.
pub(super) async fn read(input: &mut (impl AsyncRead + Unpin), max_pixels: u64) -> Result<Option<Rgb>, Error> {
    let Some((width, height)) = header(input).await else { return Ok(None) };
    if width as u64 * height as u64 > max_pixels {
        return Err(Kind::Video.too_many_pixels((width as u64, height as u64), max_pixels));
    }
    let mut pixels = vec![0; width * height * 3];
    Ok(input.read_exact(&mut pixels).await.is_ok().then_some(Rgb { height, width, pixels }))
}

/// `P6`, width and height, and the largest value, each before white space.
async fn header(input: &mut (impl AsyncRead + Unpin)) -> Option<(usize, usize)> {
    let magic = word(input).await?;
    let (width, height) = (word(input).await?.parse().ok()?, word(input).await?.parse().ok()?);
    let largest = word(input).await?;
    (magic == "P6" && largest == "255" && width > 0 && height > 0).then_some((width, height))
}

/// What stands before the next white space.
async fn word(input: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    const LONGEST: usize = 10;
    let mut word = String::new();
    loop {
        let byte = input.read_u8().await.ok()?;
        if byte.is_ascii_whitespace() {
            return Some(word);
        }
        if word.len() == LONGEST {
            return None;
        }
        word.push(char::from(byte));
    }
}

#[cfg(test)]
mod tests {
    use super::read;

    #[tokio::test]
    async fn frames_are_read_one_after_another_and_half_a_frame_is_none() {
        let mut input = &b"P6\n2 1\n255\nabcdefP6\n1 1\n255\nxyzP6\n2 2\n255\nabc"[..];
        let first = read(&mut input, 4).await.unwrap().unwrap();
        assert_eq!((first.width, first.height, &first.pixels[..]), (2, 1, &b"abcdef"[..]));
        assert_eq!(read(&mut input, 4).await.unwrap().unwrap().pixels, b"xyz");
        assert_eq!(read(&mut input, 4).await, Ok(None));
    }

    #[tokio::test]
    async fn a_frame_larger_than_the_limit_is_refused_before_it_is_read() {
        let refused = read(&mut &b"P6\n3000 3000\n255\n"[..], 1000).await.unwrap_err().to_string();
        assert!(refused.contains("3000x3000") && refused.contains("--max-image-pixels"), "{refused}");
    }
}
