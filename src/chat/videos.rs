//! The place of a video in a prompt's text becomes one place for each group of its frames, with the time when it is shown.

use super::prompt::Placeholders;
use super::raw::{VISION_END, VISION_START};
use super::tokenizer::{Piece, Tokenizer};
use crate::engine::Clip;
use crate::error::Error;

/// What becomes of `<|vision_start|><|video_pad|><|vision_end|>`, which templates write for a video: both are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VideoPlaces {
    /// The frames stand between the template's own start and end, each group with a start and an end of its own:
    /// Transformers since 5.10.
    #[default]
    InsidePair,
    /// They stand in the place of the three: Transformers 4.57 and Qwen's own code.
    InPlaceOfPair,
}

/// Writes the times and places of `clips` into a text that is cut into `pieces`. Errors where there are not as many places as
/// clips.
pub(super) fn expand(
    pieces: &[Piece],
    tokenizer: &Tokenizer,
    placeholders: Placeholders,
    clips: &[Clip],
    places: VideoPlaces,
) -> Result<String, Error> {
    let (mut text, mut used, mut rest) = (String::new(), 0, pieces.iter().peekable());
    let special = |id: u32| String::from_utf8_lossy(tokenizer.vocabulary().bytes(id)).into_owned();
    while let Some(piece) = rest.next() {
        match *piece {
            Piece::Text(piece) => text.push_str(piece),
            Piece::Special(id) if Some(id) == placeholders.video => {
                let in_pair = text.ends_with(VISION_START)
                    && rest.peek().is_some_and(|next| matches!(next, Piece::Special(id) if special(*id) == VISION_END));
                if places == VideoPlaces::InPlaceOfPair && in_pair {
                    text.truncate(text.len() - VISION_START.len());
                    rest.next();
                }
                if let Some(clip) = clips.get(used) {
                    push_clip(&mut text, clip, &special(id));
                }
                used += 1;
            }
            Piece::Special(id) => text.push_str(&special(id)),
        }
    }
    if used == clips.len() {
        return Ok(text);
    }
    Err(Error::invalid(format!(
        "the prompt has {used} place{} for videos and the request brings {}: they must be as many",
        if used == 1 { "" } else { "s" },
        clips.len()
    )))
}

/// One pad for each group: ids repeat it as often as the group has tokens. Python's `.1f` and Rust's round alike: exactly, and
/// ties to the even digit.
fn push_clip(text: &mut String, clip: &Clip, pad: &str) {
    for seconds in &clip.seconds {
        text.push_str(&format!("<{seconds:.1} seconds>{VISION_START}{pad}{VISION_END}"));
    }
}
