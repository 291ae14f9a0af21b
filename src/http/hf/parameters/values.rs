//! Takes parameters out of a request one by one, checked; what nobody took is refused in the end.

use serde_json::{Map, Value};

use super::names::{is_neutral, nearest};
use super::{kind, refuse, shown};
use crate::error::Error;

/// Token ids, and what is added to the score of the last of them.
type Bias = (Vec<u32>, f32);

/// Sequences of token ids in one parameter, and ids in one of them: every step looks at them all.
const MAX_SEQUENCES: usize = 10_000;
const MAX_SEQUENCE_LEN: usize = 100;

/// Bytes of a text that may end an answer: every token's text is compared with it.
const MAX_TEXT_LEN: usize = 1000;

/// The parameters that were not taken yet, and the names that were asked for.
pub(super) struct Values {
    given: Map<String, Value>,
    known: Vec<&'static str>,
    vocab_size: usize,
}

impl Values {
    pub(super) fn new(given: Map<String, Value>, vocab_size: usize) -> Values {
        Values { given, known: Vec::new(), vocab_size }
    }

    /// The names that were asked for.
    #[cfg(test)]
    pub(super) fn known(&self) -> &[&'static str] {
        &self.known
    }

    pub(super) fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.given.shift_remove(name)
    }

    fn one_or_many(&mut self, name: &'static str) -> Option<Vec<Value>> {
        Some(match self.take(name)? {
            Value::Array(items) => items,
            one => vec![one],
        })
    }

    pub(super) fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// A number that is `valid`; `range` says in words which those are. Integers are numbers too.
    pub(super) fn number(
        &mut self,
        name: &'static str,
        range: &str,
        valid: fn(f64) -> bool,
    ) -> Result<Option<f32>, Error> {
        let number = self.wide_number(name, range, valid)?;
        match number.map(|number| number as f32) {
            Some(number) if !number.is_finite() => Err(refuse(name, "is too large")),
            number => Ok(number),
        }
    }

    /// As [`Values::number`], in double precision.
    pub(super) fn wide_number(
        &mut self,
        name: &'static str,
        range: &str,
        valid: fn(f64) -> bool,
    ) -> Result<Option<f64>, Error> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_f64().filter(|number| valid(*number)) {
            Some(number) => Ok(Some(number)),
            None => Err(refuse(name, &format!("must be a number {range}, not {}", shown(&value)))),
        }
    }

    /// A whole number that is `valid`; `range` says in words which those are.
    pub(super) fn count(
        &mut self,
        name: &'static str,
        range: &str,
        valid: fn(usize) -> bool,
    ) -> Result<Option<usize>, Error> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_u64().and_then(|count| usize::try_from(count).ok()).filter(|count| valid(*count)) {
            Some(count) => Ok(Some(count)),
            None => Err(refuse(name, &format!("must be a whole number {range}, not {}", shown(&value)))),
        }
    }

    pub(super) fn boolean(&mut self, name: &'static str) -> Result<Option<bool>, Error> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(value) => Err(refuse(name, &format!("must be true or false, not {}", shown(&value)))),
        }
    }

    /// One text or a list of at most `max`, none of them empty.
    pub(super) fn texts(&mut self, name: &'static str, max: usize) -> Result<Option<Vec<String>>, Error> {
        let Some(items) = self.one_or_many(name) else { return Ok(None) };
        if items.len() > max {
            return Err(refuse(name, &format!("has {} texts, more than {max}", items.len())));
        }
        let text = |item| match item {
            Value::String(text) if text.len() > MAX_TEXT_LEN => {
                Err(refuse(name, &format!("has a text of {} bytes, more than {MAX_TEXT_LEN}", text.len())))
            }
            Value::String(text) if !text.is_empty() => Ok(text),
            other => Err(refuse(
                name,
                &format!("must be a text or a list of texts, none of them empty, not {}", shown(&other)),
            )),
        };
        items.into_iter().map(text).collect::<Result<_, _>>().map(Some)
    }

    /// One token id or a list of them.
    pub(super) fn token_ids(&mut self, name: &'static str) -> Result<Option<Vec<u32>>, Error> {
        let Some(items) = self.one_or_many(name) else { return Ok(None) };
        if items.len() > self.vocab_size {
            return Err(refuse(name, &format!("has {} token ids, more than there are", items.len())));
        }
        items.iter().map(|item| self.token_id(name, item)).collect::<Result<_, _>>().map(Some)
    }

    /// A list of lists of token ids, none of them empty.
    pub(super) fn token_sequences(&mut self, name: &'static str) -> Result<Option<Vec<Vec<u32>>>, Error> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let expected = || refuse(name, "must be a list of lists of token ids, none of them empty");
        let sequences = value.as_array().ok_or_else(expected)?;
        check_count(name, sequences)?;
        sequences.iter().map(|sequence| self.token_sequence(name, sequence)).collect::<Result<_, _>>().map(Some)
    }

    /// Pairs of token ids and a number.
    pub(super) fn biases(&mut self, name: &'static str) -> Result<Option<Vec<Bias>>, Error> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let expected = || refuse(name, "must be a list of pairs: a list of token ids, and the number to add");
        let bias = |pair: &Value| {
            let pair = pair.as_array().filter(|pair| pair.len() == 2).ok_or_else(expected)?;
            let bias = pair[1].as_f64().map(|bias| bias as f32).filter(|bias| bias.is_finite()).ok_or_else(expected)?;
            Ok((self.token_sequence(name, &pair[0])?, bias))
        };
        let pairs = value.as_array().ok_or_else(expected)?;
        check_count(name, pairs)?;
        pairs.iter().map(bias).collect::<Result<_, _>>().map(Some)
    }

    fn token_sequence(&self, name: &str, value: &Value) -> Result<Vec<u32>, Error> {
        match value.as_array() {
            Some(ids) if ids.len() > MAX_SEQUENCE_LEN => {
                Err(refuse(name, &format!("has a list of {} token ids, more than {MAX_SEQUENCE_LEN}", ids.len())))
            }
            Some(ids) if !ids.is_empty() => ids.iter().map(|id| self.token_id(name, id)).collect(),
            _ => Err(refuse(name, &format!("must hold lists of token ids, none of them empty, not {}", shown(value)))),
        }
    }

    /// Ids outside the vocabulary would reach the model as indices.
    fn token_id(&self, name: &str, value: &Value) -> Result<u32, Error> {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| (*id as usize) < self.vocab_size);
        id.ok_or_else(|| {
            let message =
                format!("must hold token ids from 0 to {}, not {}", self.vocab_size.saturating_sub(1), shown(value));
            refuse(name, &message)
        })
    }

    pub(super) fn object(&mut self, name: &'static str) -> Result<Option<Map<String, Value>>, Error> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(other) => Err(refuse(name, &format!("must be an object, not {}", kind(&other)))),
        }
    }

    /// A list of objects.
    pub(super) fn objects(&mut self, name: &'static str) -> Result<Option<Vec<Value>>, Error> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(items)) if items.iter().all(Value::is_object) => Ok(Some(items)),
            Some(_) => Err(refuse(name, "must be a list of objects")),
        }
    }

    /// Refuses what nobody took, by name: a parameter is used or refused, never ignored.
    pub(super) fn refuse_rest(self) -> Result<(), Error> {
        let mut unknown = Vec::new();
        for (name, value) in &self.given {
            match is_neutral(name, value) {
                Some(true) => {}
                Some(false) => {
                    return Err(refuse(name, &format!("is not supported by this server (it was {})", shown(value))));
                }
                None => unknown.push(name.as_str()),
            }
        }
        let Some(first) = unknown.first() else { return Ok(()) };
        let listed: Vec<String> = unknown.iter().map(|name| format!("`{name}`")).collect();
        let hint = nearest(first, &self.known).map(|known| format!("; did you mean `{known}`?")).unwrap_or_default();
        let noun = if unknown.len() == 1 { "no parameter" } else { "no parameters" };
        Err(Error::invalid_param(*first, format!("{} of this server: {}{hint}", noun, listed.join(", "))))
    }
}

fn check_count(name: &str, sequences: &[Value]) -> Result<(), Error> {
    if sequences.len() <= MAX_SEQUENCES {
        return Ok(());
    }
    Err(refuse(name, &format!("has {} entries, more than {MAX_SEQUENCES}", sequences.len())))
}
