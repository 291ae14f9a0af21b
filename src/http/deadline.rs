//! The moment at which a client stops waiting, from a header of its request.

use std::time::{Duration, Instant};

use actix_web::http::header::HeaderMap;

use crate::error::Error;

/// Seconds that the client waits, from the arrival of the request; fractions are allowed.
const HEADER: &str = "x-request-timeout";

/// A day: no limit. Adding centuries to the present moment would overflow the clock.
const MAX_S: f64 = 24.0 * 3600.0;

/// The deadline of a request that arrives now, where it has one.
pub(super) fn read(headers: &HeaderMap) -> Result<Option<Instant>, Error> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    let seconds = value.to_str().ok().and_then(|text| text.trim().parse::<f64>().ok());
    match seconds.filter(|seconds| *seconds > 0.0 && seconds.is_finite()) {
        Some(seconds) if seconds > MAX_S => Ok(None),
        Some(seconds) => Ok(Some(Instant::now() + Duration::from_secs_f64(seconds))),
        None => Err(Error::invalid_param(HEADER, format!("the header {HEADER} must be a number of seconds above 0"))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

    use super::read;

    fn headers(value: &'static str) -> HeaderMap {
        let pair = (HeaderName::from_static("x-request-timeout"), HeaderValue::from_static(value));
        [pair].into_iter().collect()
    }

    #[test]
    fn seconds_become_a_moment() {
        let deadline = read(&headers("2.5")).unwrap().unwrap();
        let left = deadline - Instant::now();
        assert!(left > Duration::from_secs(2) && left <= Duration::from_millis(2500), "{left:?}");
        assert_eq!(read(&HeaderMap::new()), Ok(None));
        assert_eq!(read(&headers("1e300")), Ok(None));
        for wrong in ["0", "-1", "soon", "NaN", "inf"] {
            assert!(read(&headers(wrong)).is_err(), "{wrong}");
        }
    }
}
