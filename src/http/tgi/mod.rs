//! Text Generation Inference's own routes: a raw prompt in, one record or the stream of its tokens out.
//!
//! A body passes through `wire` (its fields) and `hf::parameters` (in TGI's dialect) and comes back through `hf::details`
//! or `hf::events`. TGI's `POST /` is the toolkit's.

mod error;
pub(super) mod generate;
mod headers;
pub(super) mod info;
mod schema;
pub(super) mod tokenize;
mod wire;

pub(super) use generate::{generate, generate_stream};
pub(super) use info::info;
pub(super) use tokenize::{chat_tokenize, tokenize};
