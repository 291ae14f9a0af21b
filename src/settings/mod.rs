//! Every flag and environment variable, its default and its check, read once. Nothing else reads the environment.

mod bench;
mod http;
mod media;
mod model;
mod secret;
mod units;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use bench::BenchSettings;
pub use http::{HttpFlags, ServeSettings};
pub use media::MediaFlags;
pub use model::{EngineFlags, HubFlags, ModelSettings};
pub use secret::Secret;

/// Serves a Qwen3.5 vision-language checkpoint over the contracts of the Hugging Face Inference Toolkit, OpenAI and TGI.
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
    /// Measure how fast answers come.
    Bench(Box<BenchSettings>),
    /// Say what would be served within the memory there is, without loading the model.
    Plan(Box<PlanSettings>),
}

#[derive(Debug, Clone, Args)]
pub struct PlanSettings {
    #[command(flatten)]
    pub model: ModelSettings,
    /// As JSON, for programs.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Args)]
pub struct GenerateSettings {
    #[command(flatten)]
    pub model: ModelSettings,
    /// A picture: a file or a URL. May be given several times.
    #[arg(long = "image", value_name = "FILE|URL")]
    pub images: Vec<String>,
    /// A video: a file or a URL. May be given several times.
    #[arg(long = "video", value_name = "FILE|URL")]
    pub videos: Vec<String>,
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
    let with_alias = |arg: clap::Arg| match alias(arg.get_id().as_str()) {
        Some(value) => {
            let is_secret = arg.is_hide_env_values_set();
            // clap wants its defaults to live as long as the process; there are as many as flags.
            arg.default_value(&*value.leak()).hide_default_value(is_secret)
        }
        None => arg,
    };
    // Kubernetes sets SARDINE_PORT to the address of a service that is named sardine, which is not meant for this flag.
    let without_links = |arg: clap::Arg| match arg.get_env().and_then(|name| environment(name.to_str()?)) {
        Some(value) if value.starts_with("tcp://") && arg.get_id() == "port" => arg.env(None),
        _ => arg,
    };
    let adjusted = |subcommand: clap::Command| subcommand.mut_args(|arg| without_links(with_alias(arg)));
    Cli::command().mut_subcommands(adjusted)
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "t" | "yes" | "y" | "on" => Ok(true),
        "0" | "false" | "f" | "no" | "n" | "off" | "" => Ok(false),
        _ => Err("expected true or false".to_owned()),
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
    fn a_kubernetes_service_of_our_name_sets_no_port() {
        let link = |name: &str| (name == "SARDINE_PORT").then(|| "tcp://10.3.0.7:80".to_owned());
        for (command, has_variable) in [(command(|_| None), true), (command(link), false)] {
            let serve = command.find_subcommand("serve").unwrap();
            let port = serve.get_arguments().find(|arg| arg.get_id() == "port").unwrap();
            assert_eq!(port.get_env().is_some(), has_variable);
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

    #[test]
    fn api_keys_come_from_a_list_and_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "third\n\n  fourth  \n").unwrap();
        let path = file.path().to_str().unwrap();
        let settings = serve(&[("API_KEY", "first,second")], &["--api-key-file", path]).unwrap();
        assert_eq!(format!("{:?}", settings.api_keys().unwrap()), "ApiKeys(4 set)");
        assert_eq!(format!("{:?}", serve(&[("API_KEY", "")], &[]).unwrap().api_keys().unwrap()), "ApiKeys(0 set)");
    }

    #[test]
    fn what_is_secret_is_not_told_by_those_who_tell_their_settings() {
        let secrets = [
            "--api-key=hush1,hush2",
            "--hub-token=hush3",
            "--image-proxy=http://user:hush4@proxy",
            "--otlp-endpoint=http://user:hush5@collector",
        ];
        let settings = serve(&[], &secrets).unwrap();
        assert!(!format!("{settings:?}").contains("hush"), "{settings:?}");
        assert!(!format!("{:?}", settings.model.hub_settings()).contains("hush"));
        assert_eq!(settings.model.hub_settings().token.as_deref(), Some("hush3"));
        let keys = |name: &str| ["API_KEY", "HF_HUB_TOKEN"].contains(&name).then(|| "hush".to_owned());
        let help = command(keys).find_subcommand_mut("serve").unwrap().render_long_help().to_string();
        assert!(!help.contains("hush"), "help tells no key either: {help}");
    }

    #[test]
    fn a_file_of_keys_that_holds_none_does_not_leave_the_server_open() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        assert!(serve(&[], &["--api-key-file", path]).unwrap().api_keys().unwrap_err().contains(path));
        assert!(serve(&[], &["--api-key-file", "/no/such/file"]).unwrap().api_keys().is_err());
        assert!(serve(&[("API_KEY", " ")], &[]).unwrap().api_keys().is_err());
        let limited = serve(&[], &["--max-concurrent-per-key", "2"]).unwrap();
        assert!(limited.api_keys().unwrap_err().contains("there are no keys"));
    }

    #[test]
    fn an_origin_is_written_as_browsers_write_it() {
        let origins = |text| serve(&[], &["--cors-allow-origin", text]).map(|settings| settings.http.cors_allow_origin);
        assert_eq!(origins("https://a.example,http://localhost:3000").unwrap().len(), 2);
        assert_eq!(origins("*").unwrap(), ["*"]);
        assert!(origins("").is_ok(), "a variable that is set and empty is no setting");
        for wrong in ["a.example", "https://a.example/", "https://a.example/page", "file:///x", "https://a.example:443"]
        {
            assert!(origins(wrong).is_err(), "{wrong}");
        }
    }
}
