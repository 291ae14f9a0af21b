//! What each token id stands for, in bytes: all that decoding needs.

use tokenizers::Tokenizer as Encoder;

/// The bytes of every token, one after another. Ids without a token (padding of the embedding) have none.
pub struct Vocabulary {
    bytes: Vec<u8>,
    /// Where the bytes of each id end.
    ends: Vec<u32>,
}

impl Vocabulary {
    pub(super) fn of(encoder: &Encoder) -> Vocabulary {
        let last_id = encoder.get_vocab(true).into_values().max();
        let byte_of = byte_alphabet();
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for id in 0..last_id.map_or(0, |id| id + 1) {
            if let Some(token) = encoder.id_to_token(id) {
                push_bytes(&token, &byte_of, &mut bytes);
            }
            ends.push(bytes.len() as u32);
        }
        Vocabulary { bytes, ends }
    }

    /// Ids from 0 to this have a token or a gap.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The token's bytes, which need not be whole characters; none for an id without a token.
    pub fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start as usize..end as usize]
    }
}

/// A token whose characters all stand for bytes is those bytes; any other (an added token) is its own text.
fn push_bytes(token: &str, byte_of: &[Option<u8>], bytes: &mut Vec<u8>) {
    let before = bytes.len();
    for c in token.chars() {
        match byte_of.get(c as usize).copied().flatten() {
            Some(byte) => bytes.push(byte),
            None => {
                bytes.truncate(before);
                bytes.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

/// GPT-2's alphabet, in which a printable character stands for every byte: index is the character, value its byte.
fn byte_alphabet() -> Vec<Option<u8>> {
    let mut byte_of = vec![None; 0x144];
    let mut next = 0x100;
    for byte in 0..=u8::MAX {
        let prints_itself = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let character = if prints_itself { usize::from(byte) } else { next };
        next += usize::from(!prints_itself);
        byte_of[character] = Some(byte);
    }
    byte_of
}

#[cfg(test)]
mod tests {
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    use super::byte_alphabet;

    #[test]
    fn the_alphabet_is_that_of_the_tokenizers_library() {
        let ours = byte_alphabet();
        let characters: Vec<char> =
            (0..ours.len()).filter(|c| ours[*c].is_some()).flat_map(|c| char::from_u32(c as u32)).collect();
        assert_eq!(characters.len(), 256);
        assert!(characters.iter().all(|c| ByteLevel::alphabet().contains(c)));
    }
}
