//! sardine serves a Qwen3.5 vision-language checkpoint. This file is the map of the crate.

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
