//! Settings of the HTTP side.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::boolean;
use super::model::ModelSettings;
use super::secret::Secret;
use crate::http::{ApiKeys, HttpSettings, ServedModel, VertexRoutes};
use crate::telemetry::LogFormat;

/// The longest step on two slow cores is one that reads the largest picture, about 50 minutes: half the time is attention
/// among 65,536 patches. Killing what works is worse than finding late what hangs.
const CPU_STALL_LIMIT_S: u64 = 3600;

/// No step takes a GPU a minute.
const GPU_STALL_LIMIT_S: u64 = 300;

#[derive(Debug, Clone, Args)]
pub struct ServeSettings {
    #[command(flatten)]
    pub model: ModelSettings,
    /// Where to listen; 0.0.0.0 for every interface, as in a container.
    #[arg(long, env = "SARDINE_HOST", default_value = "127.0.0.1")]
    pub host: String,
    #[arg(long, env = "SARDINE_PORT", default_value_t = 8080)]
    pub port: u16,
    /// The name by which clients see the model. Default: the hub id, or the folder.
    #[arg(long, env = "SARDINE_SERVED_MODEL_NAME", value_name = "NAME")]
    pub served_model_name: Option<String>,
    #[command(flatten)]
    pub http: HttpFlags,
    /// How log lines are written.
    #[arg(long, env = "SARDINE_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// A collector of OpenTelemetry traces, OTLP over HTTP, such as http://localhost:4318; only in builds with the feature `otel`.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<Secret>,
    /// What is logged: error, warn, info, debug, or a tracing filter.
    #[arg(long, env = "SARDINE_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
}

/// The HTTP side.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP")]
pub struct HttpFlags {
    /// Bytes of a request's body. A telephone's picture has up to 15 MB, and base64 makes it a third larger.
    #[arg(long, env = "SARDINE_MAX_BODY_BYTES", default_value_t = 64 << 20, value_name = "BYTES")]
    pub max_body_bytes: usize,
    /// Answers that one request may ask for: its records times `num_return_sequences`.
    #[arg(long, env = "SARDINE_MAX_CLIENT_BATCH_SIZE", default_value_t = 32, value_name = "N")]
    pub max_client_batch_size: usize,
    /// Requests must carry one of these (comma-separated) as a bearer token. Never logged.
    #[arg(long, env = "SARDINE_API_KEY", hide_env_values = true, value_delimiter = ',', value_name = "KEY,KEY..")]
    pub api_key: Vec<Secret>,
    /// A file with more API keys, one a line.
    #[arg(long, env = "SARDINE_API_KEY_FILE", value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Requests that each API key may have in work; one more is answered 429. Default: as many as there are.
    #[arg(long, env = "SARDINE_MAX_CONCURRENT_PER_KEY", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_concurrent_per_key: Option<u32>,
    /// Origins of web pages that may ask from a browser (comma-separated), or `*` for all. Default: none.
    #[arg(long, env = "SARDINE_CORS_ALLOW_ORIGIN", value_delimiter = ',', value_parser = origin, value_name = "ORIGIN,ORIGIN..")]
    pub cors_allow_origin: Vec<String>,
    /// The prompt of a picture that came without one.
    #[arg(long, env = "SARDINE_DEFAULT_IMAGE_PROMPT", default_value = "Describe this image.", value_name = "TEXT")]
    pub default_image_prompt: String,
    /// The prompt of a video that came without one.
    #[arg(long, env = "SARDINE_DEFAULT_VIDEO_PROMPT", default_value = "Describe the video.", value_name = "TEXT")]
    pub default_video_prompt: String,
    /// Answer 400 to errors on the toolkit's routes, as the toolkit itself does; only 401, 429 and 503 keep their status.
    #[arg(long, env = "SARDINE_STRICT_TOOLKIT_STATUS", default_value_t = false, action = clap::ArgAction::Set, value_parser = boolean, value_name = "BOOL")]
    pub strict_toolkit_status: bool,
    /// A prefix that a proxy leaves on every path.
    #[arg(long, env = "SARDINE_BASE_PATH", value_name = "PATH")]
    pub base_path: Option<String>,
    /// How long the engine may be at one step before /livez and /health say that it hangs: the process should be started anew. A step
    /// that reads a very large picture takes the better part of an hour on a slow CPU. Default: an hour, and 5 minutes on a GPU.
    #[arg(long, env = "SARDINE_STALL_LIMIT_S", value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    pub stall_limit_s: Option<u64>,
    /// How long requests in flight may still take after SIGTERM.
    #[arg(long, env = "SARDINE_SHUTDOWN_GRACE_S", default_value_t = 30, value_name = "S")]
    pub shutdown_grace_s: u64,
    /// How long a stream may wait for its turn before its status line is sent all the same: platforms count requests without one
    /// to see that they must scale up, and proxies give up on those that stay silent.
    #[arg(long, env = "SARDINE_STATUS_HOLD_MS", default_value_t = 10_000, value_name = "MS")]
    pub status_hold_ms: u64,
    /// How long an answer that is not streamed may take before it is a 504. Default: as long as it takes.
    #[arg(long, env = "SARDINE_REQUEST_TIMEOUT_S", value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    pub request_timeout_s: Option<u64>,
    #[arg(long, env = "AIP_MODE", hide = true)]
    aip_mode: Option<String>,
    #[arg(long, env = "AIP_HEALTH_ROUTE", hide = true, default_value = "/health")]
    aip_health_route: String,
    #[arg(long, env = "AIP_PREDICT_ROUTE", hide = true, default_value = "/predict")]
    aip_predict_route: String,
}

impl ServeSettings {
    /// The API keys that are set, from everywhere. The error is one line for the person who deploys: a file that was to guard
    /// the server and holds nothing must not leave it open.
    pub fn api_keys(&self) -> Result<ApiKeys, String> {
        let http = &self.http;
        let mut keys: Vec<String> = http.api_key.iter().map(|key| key.expose().trim().to_owned()).collect();
        keys.retain(|key| !key.is_empty());
        if keys.is_empty() && http.api_key.iter().any(|key| !key.expose().is_empty()) {
            return Err("--api-key: no key stands in it, only blanks".to_owned());
        }
        if let Some(file) = http.api_key_file.as_ref().filter(|file| !file.as_os_str().is_empty()) {
            let name = |problem: &dyn fmt::Display| format!("--api-key-file {}: {problem}", file.display());
            let text = fs::read_to_string(file).map_err(|error| name(&error))?;
            let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            if lines.is_empty() {
                return Err(name(&"no key stands in it; expected one a line"));
            }
            keys.extend(lines.into_iter().map(str::to_owned));
        }
        let max_concurrent = http.max_concurrent_per_key.map(|limit| limit as usize);
        if let (Some(limit), true) = (max_concurrent, keys.is_empty()) {
            return Err(format!("--max-concurrent-per-key {limit}: there are no keys (--api-key, --api-key-file)"));
        }
        Ok(ApiKeys::new(&keys, max_concurrent))
    }

    /// The HTTP side's settings, to serve `model` under the name that they give it, if any, to whoever has one of `api_keys`.
    pub fn http(&self, mut model: ServedModel, api_keys: ApiKeys) -> HttpSettings {
        model.name = self.served_model_name.clone().unwrap_or(model.name);
        let http = &self.http;
        let stall_limit_s = if model.device_type() == "cpu" { CPU_STALL_LIMIT_S } else { GPU_STALL_LIMIT_S };
        let is_vertex = http.aip_mode.as_deref() == Some("PREDICTION");
        HttpSettings {
            model,
            host: self.host.clone(),
            port: self.port,
            max_body_bytes: http.max_body_bytes,
            max_client_batch_size: http.max_client_batch_size,
            api_keys,
            cors_origins: http.cors_allow_origin.iter().filter(|origin| !origin.is_empty()).cloned().collect(),
            default_image_prompt: http.default_image_prompt.clone(),
            default_video_prompt: http.default_video_prompt.clone(),
            strict_toolkit_status: http.strict_toolkit_status,
            base_path: http.base_path.clone(),
            vertex: is_vertex.then(|| VertexRoutes {
                health: http.aip_health_route.clone(),
                predict: http.aip_predict_route.clone(),
            }),
            stall_limit: Duration::from_secs(http.stall_limit_s.unwrap_or(stall_limit_s)),
            shutdown_grace: Duration::from_secs(http.shutdown_grace_s),
            status_hold: Duration::from_millis(http.status_hold_ms),
        }
    }

    pub fn request_timeout(&self) -> Option<Duration> {
        self.http.request_timeout_s.map(Duration::from_secs)
    }
}

/// An origin as browsers write it, or `*`; nothing where a variable is set and empty.
fn origin(text: &str) -> Result<String, String> {
    let is_origin =
        url::Url::parse(text).is_ok_and(|url| url.origin().is_tuple() && url.origin().ascii_serialization() == text);
    if text.is_empty() || text == "*" || is_origin {
        Ok(text.to_owned())
    } else {
        Err("expected * or an origin such as https://example.com".to_owned())
    }
}
