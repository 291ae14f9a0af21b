//! The command line: serve, generate, bench, plan.

use std::io::Write;
use std::time::Instant;

use sardine::engine::Sampling;
use sardine::generation::{ChatRequest, Conversation, Ending, Input, Length, MaxLength, Service, Stop};
use sardine::http::{Signals, WaitingRoom};
use sardine::media::{Footage, Medium, Source, Video, VideoOptions};
use sardine::settings::{BenchSettings, Cli, Command, GenerateSettings, PlanSettings, ServeSettings};
use sardine::startup::Startup;
use sardine::telemetry::Traces;
use sardine::{bench, http, start, telemetry};
use serde_json::json;

fn main() {
    share_arenas();
    keep_few_shapes();
    let outcome = match Cli::read().command {
        Command::Serve(settings) => run(serve(*settings)),
        Command::Generate(settings) => run(generate(*settings)),
        Command::Bench(settings) => run(bench(*settings)),
        Command::Plan(settings) => run(plan(*settings)),
    };
    if let Err(reason) = &outcome {
        eprintln!("sardine: {reason}");
    }
    leave(i32::from(outcome.is_err()))
}

/// Ends the process, but runs no destructors of libtorch's: a thread of the engine may be in the middle of a step (after a
/// second signal), and would crash once what it works with is gone.
fn leave(code: i32) -> ! {
    let _ = std::io::stdout().flush();
    // Safety: it does nothing but end the process.
    unsafe { libc::_exit(code) }
}

fn run(command: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the operating system refused the threads: {error}"))?
        .block_on(command)
}

/// glibc lets every thread allocate in an arena of its own, and what a picture's threads have freed in each is of no use to
/// the others: the memory creeps up for thousands of requests. Two for all are not noticeably slower.
fn share_arenas() {
    #[cfg(target_env = "gnu")]
    // Safety: no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// oneDNN, which multiplies bf16 for libtorch where the CPU can do it, and libtorch itself keep what they made for each shape of a
/// product, up to 1024 of them: 800 MB for fry, once it has read prompts of many lengths. With 64 fry, whose products are tiny, takes a
/// tenth longer for sixteen clients' texts and pictures.
fn keep_few_shapes() {
    for variable in [c"ONEDNN_PRIMITIVE_CACHE_CAPACITY", c"LRU_CACHE_CAPACITY"] {
        // Safety: no other thread runs yet. What is set already stays.
        unsafe {
            libc::setenv(variable.as_ptr(), c"64".as_ptr(), 0);
        }
    }
}

async fn serve(settings: ServeSettings) -> Result<(), String> {
    telemetry::start(&settings.log, settings.log_format)?;
    let traces = Traces::start(
        settings
            .otlp_endpoint
            .as_ref()
            .map(|endpoint| endpoint.expose().as_str())
            .filter(|endpoint| !endpoint.is_empty()),
    )?;
    let ended = serve_model(&settings).await;
    // Off the async threads: the exporter blocks.
    let _ = tokio::task::spawn_blocking(|| traces.finish()).await;
    ended
}

async fn serve_model(settings: &ServeSettings) -> Result<(), String> {
    let api_keys = settings.api_keys()?;
    // The socket opens first: a download may take minutes, and whoever asks meanwhile is told how far it is.
    let (listener, startup) = (http::listen(&settings.host, settings.port)?, Startup::new());
    let waiting_room = WaitingRoom::open(&listener, startup.clone())?;
    let mut signals = Signals::new()?; // a container's first process would not be ended by them
    let started = tokio::select! {
        started = start::start_telling(&settings.model, startup) => started?,
        () = signals.next() => return Ok(()),
    };
    let http_settings = settings.http(started.model, api_keys);
    let model = http_settings.model.name.clone();
    let service = started.service.with_request_timeout(settings.request_timeout());
    waiting_room.close().await;
    let server = http::serve_on(listener, signals, service, http_settings);
    tokio::pin!(server);
    tokio::select! {
        ended = &mut server => ended,
        loaded = started.loaded => {
            outcome(loaded)?;
            tracing::info!(model, "ready");
            server.await
        }
    }
}

/// What became of the load; the engine says nothing where its thread died.
fn outcome<E>(loaded: Result<Result<(), String>, E>) -> Result<(), String> {
    loaded.unwrap_or_else(|_| Err("the engine's thread died while it loaded the model".to_owned()))
}

/// One answer on the terminal, written as it comes.
async fn generate(settings: GenerateSettings) -> Result<(), String> {
    telemetry::start("warn", telemetry::LogFormat::Text)?;
    let started = start::start(&settings.model).await?;
    outcome(started.loaded.await)?;
    let request = conversation(&settings, &started.service)?;
    let mut answer = started.service.start(request).await.map_err(|error| error.to_string())?;
    let mut out = std::io::stdout().lock();
    while let Some(delta) = answer.next().await {
        let delta = delta.map_err(|error| error.to_string())?;
        write!(out, "{}", delta.text)
            .and_then(|()| out.flush())
            .map_err(|error| format!("standard output: {error}"))?;
    }
    writeln!(out).map_err(|error| format!("standard output: {error}"))
}

/// How fast the engine of this process is, or a server.
async fn bench(settings: BenchSettings) -> Result<(), String> {
    let began = Instant::now();
    telemetry::start("warn", telemetry::LogFormat::Text)?;
    let workload = settings.workload();
    let report = match &settings.url {
        Some(url) => bench::over_http(url, &workload).await?,
        None => {
            let started = start::start(&settings.model()).await?;
            outcome(started.loaded.await)?;
            bench::in_process(started.service, &workload, started.per_token, began).await?
        }
    };
    if settings.json {
        println!("{}", serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?);
    } else {
        print!("{report}");
    }
    Ok(())
}

/// What would be served within the memory there is.
async fn plan(settings: PlanSettings) -> Result<(), String> {
    telemetry::start("warn", telemetry::LogFormat::Text)?;
    let plan = start::plan(&settings.model).await?;
    if settings.json {
        println!("{}", serde_json::to_string_pretty(&plan).map_err(|error| error.to_string())?);
        return Ok(());
    }
    println!("{}", plan.table());
    plan.clamped().iter().for_each(|clamped| println!("{clamped}"));
    Ok(())
}

/// One user turn: the pictures and the videos, then the prompt.
fn conversation(settings: &GenerateSettings, service: &Service) -> Result<ChatRequest, String> {
    let (mut content, mut media) = (Vec::new(), Vec::new());
    for image in &settings.images {
        content.push(json!({"type": "image"}));
        media.push(Medium::Picture(source("--image", image)?));
    }
    for video in &settings.videos {
        content.push(json!({"type": "video"}));
        let footage = Footage::File(source("--video", video)?);
        media.push(Medium::Video(Video { footage, options: VideoOptions::default() }));
    }
    content.push(json!({"type": "text", "text": settings.prompt}));
    let mut template_variables = serde_json::Map::new();
    template_variables.insert("enable_thinking".to_owned(), settings.think.into());
    Ok(ChatRequest {
        input: Input::Conversation(Conversation {
            messages: vec![json!({"role": "user", "content": content})],
            tools: Vec::new(),
            template_variables,
            ending: Ending::GenerationPrompt,
        }),
        media,
        sampling: Sampling::greedy(),
        length: Length { max: MaxLength::NewAtMost(settings.max_new_tokens as usize), max_time: None, truncate: None },
        stop: Stop { eos: service.defaults().eos_token_id.clone(), ..Stop::default() },
        skip_special_tokens: true,
        prompt_logprobs: None,
        deadline: None,
    })
}

/// What the person at the terminal names: a file of theirs, or a URL.
fn source(flag: &str, name: &str) -> Result<Source, String> {
    if name.starts_with("http://") || name.starts_with("https://") || name.starts_with("data:") {
        return Ok(Source::Text(name.to_owned()));
    }
    let file = std::fs::read(name).map_err(|error| format!("{flag} {name}: {error}"))?;
    Ok(Source::File(file.into()))
}
