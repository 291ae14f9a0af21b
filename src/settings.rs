//! Every flag and environment variable, its default and its check, read once. Nothing else reads the environment.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

/// Serves a Qwen3.5 vision-language checkpoint over the Hugging Face Inference Toolkit's contract.
#[derive(Debug, Parser)]
#[command(name = "sardine", version, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the model over HTTP.
    Serve(Box<ServeSettings>),
    /// Answer one prompt on the terminal.
    Generate(Box<GenerateSettings>),
}

/// Which model, on which device.
#[derive(Debug, Clone, Args)]
pub struct ModelSettings {
    /// A folder in Hugging Face layout, or a hub id such as `org/name`. Without it: /repository if it holds a checkpoint,
    /// else the miniature inside the binary.
    #[arg(long, env = "SARDINE_MODEL", value_name = "DIR|HUB_ID")]
    pub model: Option<String>,
    /// Branch, tag or commit of a hub id.
    #[arg(long, env = "SARDINE_REVISION", default_value = "main")]
    pub revision: String,
    /// `cuda` fails where no GPU answers; `auto` takes one where it does.
    #[arg(long, env = "SARDINE_DEVICE", default_value = "auto", value_name = "auto|cpu|cuda[:N]")]
    pub device: String,
    /// `auto`: bfloat16, as the checkpoint is stored.
    #[arg(long, env = "SARDINE_DTYPE", default_value = "auto")]
    pub dtype: Dtype,
    /// Tokens of the longest sequence, prompt included. Default: the checkpoint's, at most 32768.
    #[arg(long, env = "SARDINE_MAX_MODEL_LEN", value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_model_len: Option<u32>,
    /// The library that brings CUDA into the process; `none` loads nothing.
    #[arg(long, env = "SARDINE_CUDA_LIBRARY", default_value = "libtorch_cuda.so", value_name = "FILE|none")]
    pub cuda_library: String,
    /// What strings such as `<|im_end|>` become inside text that a client sent; `tokens` is Transformers' behaviour.
    #[arg(long, env = "SARDINE_SPECIAL_TOKENS_IN_TEXT", default_value = "text")]
    pub special_tokens_in_text: SpecialTokensInText,
    #[command(flatten)]
    pub hub: HubFlags,
    #[command(flatten)]
    pub media: MediaFlags,
    #[command(flatten)]
    pub engine: EngineFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    Auto,
    Bfloat16,
    Float32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SpecialTokensInText {
    Text,
    Tokens,
}

/// How to reach the hub.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Hub")]
pub struct HubFlags {
    /// Where the hub answers.
    #[arg(long, env = "HF_ENDPOINT", default_value = "https://huggingface.co", value_name = "URL")]
    pub hub_endpoint: String,
    /// Where downloads are kept. Default: HF_HOME/hub, else ~/.cache/huggingface/hub.
    #[arg(long, env = "HF_HUB_CACHE", value_name = "DIR")]
    pub hub_cache: Option<PathBuf>,
    /// For gated and private repositories. Never logged.
    #[arg(long, env = "HF_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub hub_token: Option<String>,
}

/// What protects the server from pictures.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Pictures")]
pub struct MediaFlags {
    /// Whether picture URLs are fetched at all.
    #[arg(long, env = "SARDINE_ALLOW_REMOTE_IMAGES", default_value_t = true, action = clap::ArgAction::Set, value_parser = boolean, value_name = "BOOL")]
    pub allow_remote_images: bool,
    /// Networks that picture URLs may point to although they are not public, such as 10.0.0.0/8 (comma-separated).
    #[arg(long, env = "SARDINE_ALLOWED_NETWORKS", value_delimiter = ',', value_name = "CIDR")]
    pub allowed_networks: Vec<ipnet::IpNet>,
    /// Bytes of one picture's file.
    #[arg(long, env = "SARDINE_MAX_IMAGE_BYTES", default_value_t = 20 << 20, value_name = "BYTES")]
    pub max_image_bytes: usize,
    /// Pixels of one decoded picture.
    #[arg(long, env = "SARDINE_MAX_IMAGE_PIXELS", default_value_t = 64 << 20, value_name = "PIXELS")]
    pub max_image_pixels: u64,
    /// Pictures in one conversation.
    #[arg(long, env = "SARDINE_MAX_IMAGES", default_value_t = 32, value_name = "N")]
    pub max_images: usize,
    /// Time to fetch one picture, redirects included.
    #[arg(long, env = "SARDINE_IMAGE_TIMEOUT_MS", default_value_t = 10_000, value_name = "MS")]
    pub image_timeout_ms: u64,
}

/// What shares the model.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Engine")]
pub struct EngineFlags {
    /// Sequences that run at the same time.
    #[arg(long, env = "SARDINE_MAX_BATCH_SIZE", default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub max_batch_size: u32,
    /// Requests that may wait; one more is answered 429.
    #[arg(long, env = "SARDINE_MAX_QUEUE", default_value_t = 128, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_queue: u32,
    /// Tokens of a prompt that are read between two tokens of the other sequences.
    #[arg(long, env = "SARDINE_PREFILL_CHUNK", default_value_t = 512, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub prefill_chunk: u32,
}

#[derive(Debug, Clone, Args)]
pub struct ServeSettings {
    #[command(flatten)]
    pub model: ModelSettings,
    /// Where to listen; 0.0.0.0 for every interface, as in a container.
    #[arg(long, env = "SARDINE_HOST", default_value = "127.0.0.1")]
    pub host: String,
    #[arg(long, env = "SARDINE_PORT", default_value_t = 8080)]
    pub port: u16,
    /// The name by which clients know the model. Default: the hub id, or the folder's name.
    #[arg(long, env = "SARDINE_SERVED_MODEL_NAME", value_name = "NAME")]
    pub served_model_name: Option<String>,
    #[command(flatten)]
    pub http: HttpFlags,
    /// How log lines are written.
    #[arg(long, env = "SARDINE_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, or a tracing filter.
    #[arg(long, env = "SARDINE_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// The HTTP side.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP")]
pub struct HttpFlags {
    /// Bytes of a request's body: base64 makes pictures a third larger.
    #[arg(long, env = "SARDINE_MAX_BODY_BYTES", default_value_t = 64 << 20, value_name = "BYTES")]
    pub max_body_bytes: usize,
    /// Records in one request.
    #[arg(long, env = "SARDINE_MAX_CLIENT_BATCH_SIZE", default_value_t = 32, value_name = "N")]
    pub max_client_batch_size: usize,
    /// Requests must carry it as a bearer token. Never logged.
    #[arg(long, env = "SARDINE_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub api_key: Option<String>,
    /// The prompt of a picture that came without one.
    #[arg(long, env = "SARDINE_DEFAULT_IMAGE_PROMPT", default_value = "Describe this image.", value_name = "TEXT")]
    pub default_image_prompt: String,
    /// Answer 400 to every error on the toolkit's routes, as the toolkit itself does.
    #[arg(long, env = "SARDINE_STRICT_TOOLKIT_STATUS", default_value_t = false, action = clap::ArgAction::Set, value_parser = boolean, value_name = "BOOL")]
    pub strict_toolkit_status: bool,
    /// A prefix that a proxy leaves on every path.
    #[arg(long, env = "SARDINE_BASE_PATH", value_name = "PATH")]
    pub base_path: Option<String>,
    /// How long requests in flight may still take after SIGTERM.
    #[arg(long, env = "SARDINE_SHUTDOWN_GRACE_S", default_value_t = 30, value_name = "S")]
    pub shutdown_grace_s: u64,
    #[arg(long, env = "AIP_MODE", hide = true)]
    aip_mode: Option<String>,
    #[arg(long, env = "AIP_HEALTH_ROUTE", hide = true, default_value = "/health")]
    aip_health_route: String,
    #[arg(long, env = "AIP_PREDICT_ROUTE", hide = true, default_value = "/predict")]
    aip_predict_route: String,
}

#[derive(Debug, Clone, Args)]
pub struct GenerateSettings {
    #[command(flatten)]
    pub model: ModelSettings,
    /// A picture: a file or a URL. May be given several times.
    #[arg(long = "image", value_name = "FILE|URL")]
    pub images: Vec<String>,
    /// Longest answer, in tokens.
    #[arg(long, default_value_t = 256, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_new_tokens: u32,
    /// Let the model think before it answers, where its template can.
    #[arg(long)]
    pub think: bool,
    pub prompt: String,
}

/// Other names by which platforms and servers of this kind set a flag: (flag, variables, the first that is set wins).
const ALIASES: &[(&str, &[&str])] = &[
    // A folder that the platform mounted wins over an id to download.
    ("model", &["HF_MODEL_DIR", "MODEL_ID", "HF_MODEL_ID"]),
    ("revision", &["HF_REVISION", "REVISION"]),
    ("max_model_len", &["MAX_MODEL_LEN", "MAX_TOTAL_TOKENS"]),
    ("hub_token", &["HF_HUB_TOKEN", "HUGGING_FACE_HUB_TOKEN"]),
    ("port", &["PORT", "AIP_HTTP_PORT"]),
    ("served_model_name", &["SERVED_MODEL_NAME"]),
    ("max_body_bytes", &["PAYLOAD_LIMIT"]),
    ("max_client_batch_size", &["MAX_CLIENT_BATCH_SIZE"]),
    ("api_key", &["API_KEY"]),
    ("default_image_prompt", &["DEFAULT_IMAGE_PROMPT"]),
    ("strict_toolkit_status", &["TOOLKIT_STRICT_STATUS"]),
    ("allow_remote_images", &["ALLOW_REMOTE_IMAGES"]),
    ("base_path", &["BASE_PATH"]),
];

impl Cli {
    /// Reads the command line and the environment; a flag wins over its variable, and that over its aliases. Prints what is
    /// wrong and exits where something is.
    pub fn read() -> Cli {
        let matches = command(|variable| std::env::var(variable).ok()).get_matches();
        Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// The command line, with the aliases that `environment` holds as defaults.
fn command(environment: impl Fn(&str) -> Option<String>) -> clap::Command {
    let alias = |flag: &str| {
        let (_, variables) = ALIASES.iter().find(|(aliased, _)| *aliased == flag)?;
        let set = |variable: &&str| environment(variable).filter(|value| !value.is_empty());
        variables.iter().find_map(set)
    };
    let with_aliases = |subcommand: clap::Command| {
        subcommand.mut_args(|arg| match alias(arg.get_id().as_str()) {
            // clap wants its defaults to live as long as the process; there are as many as flags.
            Some(value) => arg.default_value(&*value.leak()),
            None => arg,
        })
    };
    Cli::command().mut_subcommands(with_aliases)
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "t" | "yes" | "y" | "on" => Ok(true),
        "0" | "false" | "f" | "no" | "n" | "off" | "" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

impl HubFlags {
    /// The hub's cache, where every program of the hub looks for it.
    pub fn cache(&self) -> PathBuf {
        let folder = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = || folder("HOME").unwrap_or_else(std::env::temp_dir).join(".cache/huggingface");
        self.hub_cache.clone().unwrap_or_else(|| folder("HF_HOME").unwrap_or_else(home).join("hub"))
    }
}

impl MediaFlags {
    pub fn image_timeout(&self) -> Duration {
        Duration::from_millis(self.image_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::{Cli, Command, ServeSettings, command};

    fn serve(environment: &[(&str, &str)], flags: &[&str]) -> Result<ServeSettings, String> {
        let variable = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string());
        let matches = command(variable)
            .try_get_matches_from(["sardine", "serve"].iter().chain(flags))
            .map_err(|error| error.to_string())?;
        match Cli::from_arg_matches(&matches).map_err(|error| error.to_string())?.command {
            Command::Serve(settings) => Ok(*settings),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn the_platforms_variables_set_what_the_flags_set() {
        let settings =
            serve(&[("PORT", "80"), ("HF_MODEL_DIR", "/repository"), ("MODEL_ID", "org/name")], &[]).unwrap();
        assert_eq!((settings.port, settings.model.model.as_deref()), (80, Some("/repository")));
    }

    #[test]
    fn a_flag_wins_over_an_alias() {
        assert_eq!(serve(&[("PORT", "80")], &["--port", "9000"]).unwrap().port, 9000);
    }

    #[test]
    fn a_wrong_alias_is_refused() {
        assert!(serve(&[("PORT", "eighty")], &[]).unwrap_err().contains("eighty"));
    }

    #[test]
    fn an_empty_variable_is_no_setting() {
        assert_eq!(serve(&[("PORT", "")], &[]).unwrap().port, 8080);
    }
}
