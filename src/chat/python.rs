//! Values as Python prints them: `str()`, `repr()` and `json.dumps()`, which chat templates are written for.

use std::fmt::Write as _;
use std::io;

use minijinja::value::{Value, ValueKind};
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// Whether `str.strip()` removes it: Unicode's white space and the four separators U+001C to U+001F.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `str(value)`; an undefined value is the empty string, as Jinja prints it.
pub(super) fn str(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => {
            let mut out = String::new();
            write_repr(value, &mut out);
            out
        }
    }
}

/// `repr(value)`, which is `str(value)` for all but strings.
fn write_repr(value: &Value, out: &mut String) {
    match value.kind() {
        ValueKind::Undefined => {}
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(number) => out.push_str(&float(number)),
            Err(_) => push_display(value, out),
        },
        ValueKind::String => write_quoted(value.as_str().unwrap_or_default(), out),
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (index, item) in value.try_iter().into_iter().flatten().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write_repr(&item, out);
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter().into_iter().flatten().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write_repr(&key, out);
                out.push_str(": ");
                write_repr(&value.get_item(&key).unwrap_or_default(), out);
            }
            out.push('}');
        }
        _ => push_display(value, out),
    }
}

fn push_display(value: &Value, out: &mut String) {
    // Writing to a string cannot fail.
    let _ = write!(out, "{value}");
}

/// `repr(text)`: single quotes unless only they occur inside.
fn write_quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\u{1f}' | '\u{7f}'..='\u{a0}' | '\u{ad}' => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            _ if c == quote => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out.push(quote);
}

/// `repr(number)`: the shortest digits that read back, with an exponent below 1e-4 and from 1e16 on.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        return format!("{number:?}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// The arguments of `json.dumps()` that templates use.
pub(super) struct Dumps {
    pub ensure_ascii: bool,
    /// What one level is indented with; `None`: everything on one line.
    pub indent: Option<String>,
    pub item_separator: String,
    pub key_separator: String,
    pub sort_keys: bool,
}

impl Dumps {
    /// `json.dumps(value)`. Errors where `value` is not JSON.
    pub(super) fn dump(self, value: &Value) -> Result<String, serde_json::Error> {
        let mut json = serde_json::to_value(value)?;
        if self.sort_keys {
            json.sort_all_objects();
        }
        let mut bytes = Vec::new();
        json.serialize(&mut Serializer::with_formatter(&mut bytes, Layout { dumps: self, depth: 0, is_empty: true }))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Python's layout for serde_json.
struct Layout {
    dumps: Dumps,
    depth: usize,
    /// Whether the innermost container has no item yet: an empty one is `[]` or `{}` on one line.
    is_empty: bool,
}

impl Layout {
    fn open(&mut self) {
        self.depth += 1;
        self.is_empty = true;
    }

    fn close<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        let was_empty = std::mem::replace(&mut self.is_empty, false);
        if was_empty { Ok(()) } else { self.new_line(writer) }
    }

    fn begin_item<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.is_empty = false;
        if !first {
            writer.write_all(self.dumps.item_separator.as_bytes())?;
        }
        self.new_line(writer)
    }

    fn new_line<W: ?Sized + io::Write>(&self, writer: &mut W) -> io::Result<()> {
        match &self.dumps.indent {
            None => Ok(()),
            Some(indent) => write!(writer, "\n{}", indent.repeat(self.depth)),
        }
    }
}

impl Formatter for Layout {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(float(value).as_bytes())
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if !self.dumps.ensure_ascii {
            return writer.write_all(fragment.as_bytes());
        }
        for c in fragment.chars() {
            match c {
                ' '..='~' => writer.write_all(&[c as u8])?,
                _ => c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(writer, "\\u{unit:04x}"))?,
            }
        }
        Ok(())
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open();
        writer.write_all(b"[")
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.begin_item(writer, first)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer)?;
        writer.write_all(b"]")
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open();
        writer.write_all(b"{")
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.begin_item(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.dumps.key_separator.as_bytes())
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer)?;
        writer.write_all(b"}")
    }
}

#[cfg(test)]
mod tests {
    use minijinja::value::{Serde, Value};
    use serde_json::json;

    use super::{Dumps, float, str};

    fn dumps(indent: Option<&str>, ensure_ascii: bool) -> Dumps {
        let item_separator = if indent.is_some() { "," } else { ", " }.to_owned();
        let indent = indent.map(str::to_owned);
        Dumps { ensure_ascii, indent, item_separator, key_separator: ": ".to_owned(), sort_keys: false }
    }

    #[test]
    fn floats_print_as_python_prints_them() {
        let cases = [(1.0, "1.0"), (-0.0, "-0.0"), (0.0001, "0.0001"), (1e-5, "1e-05"), (1.5e-7, "1.5e-07")];
        let large =
            [(123456789.25, "123456789.25"), (9e15, "9000000000000000.0"), (1e16, "1e+16"), (2.5e300, "2.5e+300")];
        for (number, expected) in cases.into_iter().chain(large) {
            assert_eq!(float(number), expected);
        }
    }

    #[test]
    fn str_of_containers_quotes_their_strings() {
        let value = json!({"a": [true, null, 1.0, "it's"], "b": {}, "c": "x\n\u{7f}\"'"});
        let expected = r#"{'a': [True, None, 1.0, "it's"], 'b': {}, 'c': 'x\n\x7f"\''}"#;
        assert_eq!(str(&Value::from(Serde(&value))), expected);
        assert_eq!(str(&Value::from("it's")), "it's");
    }

    #[test]
    fn json_has_pythons_separators_and_no_html_escapes() {
        let value = Value::from(Serde(json!({"b": "<é> & '\u{1f}\u{7f}", "a": [1, 2.0, 1e-7], "c": [], "d": {}})));
        let one_line = "{\"b\": \"<é> & '\\u001f\u{7f}\", \"a\": [1, 2.0, 1e-07], \"c\": [], \"d\": {}}";
        assert_eq!(dumps(None, false).dump(&value).unwrap(), one_line);
        let ascii = r#"{"b": "<\u00e9> & '\u001f\u007f", "a": [1, 2.0, 1e-07], "c": [], "d": {}}"#;
        assert_eq!(dumps(None, true).dump(&value).unwrap(), ascii);
    }

    #[test]
    fn json_is_indented_as_python_indents_it() {
        let value = Value::from(Serde(json!({"a": [1, {"b": []}], "c": {}})));
        let expected = "{\n  \"a\": [\n    1,\n    {\n      \"b\": []\n    }\n  ],\n  \"c\": {}\n}";
        assert_eq!(dumps(Some("  "), false).dump(&value).unwrap(), expected);
    }
}
