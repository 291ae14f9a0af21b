//! The `parameters` of a request: from every place they may stand in, with every default resolved.

mod length;
mod names;
mod sampling;
mod template;
mod values;

use serde_json::{Map, Value};

use crate::chat::GenerationDefaults;
use crate::engine::Sampling;
use crate::error::Error;
use crate::generation::{Length, Stop};
use crate::http::json::{kind, refuse, shown};
pub(super) use names::merge;
pub(super) use template::Template;
use values::Values;

/// Alternatives that may be asked for at each token.
const MAX_TOP_TOKENS: usize = 20;

/// What the parameters say.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parameters {
    pub(super) sampling: Sampling,
    pub(super) length: Length,
    pub(super) stop: Stop,
    pub(super) skip_special_tokens: bool,
    pub(super) template: Template,
    pub(super) reply: Reply,
    /// What was understood and has no effect, for the client to read.
    pub(super) warnings: Vec<String>,
}

/// What the reply is made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reply {
    /// Answers to the same question.
    pub(super) num_sequences: usize,
    /// Answers of which the likeliest is returned.
    pub(super) best_of: usize,
    pub(super) return_full_text: bool,
    pub(super) details: bool,
}

/// Resolves what a request gave: request, then the checkpoint's generation_config.json, then Transformers' own defaults.
/// `vocab_size` bounds the token ids that it may name.
///
/// Everything that was given is used, or refused by name.
pub(super) fn resolve(
    given: Map<String, Value>,
    defaults: &GenerationDefaults,
    vocab_size: usize,
) -> Result<Parameters, Error> {
    let mut values = Values::new(given, vocab_size);
    let mut warnings = Vec::new();
    let stop = stop(&mut values, defaults)?;
    let length = length::resolve(&mut values, defaults, &mut warnings)?;
    let mut sampling = sampling::resolve(&mut values, defaults, &stop.eos, &mut warnings)?;
    let reply = reply(&mut values, &sampling)?;
    sampling.top_logprobs = values.count("top_n_tokens", "from 0 to 20", |n| n <= MAX_TOP_TOKENS)?.unwrap_or(0);
    if sampling.top_logprobs > 0 && !reply.details {
        return Err(refuse("top_n_tokens", "is part of the details: set `details` to true as well"));
    }
    let skip_special_tokens = values.boolean("skip_special_tokens")?.unwrap_or(true);
    // Nothing is ever padded here: accepted because generation configs carry it.
    values.token_ids("pad_token_id")?;
    let template = template::resolve(&mut values)?;
    values.refuse_rest()?;
    Ok(Parameters { sampling, length, stop, skip_special_tokens, template, reply, warnings })
}

fn stop(values: &mut Values, defaults: &GenerationDefaults) -> Result<Stop, Error> {
    let strings = values.texts("stop_strings")?.unwrap_or_else(|| defaults.stop_strings.clone());
    let eos = values.token_ids("eos_token_id")?.unwrap_or_else(|| defaults.eos_token_id.clone());
    // Transformers leaves the text that ended the answer in it.
    Ok(Stop { eos, strings, keep_string: true })
}

fn reply(values: &mut Values, sampling: &Sampling) -> Result<Reply, Error> {
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
    if values.boolean("decoder_input_details")?.unwrap_or(false) {
        return Err(refuse(
            "decoder_input_details",
            "is not supported by this server: it keeps no scores of the prompt",
        ));
    }
    let return_full_text = values.boolean("return_full_text")?.unwrap_or(false);
    let details = values.boolean("details")?.unwrap_or(false);
    Ok(Reply { num_sequences, best_of, return_full_text, details })
}
