//! The hub's HTTP: what a revision holds, what a file is, and its bytes from any offset.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, LOCATION, RANGE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, redirect};
use url::{Origin, Url};

use super::HubSettings;
use super::repository::{Listing, Repository, is_name};
use super::retries::{Problem, Retries};

/// A file as the hub describes it.
#[derive(Debug)]
pub(super) struct FileInfo {
    /// Names the content: the sha256 of a large file, git's hash of a small one.
    pub etag: String,
    pub size: Option<u64>,
    /// Where the bytes are.
    location: Url,
}

impl FileInfo {
    /// The sha256 that the content must have, where the hub tells it.
    pub(super) fn sha256(&self) -> Option<&str> {
        (self.etag.len() == 64 && self.etag.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(&self.etag)
    }
}

/// A connection to one repository of the hub.
pub(super) struct Hub {
    /// Follows redirects on the hub's own host and no others, so that the token cannot leave it.
    client: Client,
    /// For the storage that the hub redirects to. Has no token.
    storage: Client,
    endpoint: Url,
    authorization: Option<HeaderValue>,
    repository: Repository,
}

impl Hub {
    pub(super) fn new(settings: &HubSettings, repository: &Repository) -> Result<Hub, String> {
        let endpoint = Url::parse(&settings.endpoint)
            .ok()
            .filter(|endpoint| matches!(endpoint.scheme(), "http" | "https") && endpoint.has_host())
            .ok_or_else(|| format!("HF_ENDPOINT is {:?}; expected an http(s) URL", settings.endpoint))?;
        let authorization = match &settings.token {
            Some(token) => Some(bearer(token)?),
            None => None,
        };
        let client = build(redirects_within(endpoint.origin()))?;
        let storage = build(redirect::Policy::limited(5))?;
        Ok(Hub { client, storage, endpoint, authorization, repository: repository.clone() })
    }

    /// What the revision holds. `patient`: whether to try more than once.
    pub(super) async fn listing(&self, patient: bool) -> Result<Listing, Problem> {
        let Repository { id, revision } = &self.repository;
        let (org, name) = id.split_once('/').expect("the id was checked");
        let mut url = self.url(&["api", "models", org, name, "revision", revision]);
        url.set_query(Some("blobs=true")); // so that it tells sizes
        let mut retries = Retries::new();
        loop {
            match self.try_listing(url.clone()).await {
                Err(Problem::Passing(problem)) if patient && retries.wait(&problem).await => {}
                result => return result,
            }
        }
    }

    async fn try_listing(&self, url: Url) -> Result<Listing, Problem> {
        let response = self.send(self.request(Method::GET, url)).await?;
        self.check(&response, "the list of files")?;
        response.json().await.map_err(|error| self.broken(&error))
    }

    /// Asks what a file is, without fetching it.
    pub(super) async fn file_info(&self, commit: &str, file: &str) -> Result<FileInfo, Problem> {
        let (org, name) = self.repository.id.split_once('/').expect("the id was checked");
        let url = self.url(&[org, name, "resolve", commit, file]);
        let response = self.send(self.request(Method::HEAD, url)).await?;
        // A redirect that is left over leads to the storage; its own headers describe the file.
        if !response.status().is_redirection() {
            self.check(&response, file)?;
        }
        self.read_info(&response, file)
    }

    fn read_info(&self, response: &Response, file: &str) -> Result<FileInfo, Problem> {
        let headers = response.headers();
        let lasting = |problem: &str| Problem::Lasting(format!("{}: {file}: {problem}", self.name()));
        let etag = text(headers, "x-linked-etag").or_else(|| text(headers, ETAG.as_str()));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"')).filter(|etag| is_name(etag));
        let etag = etag.ok_or_else(|| lasting("the hub's answer has no usable ETag"))?.to_owned();
        let redirected = response.status().is_redirection();
        let length = if redirected { None } else { text(headers, "content-length") };
        let size = text(headers, "x-linked-size").or(length).and_then(|size| size.parse().ok());
        let location = match text(headers, LOCATION.as_str()).filter(|_| redirected) {
            Some(location) => {
                response.url().join(location).map_err(|_| lasting("the hub redirects to a malformed URL"))?
            }
            None => response.url().clone(),
        };
        Ok(FileInfo { etag, size, location })
    }

    /// A file's bytes from `offset` on, or from its start where the server cannot resume: see [`Body::offset`].
    pub(super) async fn open(&self, info: &FileInfo, offset: u64) -> Result<Body, Problem> {
        let on_hub = info.location.origin() == self.endpoint.origin();
        let mut request = if on_hub {
            self.request(Method::GET, info.location.clone())
        } else {
            self.storage.get(info.location.clone())
        };
        if offset > 0 {
            request = request.header(RANGE, format!("bytes={offset}-"));
            // The storage has ETags of its own. There the partial file's name, a hash of the content, vouches for it.
            if on_hub {
                request = request.header(IF_RANGE, format!("\"{}\"", info.etag));
            }
        }
        let response = self.send(request).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(response.headers(), offset) => Ok(Body { response, offset }),
            StatusCode::OK => Ok(Body { response, offset: 0 }),
            StatusCode::PARTIAL_CONTENT => {
                Err(Problem::Passing(format!("{}: the server sent another part than was asked for", self.name())))
            }
            _ => {
                self.check(&response, "the file's content")?;
                Err(Problem::Lasting(format!("{}: the server answered {}", self.name(), response.status())))
            }
        }
    }

    /// A URL below the endpoint; each part is escaped as a whole.
    fn url(&self, parts: &[&str]) -> Url {
        let mut url = self.endpoint.clone();
        let mut path = url.path_segments_mut().expect("an http(s) URL has a path");
        path.pop_if_empty().extend(parts);
        drop(path);
        url
    }

    fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let request = self.client.request(method, url);
        match &self.authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization.clone()),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Problem> {
        request.send().await.map_err(|error| self.broken(&error))
    }

    /// What an answer other than success means, and what to do about it.
    fn check(&self, response: &Response, what: &str) -> Result<(), Problem> {
        let status = response.status();
        let name = self.name();
        match status {
            _ if status.is_success() => Ok(()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Problem::Lasting(format!(
                "{name}: the hub refused ({status}): check the name, and set HF_TOKEN to a token that may read it; \
                 a gated repository needs its terms accepted on its page first"
            ))),
            StatusCode::NOT_FOUND => Err(Problem::Lasting(format!(
                "{name}: the hub has no {what} there ({status}): check the id and the revision; \
                 a private repository needs HF_TOKEN"
            ))),
            _ if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(Problem::Passing(format!("{name}: the hub answered {status}")))
            }
            _ => Err(Problem::Lasting(format!("{name}: the hub answered {status} when asked for {what}"))),
        }
    }

    /// A connection that could not be made, or broke.
    pub(super) fn broken(&self, error: &reqwest::Error) -> Problem {
        let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
        let cause = causes.last().map_or_else(String::new, ToString::to_string);
        let host = self.endpoint.host_str().unwrap_or_default();
        Problem::Passing(format!("{}: the connection to the hub ({host}) failed: {cause}", self.name()))
    }

    pub(super) fn id(&self) -> &str {
        &self.repository.id
    }

    /// What to call the repository in errors.
    pub(super) fn name(&self) -> String {
        format!("model {}@{}", self.repository.id, self.repository.revision)
    }
}

/// The bytes of a file as they arrive.
pub(super) struct Body {
    pub response: Response,
    /// Where in the file they begin.
    pub offset: u64,
}

fn build(redirects: redirect::Policy) -> Result<Client, String> {
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
    /// Between two pieces of a body; the whole of it may take as long as it likes.
    const READ_TIMEOUT: Duration = Duration::from_secs(30);
    Client::builder()
        .user_agent(concat!("sardine/", env!("CARGO_PKG_VERSION")))
        .no_gzip() // a length must be the file's own
        .redirect(redirects)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .build()
        .map_err(|error| format!("the hub's client could not be set up (are CA certificates installed?): {error}"))
}

/// Renamed repositories redirect within the hub; anything that leads elsewhere is handed back as it is.
fn redirects_within(origin: Origin) -> redirect::Policy {
    redirect::Policy::custom(move |attempt| {
        if attempt.previous().len() > 5 || attempt.url().origin() != origin { attempt.stop() } else { attempt.follow() }
    })
}

fn bearer(token: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
        .map_err(|_| "HF_TOKEN holds characters that no token has".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Whether a partial answer begins at `offset`.
fn starts_at(headers: &HeaderMap, offset: u64) -> bool {
    let range = text(headers, CONTENT_RANGE.as_str()).and_then(|range| range.strip_prefix("bytes "));
    range.and_then(|range| range.split('-').next()).and_then(|start| start.parse().ok()) == Some(offset)
}
