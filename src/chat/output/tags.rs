//! The tags of an answer, looked for at the front of a text that may still grow.

pub const THINK: &str = "<think>";
pub const END_OF_THINK: &str = "</think>";
pub const TOOL_CALL: &str = "<tool_call>";
pub const END_OF_TOOL_CALL: &str = "</tool_call>";
pub const END_OF_FUNCTION: &str = "</function>";
pub const END_OF_PARAMETER: &str = "</parameter>";

const FUNCTION: &str = "<function=";
const PARAMETER: &str = "<parameter=";

/// A longer name is none. It bounds what waits for its tag's end; OpenAI allows 64 characters.
const MAX_NAME_BYTES: usize = 256;
/// More whitespace between `<tool_call>` and `<function=` makes it no call. It bounds what waits; the template writes 1.
const MAX_SPACE_BYTES: usize = 64;

/// What the front of a text is, compared with a tag.
#[derive(Debug, PartialEq, Eq)]
pub enum Front<T> {
    /// The tag, and the bytes that it takes.
    Tag(T, usize),
    /// The whole text may be the tag's beginning.
    Unclear,
    Other,
}

impl<T> Front<T> {
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Front<U> {
        match self {
            Front::Tag(tag, length) => Front::Tag(make(tag), length),
            Front::Unclear => Front::Unclear,
            Front::Other => Front::Other,
        }
    }

    /// This tag or that one. At most one of two different tags is there, and while one may be, more text has to tell.
    pub fn or(self, that: Front<T>) -> Front<T> {
        match (self, that) {
            (Front::Tag(tag, length), _) | (_, Front::Tag(tag, length)) => Front::Tag(tag, length),
            (Front::Unclear, _) | (_, Front::Unclear) => Front::Unclear,
            (Front::Other, Front::Other) => Front::Other,
        }
    }

    /// What `rest` makes of the text behind this tag, which begins after so many bytes. Both together are one tag.
    fn then<U>(self, rest: impl FnOnce(usize) -> Front<U>) -> Front<U> {
        match self {
            Front::Tag(_, length) => rest(length),
            Front::Unclear => Front::Unclear,
            Front::Other => Front::Other,
        }
    }
}

/// A tag that is always the same.
pub fn fixed(text: &str, tag: &str) -> Front<()> {
    if text.starts_with(tag) {
        Front::Tag((), tag.len())
    } else if tag.starts_with(text) {
        Front::Unclear
    } else {
        Front::Other
    }
}

/// `<function=NAME>`, with its name.
pub fn function(text: &str) -> Front<&str> {
    named(text, FUNCTION, |c| !c.is_whitespace())
}

/// `<parameter=KEY>`, with its key, which may contain spaces: any string can be a key of JSON.
pub fn parameter(text: &str) -> Front<&str> {
    named(text, PARAMETER, |c| c != '\n')
}

/// `<tool_call>` and `<function=NAME>`, with the function's name.
pub fn call(text: &str) -> Front<&str> {
    fixed(text, TOOL_CALL).then(|opened| {
        let inside = text[opened..].trim_ascii_start();
        let before = text.len() - inside.len();
        match function(inside) {
            _ if before - opened > MAX_SPACE_BYTES => Front::Other,
            Front::Tag(name, length) => Front::Tag(name, before + length),
            unclear_or_other => unclear_or_other,
        }
    })
}

/// `OPEN` NAME `>`, where `is_allowed` says which characters a name has, and `<` and `>` are never among them.
fn named<'t>(text: &'t str, open: &str, is_allowed: fn(char) -> bool) -> Front<&'t str> {
    fixed(text, open).then(|opened| {
        let rest = &text[opened..];
        let end = rest.find(|c| matches!(c, '<' | '>') || !is_allowed(c));
        match end {
            _ if end.unwrap_or(rest.len()) > MAX_NAME_BYTES => Front::Other,
            None => Front::Unclear,
            Some(end) if end > 0 && rest[end..].starts_with('>') => Front::Tag(&rest[..end], opened + end + 1),
            Some(_) => Front::Other,
        }
    })
}
