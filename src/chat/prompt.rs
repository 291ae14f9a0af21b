//! Pieces of text and pictures become a prompt: token ids, placeholders for the pictures, and positions.

use std::sync::Arc;

use super::tokenizer::{Piece, Tokenizer};
use crate::engine::{Picture, PlacedPicture, Prompt, Visuals};
use crate::error::Error;

/// The ids that stand for pictures and clips, where the checkpoint has a vision tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placeholders {
    pub image: Option<u32>,
    pub video: Option<u32>,
}

/// A prompt being put together.
pub(super) struct Assembly<'a> {
    tokenizer: &'a Tokenizer,
    placeholders: Placeholders,
    pictures: &'a [Arc<Picture>],
    /// The groups of frames of all clips.
    groups: Vec<&'a Arc<Picture>>,
    ids: Vec<u32>,
    placed: Vec<PlacedPicture>,
    /// Places for pictures so far, whether or not there is a picture for each.
    num_places: usize,
    /// Places for groups of frames so far.
    num_groups: usize,
}

impl<'a> Assembly<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, placeholders: Placeholders, visuals: &'a Visuals) -> Assembly<'a> {
        Assembly {
            tokenizer,
            placeholders,
            pictures: &visuals.pictures,
            groups: visuals.clips.iter().flat_map(|clip| &clip.groups).collect(),
            ids: Vec::new(),
            placed: Vec::new(),
            num_places: 0,
            num_groups: 0,
        }
    }

    /// Appends a special token (the placeholder of a picture or of a group of frames becomes as many as that has tokens) or plain
    /// text.
    pub(super) fn push(&mut self, piece: Piece) -> Result<(), Error> {
        match piece {
            Piece::Text(text) => {
                let ids = self.tokenizer.encode_plain(text);
                let ids = ids.map_err(|error| Error::invalid(format!("the text cannot be tokenised: {error}")))?;
                self.ids.extend(ids);
            }
            Piece::Special(id) if Some(id) == self.placeholders.image => {
                let picture = self.pictures.get(self.num_places).cloned();
                self.num_places += 1;
                if let Some(picture) = picture {
                    self.place(picture, id);
                }
            }
            Piece::Special(id) if Some(id) == self.placeholders.video => {
                let group = self.groups.get(self.num_groups).copied().cloned();
                self.num_groups += 1;
                let none = "the prompt has a place for a video, and the request brings none for it";
                self.place(group.ok_or_else(|| Error::invalid(none))?, id);
            }
            Piece::Special(id) => self.ids.push(id),
        }
        Ok(())
    }

    fn place(&mut self, picture: Arc<Picture>, id: u32) {
        let start = self.ids.len();
        self.ids.extend(std::iter::repeat_n(id, picture.grid.num_tokens()));
        self.placed.push(PlacedPicture { picture, placeholders: start..self.ids.len() });
    }

    /// The prompt, cut to its last `truncate` tokens. Errors where pictures and places do not match in number, where
    /// the prompt is empty, or where the cut goes through a picture.
    pub(super) fn finish(mut self, truncate: Option<usize>) -> Result<Prompt, Error> {
        if self.num_places != self.pictures.len() {
            return Err(Error::invalid(format!(
                "the prompt has {} for pictures and the request brings {}: they must be as many",
                counted(self.num_places, "place"),
                counted(self.pictures.len(), "picture")
            )));
        }
        if let Some(keep) = truncate {
            self.keep_last(keep)?;
        }
        if self.ids.is_empty() {
            return Err(Error::invalid("the prompt is empty"));
        }
        let (positions, rope_delta) = positions(self.ids.len(), &self.placed);
        Ok(Prompt { ids: self.ids, positions, rope_delta, pictures: self.placed })
    }

    fn keep_last(&mut self, keep: usize) -> Result<(), Error> {
        let cut = self.ids.len().saturating_sub(keep);
        self.placed.retain(|placed| placed.placeholders.end > cut);
        for placed in &mut self.placed {
            let tokens = &placed.placeholders;
            if tokens.start < cut {
                let message = format!(
                    "truncating the prompt of {} tokens to its last {keep} would cut into a picture of {} tokens; \
                     keep at least {}",
                    self.ids.len(),
                    tokens.len(),
                    self.ids.len() - tokens.start
                );
                return Err(Error::invalid_param("truncate", message));
            }
            placed.placeholders = tokens.start - cut..tokens.end - cut;
        }
        self.ids.drain(..cut);
        Ok(())
    }
}

/// Positions of `num_tokens` tokens on the three axes (t, h, w), and the rope delta: Transformers'
/// `Qwen3_5Model.get_rope_index`.
///
/// Text advances all axes by one per token. A picture of h x w tokens stands at one moment; its rows and columns
/// count from the position it begins at, and what follows continues after its longer side.
fn positions(num_tokens: usize, pictures: &[PlacedPicture]) -> (Vec<[i64; 3]>, i64) {
    let mut positions = Vec::with_capacity(num_tokens);
    let mut next = 0;
    for placed in pictures {
        push_text(&mut positions, &mut next, placed.placeholders.start);
        let grid = placed.picture.grid;
        let (height, width) = (grid.height as i64 / 2, grid.width as i64 / 2);
        positions.extend((0..height).flat_map(|row| (0..width).map(move |column| [next, next + row, next + column])));
        next += height.max(width);
    }
    push_text(&mut positions, &mut next, num_tokens);
    (positions, next - num_tokens as i64)
}

fn push_text(positions: &mut Vec<[i64; 3]>, next: &mut i64, until: usize) {
    let num_tokens = until - positions.len();
    positions.extend((*next..).take(num_tokens).map(|position| [position; 3]));
    *next += num_tokens as i64;
}

fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::positions;
    use crate::engine::{Grid, Picture, PlacedPicture};

    #[test]
    fn a_picture_advances_by_its_longer_side() {
        let picture = Arc::new(Picture::new(Vec::new(), Grid { height: 4, width: 6 }));
        let (positions, rope_delta) = positions(9, &[PlacedPicture { picture, placeholders: 1..7 }]);
        let expected =
            [[0, 0, 0], [1, 1, 1], [1, 1, 2], [1, 1, 3], [1, 2, 1], [1, 2, 2], [1, 2, 3], [4, 4, 4], [5, 5, 5]];
        assert_eq!(positions, expected);
        assert_eq!(rope_delta, 6 - 9);
    }
}
