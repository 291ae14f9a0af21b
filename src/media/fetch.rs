//! Fetches a remote picture or video, and nothing that the network's guard does not permit.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Client, Response, redirect};
use url::Url;

use super::MediaLimits;
use super::address::{AddressGuard, Refused};
use super::kind::Kind;
use crate::error::Error;

/// An http client for pictures and videos from anywhere.
pub(super) struct Fetcher {
    client: Client,
    guard: AddressGuard,
    limits: MediaLimits,
}

impl Fetcher {
    pub(super) fn new(limits: &MediaLimits) -> Result<Fetcher, String> {
        const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
        let guard = AddressGuard::new(limits);
        let mut builder = Client::builder();
        if let Some(proxy) = &limits.proxy {
            let problem = |error: reqwest::Error| format!("--image-proxy cannot be used: {}", chain(&error));
            builder = builder.proxy(reqwest::Proxy::all(proxy.clone()).map_err(problem)?);
        } else {
            // One from the environment would resolve the names itself, unasked.
            builder = builder.no_proxy();
        }
        let client = builder
            .user_agent(concat!("sardine/", env!("CARGO_PKG_VERSION")))
            .no_gzip() // so that a body's length is the picture's
            .referer(false)
            .dns_resolver(Arc::new(guard.clone()))
            .redirect(redirect_policy(guard.clone(), limits.max_redirects))
            .connect_timeout(CONNECT_TIMEOUT.min(limits.fetch_timeout))
            .build()
            .map_err(|error| {
                format!(
                    "the client that fetches pictures could not be set up (are CA certificates installed?): {}",
                    chain(&error)
                )
            })?;
        Ok(Fetcher { client, guard, limits: limits.clone() })
    }

    /// The body at `url`. Every failure is an [`Error::MediaFetch`].
    pub(super) async fn fetch(&self, url: Url, kind: Kind) -> Result<Bytes, Error> {
        let shown = without_query(&url);
        let fetched = self.try_fetch(url, kind).await;
        let noun = kind.noun();
        fetched.map_err(|problem| Error::MediaFetch(format!("the {noun} at {shown} could not be fetched: {problem}")))
    }

    async fn try_fetch(&self, url: Url, kind: Kind) -> Result<Bytes, String> {
        self.guard.check_url(&url).map_err(|refused| refused.to_string())?;
        let request = self.client.get(url).timeout(kind.fetch_timeout(&self.limits));
        let response = request.send().await.map_err(|error| self.problem(&error, kind))?;
        let status = response.status();
        if status.is_redirection() {
            // A redirect that the policy was not even asked about, such as one to file:.
            return Err(format!("it answered {status} and led to no http(s) URL"));
        }
        if !status.is_success() {
            return Err(format!("it answered {status}"));
        }
        self.read(response, kind).await
    }

    /// Reads no more than the limit, whatever length the server claims.
    async fn read(&self, mut response: Response, kind: Kind) -> Result<Bytes, String> {
        let limit = kind.max_bytes(&self.limits);
        if response.content_length().is_some_and(|length| length > limit as u64) {
            return Err(kind.too_many_bytes(limit));
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.problem(&error, kind))? {
            if body.len() + chunk.len() > limit {
                return Err(kind.too_many_bytes(limit));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// What went wrong, in words for the client.
    fn problem(&self, error: &reqwest::Error, kind: Kind) -> String {
        if let Some(refused) = refusal(error) {
            return refused.to_string();
        }
        if error.is_timeout() {
            return format!(
                "it did not answer within {} ms ({})",
                kind.fetch_timeout(&self.limits).as_millis(),
                kind.fetch_timeout_flag()
            );
        }
        chain(error)
    }
}

/// Follows a few redirects, each judged as the first URL was.
fn redirect_policy(guard: AddressGuard, max_redirects: usize) -> redirect::Policy {
    redirect::Policy::custom(move |attempt| {
        if attempt.previous().len() > max_redirects {
            let many = Refused(format!("it redirects more than {max_redirects} times"));
            return attempt.error(many);
        }
        match guard.check_url(attempt.url()) {
            Ok(()) => attempt.follow(),
            Err(refused) => attempt.error(refused),
        }
    })
}

/// The guard's refusal among the causes of a client's error.
fn refusal<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Refused> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// An error's last cause, which says the most: the outer ones repeat the URL.
fn chain(error: &(dyn StdError + 'static)) -> String {
    causes(error).last().map_or_else(String::new, |cause| cause.to_string())
}

/// A URL for an error text: a query may carry a signature.
fn without_query(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    // Neither can be set on a URL without a host; then there is nothing to hide.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.into()
}
