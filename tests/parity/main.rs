//! Numbers against Transformers: a small random checkpoint, and what Transformers computed with it (see make_fixtures.py).

mod batching;
mod bfloat16;
mod delta_rule;
mod device;
mod driving;
mod fixtures;
mod float32;
mod loading;
mod oracle;
mod pictures;
mod quantized;
mod scoring;
mod speed;
mod together;
