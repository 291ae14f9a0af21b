//! Typed access to one object of config.json, with errors that name the key's path.

use serde_json::{Map, Value};

/// One object of config.json and where it lies. A key that is null counts as absent.
pub(super) struct Keys<'a> {
    object: &'a Map<String, Value>,
    /// What to write before a key: "", or "text_config.".
    path: String,
}

impl<'a> Keys<'a> {
    pub fn of(json: &'a Value, path: &str) -> Result<Keys<'a>, String> {
        let object = json.as_object().ok_or_else(|| format!("`{path}`: expected an object"))?;
        let path = if path.is_empty() { String::new() } else { format!("{path}.") };
        Ok(Keys { object, path })
    }

    pub fn value(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// An error about `key`.
    pub fn refusal(&self, key: &str, why: &str) -> String {
        format!("`{}{key}`: {why}", self.path)
    }

    pub fn section(&self, key: &str) -> Result<Option<Keys<'a>>, String> {
        self.value(key).map(|value| Keys::of(value, &format!("{}{key}", self.path))).transpose()
    }

    pub fn text(&self, key: &str) -> Option<&'a str> {
        self.value(key)?.as_str()
    }

    pub fn number(&self, key: &str) -> Result<Option<f64>, String> {
        let read = |value: &Value| value.as_f64().ok_or_else(|| self.refusal(key, "expected a number"));
        self.value(key).map(read).transpose()
    }

    pub fn number_or(&self, key: &str, default: f64) -> Result<f64, String> {
        Ok(self.number(key)?.unwrap_or(default))
    }

    /// A count of something that there must be: at least 1, and small enough that sizes cannot overflow.
    pub fn count(&self, key: &str) -> Result<usize, String> {
        let value = self.value(key).ok_or_else(|| self.refusal(key, "it is missing"))?;
        match value.as_u64() {
            Some(count @ 1..=0x7fff_ffff) => Ok(count as usize),
            _ => Err(self.refusal(key, &format!("expected a positive integer, found {value}"))),
        }
    }

    /// A count that may be absent, or 0.
    pub fn count_or(&self, key: &str, default: usize) -> Result<usize, String> {
        match self.value(key) {
            None => Ok(default),
            Some(value) if value.as_u64() == Some(0) => Ok(0),
            Some(_) => self.count(key),
        }
    }

    pub fn flag(&self, key: &str, default: bool) -> Result<bool, String> {
        let read = |value: &Value| value.as_bool().ok_or_else(|| self.refusal(key, "expected true or false"));
        self.value(key).map_or(Ok(default), read)
    }

    /// A list, empty where the key is absent.
    pub fn list(&self, key: &str) -> Result<&'a [Value], String> {
        let read = |value: &'a Value| value.as_array().ok_or_else(|| self.refusal(key, "expected a list"));
        Ok(self.value(key).map(read).transpose()?.map_or(&[], Vec::as_slice))
    }

    pub fn must_be_text(&self, key: &str, expected: &str) -> Result<(), String> {
        match self.text(key) {
            Some(found) if found != expected => {
                Err(self.refusal(key, &format!("\"{found}\" is not implemented, only \"{expected}\"")))
            }
            _ => Ok(()),
        }
    }

    pub fn must_be_flag(&self, key: &str, expected: bool) -> Result<(), String> {
        match self.flag(key, expected)? {
            found if found != expected => {
                Err(self.refusal(key, &format!("{found} is not implemented, only {expected}")))
            }
            _ => Ok(()),
        }
    }

    pub fn must_divide(&self, divisor: &str, multiple: &str) -> Result<(), String> {
        match (self.count(divisor)?, self.count(multiple)?) {
            (a, b) if !b.is_multiple_of(a) => {
                Err(self.refusal(multiple, &format!("{b} is no multiple of `{divisor}`, {a}")))
            }
            _ => Ok(()),
        }
    }
}
