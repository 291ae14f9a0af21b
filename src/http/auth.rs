//! The optional API key.

use actix_web::HttpRequest;
use actix_web::http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};

use crate::error::Error;

/// Refuses `request` where a key is set and its bearer token is another. Without a key any token passes: a platform's
/// proxy has checked its own and may forward it.
pub(super) fn check(request: &HttpRequest, api_key: Option<&str>) -> Result<(), Error> {
    let Some(key) = api_key else { return Ok(()) };
    match bearer_token(request) {
        Some(token) if is_same(token, key) => Ok(()),
        Some(_) => Err(Error::Unauthorized("the API key is not the one of this server".to_owned())),
        None => {
            let message = "this server wants its API key in the header `Authorization: Bearer <key>`";
            Err(Error::Unauthorized(message.to_owned()))
        }
    }
}

fn bearer_token(request: &HttpRequest) -> Option<&str> {
    let (scheme, token) = request.headers().get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Compares in a time that depends on neither text: both are hashed, and all bytes of the hashes are looked at.
fn is_same(token: &str, key: &str) -> bool {
    let (token, key) = (Sha256::digest(token), Sha256::digest(key));
    let difference = token.iter().zip(key.iter()).fold(0, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::check;

    #[test]
    fn without_a_key_any_token_passes() {
        let request = TestRequest::default().insert_header(("authorization", "Bearer hf_whatever")).to_http_request();
        assert!(check(&request, None).is_ok());
    }

    #[test]
    fn with_a_key_only_that_token_passes() {
        for (header, passes) in [
            ("Bearer secret", true),
            ("bearer secret", true),
            ("Bearer secret2", false),
            ("Bearer ", false),
            ("Basic secret", false),
            ("secret", false),
        ] {
            let request = TestRequest::default().insert_header(("authorization", header)).to_http_request();
            assert_eq!(check(&request, Some("secret")).is_ok(), passes, "{header}");
        }
        assert!(check(&TestRequest::default().to_http_request(), Some("secret")).is_err());
    }
}
