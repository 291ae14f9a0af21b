//! API keys: who may ask, and how much at once.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::AUTHORIZATION;
use actix_web::http::{Method, header::HeaderMap};
use actix_web::middleware::Next;
use actix_web::{HttpMessage, web};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::routes::{self, Purpose, Routes};
use super::{HttpSettings, error, openai};
use crate::error::{Error, Overload};
use crate::generation::Service;

/// The keys that the server takes. Only their hashes are held, so nothing can print them; without any, everybody may ask.
#[derive(Clone, Default)]
pub struct ApiKeys {
    keys: Arc<[Key]>,
    /// Requests that one key may have at once; `None`: as many as there are.
    max_concurrent: Option<usize>,
}

struct Key {
    sha256: [u8; 32],
    /// Requests that are being answered.
    num_running: Arc<AtomicUsize>,
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ApiKeys({} set)", self.keys.len())
    }
}

/// One of the places of a key, free again when it is dropped.
pub(super) struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl ApiKeys {
    /// The server takes these `keys`, and answers at most `max_concurrent` requests of each at once.
    pub fn new(keys: &[String], max_concurrent: Option<usize>) -> ApiKeys {
        let key = |key: &String| Key { sha256: Sha256::digest(key).into(), num_running: Arc::default() };
        ApiKeys { keys: keys.iter().map(key).collect(), max_concurrent }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key that the headers carry. `None` where the server has no keys: then any token passes, as a platform's proxy has
    /// checked its own and may forward it.
    fn of(&self, headers: &HeaderMap) -> Result<Option<&Key>, Error> {
        if self.keys.is_empty() {
            return Ok(None);
        }
        let Some(token) = bearer_token(headers) else {
            let message = "this server wants its API key in the header `Authorization: Bearer <key>`";
            return Err(Error::Unauthorized(message.to_owned()));
        };
        let found = self.keys.get(self.index_of(token));
        found.map(Some).ok_or_else(|| Error::Unauthorized("the API key is not one of this server's".to_owned()))
    }

    /// Where `token` stands among the keys; their number where it does not. Compares in a time that depends on neither: hashes
    /// are compared, each to its end, and all of them.
    fn index_of(&self, token: &str) -> usize {
        let sha256: [u8; 32] = Sha256::digest(token).into();
        let mut found = self.keys.len() as u64;
        for (index, key) in self.keys.iter().enumerate() {
            found.conditional_assign(&(index as u64), key.sha256[..].ct_eq(&sha256[..]));
        }
        found as usize
    }

    fn take_place(&self, key: &Key) -> Result<Permit, Overload> {
        let limit = self.max_concurrent.unwrap_or(usize::MAX);
        let permit = Permit(key.num_running.clone());
        if key.num_running.fetch_add(1, Ordering::AcqRel) < limit {
            Ok(permit)
        } else {
            Err(Overload::KeyFull { limit })
        }
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Middleware that refuses whoever may not ask. Probes, metrics and the documentation need no key, and neither does the answer
/// that there is no such path: none of them tells what is asked or answered.
pub(super) async fn guard(
    settings: web::Data<HttpSettings>,
    routes: web::Data<Routes>,
    service: web::Data<Service>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let purpose = routes.route_of(request.request()).map(|route| route.purpose(request.method()));
    if let Some(Purpose::Generation | Purpose::Other) = purpose {
        match admit(&settings.api_keys, &request, &service) {
            Ok(Some(permit)) => drop(request.extensions_mut().insert(permit)),
            Ok(None) => {}
            Err(refused) => {
                let respond = if routes::is_openais(request.path()) { openai::respond_error } else { error::respond };
                return Ok(request.into_response(respond(&refused)));
            }
        }
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

/// Checks the key, and takes one of its places for what costs time.
fn admit(keys: &ApiKeys, request: &ServiceRequest, service: &Service) -> Result<Option<Permit>, Error> {
    let Some(key) = keys.of(request.headers())? else { return Ok(None) };
    if request.method() != Method::POST {
        return Ok(None);
    }
    keys.take_place(key).map(Some).map_err(|why| service.engine().overloaded(why))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderValue};

    use super::ApiKeys;
    use crate::error::Overload;

    fn keys(keys: &[&str]) -> ApiKeys {
        ApiKeys::new(&keys.iter().map(|key| key.to_string()).collect::<Vec<_>>(), Some(2))
    }

    fn headers(authorization: &'static str) -> HeaderMap {
        [(AUTHORIZATION, HeaderValue::from_static(authorization))].into_iter().collect()
    }

    #[test]
    fn without_a_key_any_token_passes() {
        assert!(keys(&[]).of(&headers("Bearer hf_whatever")).is_ok_and(|key| key.is_none()));
        assert!(keys(&[]).of(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn with_keys_only_those_tokens_pass() {
        let keys = keys(&["secret", "other"]);
        for (header, passes) in [
            ("Bearer secret", true),
            ("bearer secret", true),
            ("Bearer other", true),
            ("Bearer secret2", false),
            ("Bearer secre", false),
            ("Bearer secret,other", false),
            ("Bearer ", false),
            ("Basic secret", false),
            ("secret", false),
        ] {
            assert_eq!(keys.of(&headers(header)).is_ok(), passes, "{header}");
        }
        assert!(keys.of(&HeaderMap::new()).is_err());
        assert_eq!(["secret", "other", "third"].map(|token| keys.index_of(token)), [0, 1, 2]);
        assert_eq!(format!("{keys:?}"), "ApiKeys(2 set)");
    }

    #[test]
    fn a_key_has_so_many_places_and_gets_them_back() {
        let keys = keys(&["secret", "other"]);
        let (secret, other) = (&keys.keys[0], &keys.keys[1]);
        let first = keys.take_place(secret).unwrap();
        let _second = keys.take_place(secret).unwrap();
        assert_eq!(keys.take_place(secret).err(), Some(Overload::KeyFull { limit: 2 }));
        assert!(keys.take_place(other).is_ok(), "another's places are its own");
        drop(first);
        assert!(keys.take_place(secret).is_ok());
    }
}
