//! Keeping a client's text text: `<|im_end|>` in a message must not end the turn.
//!
//! Before the template runs, a marker is put inside every special token's text in the client's strings; the
//! template's own special tokens stay whole. After the prompt is cut at its special tokens, the markers are taken out
//! again.

use serde_json::{Map, Value};

use super::template::Variables;
use super::tokenizer::SpecialTokens;
use crate::error::Error;

/// What a special token's text means where the client's strings hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpecialText {
    /// Text. Nothing that a client sends can end a turn or claim a picture.
    #[default]
    StaysText,
    /// The token, as in Transformers unless `sanitize_control_tokens` is set.
    BecomesToken,
}

/// A Unicode noncharacter that occurs nowhere in the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marker(char);

impl Marker {
    /// Errors where a client uses all 32 noncharacters of U+FDD0 to U+FDEF.
    pub(super) fn for_request(variables: &Variables) -> Result<Marker, Error> {
        let mut is_used = [false; 32];
        let mut note = |text: &str| {
            for c in text.chars().filter(|c| ('\u{fdd0}'..='\u{fdef}').contains(c)) {
                is_used[c as usize - 0xfdd0] = true;
            }
        };
        variables
            .messages
            .iter()
            .chain(&variables.tools)
            .chain(variables.others.values())
            .for_each(|value| visit(value, &mut note));
        let free = ('\u{fdd0}'..='\u{fdef}').zip(is_used).find(|(_, is_used)| !is_used);
        let (marker, _) =
            free.ok_or_else(|| Error::invalid("the request uses every noncharacter of U+FDD0 to U+FDEF"))?;
        Ok(Marker(marker))
    }

    /// Marks the special tokens in the client's strings.
    pub(super) fn mark(self, variables: &mut Variables, special: &SpecialTokens) {
        let values = variables.messages.iter_mut().chain(&mut variables.tools);
        values.for_each(|value| self.mark_value(value, special));
        self.mark_object(&mut variables.others, special);
    }

    /// `text` without the marks.
    pub(super) fn unmark(self, text: &str) -> String {
        text.replace(self.0, "")
    }

    fn mark_value(self, value: &mut Value, special: &SpecialTokens) {
        match value {
            Value::String(text) => {
                if let Some(marked) = self.mark_text(text, special) {
                    *text = marked;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.mark_value(item, special)),
            Value::Object(object) => self.mark_object(object, special),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Keys are text too: the names of a tool call's arguments are written into the prompt.
    fn mark_object(self, object: &mut Map<String, Value>, special: &SpecialTokens) {
        object.values_mut().for_each(|value| self.mark_value(value, special));
        if object.keys().any(|key| self.mark_text(key, special).is_some()) {
            let marked = std::mem::take(object).into_iter();
            *object = marked.map(|(key, value)| (self.mark_text(&key, special).unwrap_or(key), value)).collect();
        }
    }

    /// A mark after the first character of every special token, and of a special token's beginning at the end of the
    /// text, which the text after it could complete. `None` where there is nothing to mark.
    fn mark_text(self, text: &str, special: &SpecialTokens) -> Option<String> {
        // Templates trim: white space at the end does not keep a beginning from being completed.
        let trimmed = text.trim_end();
        let mut marked = String::new();
        let mut copied = 0;
        for (at, first) in trimmed.char_indices() {
            let rest = &trimmed[at..];
            if special.at_start_of(rest).is_some() || special.any_begins_with(rest) {
                let after = at + first.len_utf8();
                marked.push_str(&text[copied..after]);
                marked.push(self.0);
                copied = after;
            }
        }
        if copied == 0 {
            return None;
        }
        marked.push_str(&text[copied..]);
        Some(marked)
    }
}

/// Calls `note` with every string in `value`, keys included.
fn visit(value: &Value, note: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => note(text),
        Value::Array(items) => items.iter().for_each(|item| visit(item, note)),
        Value::Object(object) => object.iter().for_each(|(key, value)| {
            note(key);
            visit(value, note);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
