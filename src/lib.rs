//! sardine serves a Qwen3.5 vision-language checkpoint over HTTP, from libtorch. This file is the map of the crate.
//!
//! # The path of a request
//!
//! ```text
//!  1 http::routes             POST / | /generate | /v1/chat/completions ...
//!  2 http::toolkit|tgi|openai JSON -> ChatRequest                        one inner type for every protocol
//!  3 generation::Service      start
//!  4   media                  sources -> pixels -> patches               concurrent, limited, off the async threads
//!  5   chat::template         conversation -> text                       the checkpoint's own Jinja file
//!  6   chat::prompt           text + pictures -> ids, 3-D positions
//!  7   engine::handle         submit -> stream of tokens                 or Error::Overloaded
//!  -------- queue: below this line a thread for each device, no async --------
//!  8 engine::worker           end cancelled and late, start whoever there is room for
//!  9 engine::scheduler        which sequences, how many tokens -> Step   plain data
//! 10 model::runner            Step -> tensors -> forward -> sampled ids
//! 11 engine::worker           ids -> each sequence's channel
//!  -------- channel --------
//! 12 generation::Generation   id -> text (never half a character) -> stop strings -> Delta
//! 13 http::toolkit|tgi|openai Deltas -> whole answers or streams        `chat::output` splits reasoning and calls for OpenAI's
//! ```
//!
//! # Who may use whom
//!
//! `http -> generation -> chat, media, engine`; `model` implements `engine::ModelRunner`, and `start` plugs it in. `checkpoint` (files) and
//! `error` lie below all of them; `settings` knows every part's own settings and nobody knows `settings`, but `start` and `main`. `startup` is the board that tells the probes how far the start is, `telemetry` the logs and the metrics.
//! Each package has one home: actix-web in `http`, tch in `model`, reqwest in `media`, `checkpoint` and `bench` (which measures the engine, or
//! any server from outside), tokenizers and minijinja in `chat`, image in `media`. `http::hf` is what the toolkit's and TGI's contracts share. Everything that knows Qwen3.5's text conventions is in `chat`; everything that knows its tensors is in `model`.
//!
//! # Invariants
//!
//! `tests/structure.rs` checks what can be read off the source.
//!
//! * Only the engine's threads touch a tensor of the model, each those of its own replica.
//! * `engine` knows token ids, never text; `model` knows nothing of requests.
//! * No protocol's folder reads another's.
//! * The environment is read in `settings` only, and every limit that protects the process has one name there.
//! * Cancelling is dropping: a dropped `Generation` leaves the queue at once, or frees its slot at the next step.
//! * Memory is planned at the start and reserved before a sequence starts: whoever runs can run to its end.
//! * Unwinding stays on: a failure inside libtorch fails one step, not the process.
//!
//! # Words
//!
//! *Settings*: command line and environment. *Config*: the checkpoint's config.json. *Conversation*: messages as a client sends them. *Prompt*:
//! ids, positions and pictures. *Sequence*: a request on the engine. *Step*: one forward pass. *Row*: a sequence's tokens in a step. *Slot*: a
//! sequence's place in the model's memory. *Delta*: a piece of an answer. *Runner*: the model behind the seam.

pub mod bench;
pub mod chat;
pub mod checkpoint;
pub mod engine;
pub mod error;
pub mod generation;
pub mod http;
pub mod media;
pub mod model;
pub mod progress;
pub mod settings;
pub mod start;
pub mod startup;
pub mod telemetry;
