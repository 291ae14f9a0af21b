//! A value that nobody shall read in a log.

use std::fmt;
use std::str::FromStr;

/// A key, a token, or an address that may hold a password: `Debug` tells only that there is one.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T = String>(T);

impl<T> Secret<T> {
    /// For the one place that needs it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(set)")
    }
}

impl<T: FromStr> FromStr for Secret<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Secret<T>, T::Err> {
        text.parse().map(Secret)
    }
}
