//! A parameter's value on its way from text to JSON.

use super::cast;
use super::schema::Kinds;

/// A member of the arguments' object. Strings are passed on as they come; of another type only the whole value can be
/// told.
pub struct Value {
    /// The member up to its value: `,"key":`.
    prefix: String,
    kinds: Kinds,
    /// What was read and not passed on.
    text: String,
    in_string: bool,
}

impl Value {
    pub fn new(prefix: String, kinds: Kinds) -> Value {
        Value { prefix, kinds, text: String::new(), in_string: false }
    }

    /// Adds to the value, and returns what that adds to the JSON.
    pub fn write(&mut self, text: &str) -> String {
        if self.in_string {
            return cast::inside_string(text);
        }
        self.text.push_str(text);
        if !self.kinds.leave_only_a_string(&self.text) {
            return String::new();
        }
        self.in_string = true;
        format!("{}\"{}", self.prefix, cast::inside_string(&self.text))
    }

    /// The rest of the JSON.
    pub fn close(self) -> String {
        if self.in_string { "\"".to_owned() } else { self.prefix + &self.kinds.cast(&self.text) }
    }
}
