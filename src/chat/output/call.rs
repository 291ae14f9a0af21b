//! What stands inside a tool call: `<parameter=KEY>` and its value, again and again, until `</function>`.

use std::collections::HashSet;
use std::sync::Arc;

use super::cast;
use super::pieces::Pieces;
use super::schema::Parameters;
use super::tags::{self, Front};
use super::value::Value;

/// The reader of one call, which writes its arguments as JSON.
pub struct Call {
    index: usize,
    parameters: Option<Arc<Parameters>>,
    /// The keys so far. What was passed on cannot be taken back, so of a repeated key the first value counts.
    keys: HashSet<String>,
    place: Place,
}

/// What `read` found.
pub enum Step {
    /// So many bytes were read.
    Read(usize),
    /// The call is over, after so many bytes.
    Closed(usize),
    /// All of the text may be a tag's beginning.
    Unclear,
}

/// Where the reader is.
enum Place {
    BetweenParameters,
    /// Right behind `<parameter=KEY>`, where one newline belongs to the tag. No value: the key is a repeated one.
    BeforeValue(Option<Value>),
    InValue(Option<Value>),
}

enum Tag<'t> {
    Parameter(&'t str),
    EndOfFunction,
    /// A tag that can only stand behind the function: its `</function>` was forgotten.
    Outside,
}

impl Call {
    pub fn begin(index: usize, name: &str, parameters: Option<Arc<Parameters>>, pieces: &mut Pieces) -> Call {
        pieces.call(index, name);
        pieces.arguments(index, "{");
        Call { index, parameters, keys: HashSet::new(), place: Place::BetweenParameters }
    }

    pub fn read(&mut self, text: &str, pieces: &mut Pieces) -> Step {
        match &mut self.place {
            Place::BetweenParameters => self.read_between(text, pieces),
            Place::BeforeValue(value) => {
                self.place = Place::InValue(value.take());
                Step::Read(if text.starts_with('\n') { 1 } else { 0 })
            }
            Place::InValue(_) => self.read_value(text, pieces),
        }
    }

    /// Closes what is open. What waited was the beginning of the closing tag.
    pub fn close(mut self, pieces: &mut Pieces) {
        self.close_value(pieces);
        self.close_object(pieces);
    }

    /// Looks for the next tag. Other text has no place in the arguments and is dropped.
    fn read_between(&mut self, text: &str, pieces: &mut Pieces) -> Step {
        let before_tag = text.find('<').unwrap_or(text.len());
        if before_tag > 0 {
            return Step::Read(before_tag);
        }
        match tag(text) {
            Front::Tag(Tag::Parameter(key), length) => {
                self.begin_value(key);
                Step::Read(length)
            }
            Front::Tag(Tag::EndOfFunction, length) => {
                self.close_object(pieces);
                Step::Closed(length)
            }
            Front::Tag(Tag::Outside, _) => {
                self.close_object(pieces);
                Step::Closed(0)
            }
            Front::Unclear => Step::Unclear,
            Front::Other => Step::Read(1),
        }
    }

    /// Reads a part of a value, or its closing tag, to which a newline before it belongs.
    fn read_value(&mut self, text: &str, pieces: &mut Pieces) -> Step {
        let before_tag = text.find(['\n', '<']).unwrap_or(text.len());
        if before_tag > 0 {
            self.write(&text[..before_tag], pieces);
            return Step::Read(before_tag);
        }
        let tag_at = usize::from(text.starts_with('\n'));
        match tags::fixed(&text[tag_at..], tags::END_OF_PARAMETER) {
            Front::Tag((), length) => {
                self.close_value(pieces);
                Step::Read(tag_at + length)
            }
            Front::Unclear => Step::Unclear,
            Front::Other => {
                self.write(&text[..1], pieces);
                Step::Read(1)
            }
        }
    }

    fn begin_value(&mut self, key: &str) {
        let comma = if self.keys.is_empty() { "" } else { "," };
        let prefix = format!("{comma}{}:", cast::string(key));
        let kinds = self.parameters.as_ref().map(|parameters| parameters.kinds(key)).unwrap_or_default();
        let is_new = self.keys.insert(key.to_owned());
        self.place = Place::BeforeValue(is_new.then(|| Value::new(prefix, kinds)));
    }

    fn write(&mut self, text: &str, pieces: &mut Pieces) {
        if let Place::InValue(Some(value)) = &mut self.place {
            pieces.arguments(self.index, &value.write(text));
        }
    }

    fn close_value(&mut self, pieces: &mut Pieces) {
        let place = std::mem::replace(&mut self.place, Place::BetweenParameters);
        if let Place::BeforeValue(Some(value)) | Place::InValue(Some(value)) = place {
            pieces.arguments(self.index, &value.close());
        }
    }

    fn close_object(&mut self, pieces: &mut Pieces) {
        pieces.arguments(self.index, "}");
    }
}

fn tag(text: &str) -> Front<Tag<'_>> {
    let outside = tags::call(text)
        .or(tags::function(text))
        .map(|_| Tag::Outside)
        .or(tags::fixed(text, tags::END_OF_TOOL_CALL).map(|()| Tag::Outside))
        .or(tags::fixed(text, tags::END_OF_THINK).map(|()| Tag::Outside));
    let function = tags::fixed(text, tags::END_OF_FUNCTION).map(|()| Tag::EndOfFunction);
    tags::parameter(text).map(Tag::Parameter).or(function).or(outside)
}
