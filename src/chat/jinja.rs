//! The template engine set up as Transformers sets up Jinja for chat templates.

use std::fmt::Write as _;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State};
use minijinja_contrib::pycompat;

use super::python::{self, Dumps};

/// Instructions that one rendering may take: a conversation of a thousand messages needs well under a million.
const FUEL: u64 = 50_000_000;

/// A text that a template gave to `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub String);

/// The environment of Transformers' `_compile_jinja_template`: blocks trimmed, no escaping, and filters, printing and
/// functions as Python has them.
pub(super) fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(pycompat::unknown_method_callback);
    environment.set_formatter(print);
    environment.add_filter("tojson", to_json);
    environment.add_filter("string", |value: Value| python::str(&value));
    environment.add_filter("trim", trim);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    Ok(environment)
}

fn print(out: &mut Output, _: &mut State, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => out.write_str(text).map_err(Error::from),
        None => out.write_str(&python::str(value)).map_err(Error::from),
    }
}

/// `tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
fn to_json(value: Value, arguments: Kwargs) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(Error::new(ErrorKind::UndefinedError, "Object of type Undefined is not JSON serializable"));
    }
    let indent = match arguments.get::<Option<Value>>("indent")?.filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) => Some(match indent.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(usize::try_from(indent)?),
        }),
    };
    let default_item = if indent.is_some() { "," } else { ", " };
    let (item_separator, key_separator) = match arguments.get::<Option<Vec<String>>>("separators")?.as_deref() {
        None => (default_item.to_owned(), ": ".to_owned()),
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "tojson: separators must be a pair")),
    };
    let dumps = Dumps {
        ensure_ascii: arguments.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        indent,
        item_separator,
        key_separator,
        sort_keys: arguments.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    arguments.assert_all_used()?;
    let text = dumps.dump(&value).map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))?;
    Ok(Value::from_safe_string(text))
}

fn trim(value: Value, characters: Option<String>) -> String {
    let text = python::str(&value);
    match characters {
        None => text.trim_matches(python::is_space).to_owned(),
        Some(characters) => text.trim_matches(|c| characters.contains(c)).to_owned(),
    }
}

fn raise_exception(message: Value) -> Result<Value, Error> {
    let message = python::str(&message);
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

fn strftime_now(format: &str) -> Result<String, Error> {
    let mut text = String::new();
    match write!(text, "{}", chrono::Local::now().format(format)) {
        Ok(()) => Ok(text),
        Err(_) => Err(Error::new(ErrorKind::InvalidOperation, format!("strftime_now: bad format {format:?}"))),
    }
}

/// Turns `{% generation %}` blocks, which mark spans for training only, into blocks that the engine knows; marks of
/// white space control are kept.
pub(super) fn without_generation_blocks(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let tag = &rest[start + 2..start + length];
        out.push_str(&rest[..start + 2]);
        match tag.trim_matches(|c: char| matches!(c, '-' | '+') || c.is_whitespace()) {
            "generation" => out.push_str(&tag.replace("generation", " if true ")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", " endif ")),
            _ => out.push_str(tag),
        }
        out.push_str("%}");
        rest = &rest[start + length + 2..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use minijinja::context;

    use super::{environment, without_generation_blocks};

    fn render(template: &str) -> Result<String, minijinja::Error> {
        environment().unwrap().render_str(&without_generation_blocks(template), context! { none => (), list => [1, 2] })
    }

    #[test]
    fn values_print_as_python_prints_them() {
        assert_eq!(
            render("{{ true }} {{ none }} {{ 1.0 }} {{ list }} {{ missing }}|").unwrap(),
            "True None 1.0 [1, 2] |"
        );
        assert_eq!(render("{{ true|string ~ '' }}{{ '\u{1c} x '|trim }}{{ 'xay'|trim('xy') }}").unwrap(), "Truexa");
    }

    #[test]
    fn tojson_takes_pythons_arguments() {
        let template = "{{ {'b': [1], 'a': '<'}|tojson(indent=1, sort_keys=true, separators=[',', ':']) }}";
        assert_eq!(render(template).unwrap(), "{\n \"a\":\"<\",\n \"b\":[\n  1\n ]\n}");
        assert!(render("{{ missing|tojson }}").is_err());
        assert!(render("{{ 1|tojson(colour='red') }}").is_err());
    }

    #[test]
    fn generation_blocks_keep_their_body_and_their_white_space_control() {
        assert_eq!(render("a {%- generation -%} b {% endgeneration %} c").unwrap(), "ab  c");
    }

    #[test]
    fn a_loop_without_end_runs_out_of_fuel() {
        let template = "{% for a in range(10000) %}{% for b in range(10000) %}{{ b }}{% endfor %}{% endfor %}";
        assert_eq!(render(template).unwrap_err().kind(), minijinja::ErrorKind::OutOfFuel);
    }

    #[test]
    fn a_bad_time_format_is_an_error_and_not_a_panic() {
        assert!(render("{{ strftime_now('%Y') }}").unwrap().starts_with("20"));
        assert!(render("{{ strftime_now('%') }}").is_err());
    }
}
