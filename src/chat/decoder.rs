//! Tokens to text, one at a time: never half a character.

use std::sync::Arc;

use super::tokenizer::Tokenizer;

/// Decodes the tokens of one answer as they come. The pieces together are what decoding all tokens at once gives,
/// because the bytes of byte-level tokens are decoded as one stream.
pub struct Decoder {
    tokenizer: Arc<Tokenizer>,
    /// Special tokens are left out of the text.
    skip_special_tokens: bool,
    /// The bytes of a character that is not complete: at most three.
    pending: Vec<u8>,
}

impl Decoder {
    pub(super) fn new(tokenizer: Arc<Tokenizer>, skip_special_tokens: bool) -> Decoder {
        Decoder { tokenizer, skip_special_tokens, pending: Vec::new() }
    }

    /// What became readable with this token: empty while a character is incomplete. Bytes that cannot become a
    /// character are U+FFFD, as Transformers decodes them.
    pub fn push(&mut self, id: u32) -> String {
        if self.skip_special_tokens && self.tokenizer.is_special(id) {
            return String::new();
        }
        self.pending.extend_from_slice(self.tokenizer.vocabulary().bytes(id));
        let (text, read) = readable(&self.pending);
        self.pending.drain(..read);
        text
    }

    /// What is left when no token follows: U+FFFD for an incomplete character.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

/// The text of `bytes` up to an incomplete character at their end, and how many bytes that took.
fn readable(bytes: &[u8]) -> (String, usize) {
    let (mut text, mut read) = (String::new(), 0);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        read += chunk.valid().len();
        let invalid = chunk.invalid();
        if invalid.is_empty() || may_continue(invalid, &bytes[read..]) {
            break;
        }
        text.push(char::REPLACEMENT_CHARACTER);
        read += invalid.len();
    }
    (text, read)
}

/// Whether `invalid` is the end of the bytes and the beginning of a character.
fn may_continue(invalid: &[u8], rest: &[u8]) -> bool {
    invalid.len() == rest.len() && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::readable;

    /// Decodes `chunks` one at a time, as [`super::Decoder`] does.
    fn decode(chunks: &[Vec<u8>]) -> Vec<String> {
        let (mut pending, mut pieces) = (Vec::new(), Vec::new());
        for chunk in chunks {
            pending.extend_from_slice(chunk);
            let (text, read) = readable(&pending);
            pending.drain(..read);
            pieces.push(text);
        }
        pieces.push(String::from_utf8_lossy(&pending).into_owned());
        pieces
    }

    #[test]
    fn a_character_waits_for_its_last_byte() {
        let chunks = ["a".into(), vec![0xf0, 0x9f], vec![0x98], vec![0x80, b'!'], vec![0xe6]];
        assert_eq!(decode(&chunks), ["a", "", "", "😀!", "", "\u{fffd}"]);
    }

    #[test]
    fn bytes_that_cannot_become_a_character_do_not_hold_up_the_text() {
        assert_eq!(decode(&[vec![0x80], vec![0xf0, 0x9f], b"a".to_vec()]), ["\u{fffd}", "", "\u{fffd}a", ""]);
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_whole(chunks in vec(vec(any::<u8>(), 0..6), 0..12)) {
            let whole = chunks.concat();
            prop_assert_eq!(decode(&chunks).concat(), String::from_utf8_lossy(&whole));
        }

        #[test]
        fn the_pieces_of_text_are_the_text(text in "\\PC*", cuts in vec(1..4usize, 0..200)) {
            let (mut rest, mut chunks) = (text.as_bytes(), Vec::new());
            for cut in cuts {
                let (chunk, after) = rest.split_at(cut.min(rest.len()));
                chunks.push(chunk.to_vec());
                rest = after;
            }
            chunks.push(rest.to_vec());
            prop_assert_eq!(decode(&chunks).concat(), text);
        }
    }
}
