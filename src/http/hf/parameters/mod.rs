//! The `parameters` of a request: from every place they may stand in, with every default resolved.

mod dialect;
mod length;
mod names;
mod sampling;
mod schema;
mod template;
mod values;

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::chat::GenerationDefaults;
use crate::engine::Sampling;
use crate::error::Error;
use crate::generation::{Length, Stop};
use crate::http::json::{kind, refuse, shown};
use crate::http::video::processor_kwargs;
use crate::media::VideoOptions;
pub(in crate::http) use dialect::{Dialect, TGI, TRANSFORMERS};
pub(in crate::http) use names::merge;
pub(in crate::http) use schema::{TgiParameters, ToolkitParameters};
pub(in crate::http) use template::Template;
use values::Values;

/// Alternatives that may be asked for at each token.
const MAX_TOP_TOKENS: usize = 20;

/// What the parameters say.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::http) struct Parameters {
    pub(in crate::http) sampling: Sampling,
    pub(in crate::http) length: Length,
    pub(in crate::http) stop: Stop,
    pub(in crate::http) skip_special_tokens: bool,
    pub(in crate::http) template: Template,
    /// How the videos are read that do not say it themselves, and bounds on the area of pictures that have none of their own.
    pub(in crate::http) videos: VideoOptions,
    pub(in crate::http) reply: Reply,
    /// What was understood and has no effect, for the client to read.
    pub(in crate::http) warnings: Vec<String>,
}

/// What the reply is made of.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::http) struct Reply {
    /// Answers to the same question.
    pub(in crate::http) num_sequences: usize,
    /// Answers of which the likeliest is returned.
    pub(in crate::http) best_of: usize,
    pub(in crate::http) return_full_text: bool,
    pub(in crate::http) details: bool,
    /// Whether the details tell of the prompt's tokens.
    pub(in crate::http) decoder_input_details: bool,
}

/// What parameters are read with.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct Reading<'a> {
    pub(in crate::http) dialect: &'a Dialect,
    /// The checkpoint's own settings.
    pub(in crate::http) defaults: &'a GenerationDefaults,
    /// Bounds the token ids that a request may name.
    pub(in crate::http) vocab_size: usize,
    pub(in crate::http) delivery: Delivery,
}

/// How an answer reaches its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Delivery {
    Whole,
    Streamed,
}

/// Resolves what a request gave: request, then the checkpoint's generation_config.json where the dialect reads it, then
/// the dialect's own defaults.
///
/// Everything that was given is used, or refused by name.
pub(in crate::http) fn resolve(given: Map<String, Value>, reading: Reading) -> Result<Parameters, Error> {
    let mut values = Values::new(given, reading.vocab_size);
    let parameters = take_all(&mut values, reading)?;
    values.refuse_rest()?;
    Ok(parameters)
}

/// The names that [`resolve`] knows.
#[cfg(test)]
fn known_names(given: Map<String, Value>, reading: Reading) -> Result<Vec<&'static str>, Error> {
    let mut values = Values::new(given, reading.vocab_size);
    take_all(&mut values, reading)?;
    Ok(values.known().to_vec())
}

fn take_all(values: &mut Values, reading: Reading) -> Result<Parameters, Error> {
    let Reading { dialect, delivery, .. } = reading;
    let defaults = &*defaults(reading);
    let mut warnings = Vec::new();
    let stop = stop(values, dialect, defaults)?;
    let length = length::resolve(values, dialect, defaults, &mut warnings)?;
    let mut sampling = sampling::resolve(values, dialect, defaults, &stop.eos, &mut warnings)?;
    let reply = reply(values, &sampling, delivery)?;
    sampling.top_logprobs = values.count("top_n_tokens", "from 0 to 20", |n| n <= MAX_TOP_TOKENS)?.unwrap_or(0);
    if sampling.top_logprobs > 0 && !reply.details && delivery == Delivery::Whole {
        return Err(refuse("top_n_tokens", "is part of the details: set `details` to true as well"));
    }
    let skip_special_tokens = values.boolean("skip_special_tokens")?.unwrap_or(true);
    // Nothing is ever padded here: accepted because generation configs carry it.
    values.token_ids("pad_token_id")?;
    let template = template::resolve(values)?;
    let videos = videos(values)?;
    Ok(Parameters { sampling, length, stop, skip_special_tokens, template, videos, reply, warnings })
}

/// What `fields` tell the chat template; the others are not looked at.
pub(in crate::http) fn template(mut fields: Map<String, Value>) -> Result<Template, Error> {
    fields.retain(|_, value| !value.is_null());
    template::resolve(&mut Values::new(fields, 0))
}

/// What stands in for parameters that a client left out.
fn defaults<'a>(reading: Reading<'a>) -> Cow<'a, GenerationDefaults> {
    if reading.dialect.reads_generation_config {
        return Cow::Borrowed(reading.defaults);
    }
    let eos_token_id = reading.defaults.eos_token_id.clone();
    Cow::Owned(GenerationDefaults { eos_token_id, ..GenerationDefaults::default() })
}

/// Transformers' pipeline hands these to the processor; vLLM's clients have an object for them.
fn videos(values: &mut Values) -> Result<VideoOptions, Error> {
    let own = VideoOptions {
        min_pixels: values.count("min_pixels", "above 0", |n| n > 0)?,
        max_pixels: values.count("max_pixels", "above 0", |n| n > 0)?,
        ..VideoOptions::default()
    };
    Ok(own.or(processor_kwargs(values.object("mm_processor_kwargs")?)?))
}

fn stop(values: &mut Values, dialect: &Dialect, defaults: &GenerationDefaults) -> Result<Stop, Error> {
    let strings = values.texts("stop_strings", dialect.max_stop_strings)?;
    let strings = strings.unwrap_or_else(|| defaults.stop_strings.clone());
    let eos = values.token_ids("eos_token_id")?.unwrap_or_else(|| defaults.eos_token_id.clone());
    // Both contracts leave the text that ended the answer in it.
    Ok(Stop { eos, strings, keep_string: true })
}

fn reply(values: &mut Values, sampling: &Sampling, delivery: Delivery) -> Result<Reply, Error> {
    let num_sequences = values.count("num_return_sequences", "above 0", |n| n > 0)?.unwrap_or(1);
    let best_of = values.count("best_of", "above 0", |n| n > 0)?.unwrap_or(1);
    for (name, count) in [("num_return_sequences", num_sequences), ("best_of", best_of)] {
        if count > 1 && !sampling.do_sample {
            let message = format!("{count} needs sampling, or all answers are the same: set `do_sample` to true");
            return Err(refuse(name, &message));
        }
    }
    if num_sequences > 1 && best_of > 1 {
        return Err(refuse("best_of", "returns one answer, and `num_return_sequences` asks for several"));
    }
    let decoder_input_details = values.boolean("decoder_input_details")?.unwrap_or(false);
    if decoder_input_details && delivery == Delivery::Streamed {
        return Err(refuse("decoder_input_details", "cannot be streamed: no event tells of the prompt"));
    }
    let return_full_text = values.boolean("return_full_text")?.unwrap_or(false);
    // TGI's rule: the details that were asked for are shown.
    let details = values.boolean("details")?.unwrap_or(false) || decoder_input_details;
    Ok(Reply { num_sequences, best_of, return_full_text, details, decoder_input_details })
}
