//! How long an answer may be: `max_new_tokens`, `max_length`, `max_time`, `truncate`.

use super::dialect::Dialect;
use super::values::Values;
use crate::chat::GenerationDefaults;
use crate::error::Error;
use crate::generation::{Length, MaxLength};
use crate::http::parameters::max_time;

pub(super) fn resolve(
    values: &mut Values,
    dialect: &Dialect,
    defaults: &GenerationDefaults,
    warnings: &mut Vec<String>,
) -> Result<Length, Error> {
    let new = values.count("max_new_tokens", "above 0", |tokens| tokens > 0)?;
    let total = values.count("max_length", "above 0", |tokens| tokens > 0)?;
    let max = match (new, total) {
        (Some(new), Some(_)) => {
            warnings.push("max_length has no effect beside max_new_tokens".to_owned());
            MaxLength::New(new)
        }
        (Some(new), None) => MaxLength::New(new),
        (None, Some(total)) => MaxLength::Total(total),
        (None, None) => match (defaults.max_new_tokens, defaults.max_length) {
            (Some(new), _) => MaxLength::NewAtMost(new),
            (None, Some(total)) => MaxLength::Total(total),
            (None, None) => MaxLength::NewAtMost(dialect.default_new_tokens),
        },
    };
    let seconds = values.wide_number("max_time", "of seconds above 0", |seconds| seconds > 0.0)?.or(defaults.max_time);
    let max_time = seconds.and_then(max_time);
    let truncate = values.count("truncate", "of tokens above 0", |tokens| tokens > 0)?;
    Ok(Length { max, max_time, truncate })
}
