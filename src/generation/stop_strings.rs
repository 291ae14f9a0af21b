//! Finds the texts that end an answer while it is still being written.

/// Watches the text of an answer for stop strings, across the borders of its pieces.
///
/// Transformers' rule: the answer ends with the token that completes a stop string, wherever in that token's text it ends.
#[derive(Debug, Clone)]
pub(super) struct StopStrings {
    strings: Vec<String>,
    keep: bool,
    /// Text that was not passed on yet (where a stop string is cut out of the answer), or that was and may be the
    /// beginning of one (where it stays).
    tail: String,
}

/// What to do with a new piece of text.
#[derive(Debug, PartialEq)]
pub(super) struct Watched {
    /// Text to pass on now.
    pub(super) text: String,
    /// A stop string is complete: the answer ends after `text`.
    pub(super) stopped: bool,
}

impl StopStrings {
    /// `keep`: the stop string, and what follows it in its last token, stays in the answer.
    pub(super) fn new(strings: Vec<String>, keep: bool) -> StopStrings {
        StopStrings { strings, keep, tail: String::new() }
    }

    pub(super) fn push(&mut self, piece: &str) -> Watched {
        if self.strings.is_empty() || piece.is_empty() {
            return Watched { text: piece.to_owned(), stopped: false };
        }
        self.tail.push_str(piece);
        let found = self.strings.iter().filter_map(|string| self.tail.find(string.as_str())).min();
        let held = longest_beginning(&self.tail, &self.strings);
        match (self.keep, found) {
            (true, found) => {
                self.tail.drain(..self.tail.len() - held);
                Watched { text: piece.to_owned(), stopped: found.is_some() }
            }
            (false, Some(at)) => {
                self.tail.truncate(at);
                Watched { text: std::mem::take(&mut self.tail), stopped: true }
            }
            (false, None) => {
                let passed = self.tail.drain(..self.tail.len() - held).collect();
                Watched { text: passed, stopped: false }
            }
        }
    }

    /// What was held back when the answer ended for another reason.
    pub(super) fn finish(&mut self) -> String {
        if self.keep { String::new() } else { std::mem::take(&mut self.tail) }
    }
}

/// The length of the longest end of `text` with which a longer one of `strings` begins.
fn longest_beginning(text: &str, strings: &[String]) -> usize {
    let longest = strings.iter().map(String::len).max().unwrap_or(0).saturating_sub(1);
    text.char_indices()
        .map(|(at, _)| text.len() - at)
        .filter(|length| *length <= longest)
        .find(|length| {
            strings.iter().any(|string| string.len() > *length && string.starts_with(&text[text.len() - length..]))
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{StopStrings, Watched};

    fn run(strings: &[&str], keep: bool, pieces: &[&str]) -> (String, bool) {
        let mut watch = StopStrings::new(strings.iter().map(|s| s.to_string()).collect(), keep);
        let mut text = String::new();
        for piece in pieces {
            let Watched { text: passed, stopped } = watch.push(piece);
            text.push_str(&passed);
            if stopped {
                return (text, true);
            }
        }
        text.push_str(&watch.finish());
        (text, false)
    }

    #[test]
    fn a_stop_string_and_its_overhang_stay_where_they_are_kept() {
        assert_eq!(run(&["stop"], true, &["it ", "st", "opera", "more"]), ("it stopera".to_owned(), true));
    }

    #[test]
    fn a_stop_string_is_cut_out_where_it_is_not_kept() {
        assert_eq!(run(&["stop"], false, &["it ", "st", "opera", "more"]), ("it ".to_owned(), true));
    }

    #[test]
    fn text_that_only_looked_like_a_stop_string_is_passed_on() {
        assert_eq!(run(&["stop"], false, &["a st", "ep", " st"]), ("a step st".to_owned(), false));
    }

    #[test]
    fn the_first_of_several_stop_strings_wins() {
        assert_eq!(run(&["b", "a"], false, &["xxabxx"]), ("xx".to_owned(), true));
    }

    #[test]
    fn a_stop_string_of_several_bytes_is_found_across_pieces() {
        assert_eq!(run(&["né"], false, &["dé", "n", "é!"]), ("dé".to_owned(), true));
    }

    proptest! {
        /// However the text is cut into pieces, the same text comes out up to the stop string.
        #[test]
        fn pieces_do_not_matter(text in "[abé]{0,24}", stop in "[abé]{1,3}", cuts in prop::collection::vec(0usize..25, 0..6)) {
            let mut borders: Vec<usize> = cuts.into_iter().filter(|cut| text.is_char_boundary(*cut) && *cut <= text.len()).collect();
            borders.extend([0, text.len()]);
            borders.sort_unstable();
            let pieces: Vec<&str> = borders.windows(2).map(|w| &text[w[0]..w[1]]).collect();
            let expected = match text.find(&stop) {
                Some(at) => (text[..at].to_owned(), true),
                None => (text.clone(), false),
            };
            prop_assert_eq!(run(&[&stop], false, &pieces), expected);
        }
    }
}
