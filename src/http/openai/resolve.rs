//! The fields that say how to continue a prompt, checked and with every default resolved by vLLM's rule.

use std::time::Duration;

use serde_json::{Map, Value};

use super::logprobs::Names;
use super::request::{GenerationFields, OneOrMany};
use crate::chat::GenerationDefaults;
use crate::engine::Sampling;
use crate::error::Error;
use crate::generation::{Length, MaxLength, Service, Stop};
use crate::http::json::{refuse, shown};
use crate::http::parameters::{self, random_seed, too_many_answers};

/// Alternatives to a token that may be asked for.
pub(super) const MAX_TOP_LOGPROBS: u32 = 20;

/// Texts in `stop` and in `bad_words`, and bytes of one of them: every token's text is compared with them all.
const MAX_TEXTS: usize = 64;
const MAX_TEXT_LEN: usize = 1000;

/// Entries of `logit_bias`: OpenAI's own limit is 300, vLLM has none.
const MAX_BIASES: usize = 10_000;

/// How to continue a prompt.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    pub(super) sampling: Sampling,
    pub(super) length: Length,
    pub(super) stop: Stop,
    pub(super) skip_special_tokens: bool,
    pub(super) prompt_logprobs: Option<usize>,
    /// What tokens are called in log-probabilities.
    pub(super) names: Names,
    /// The reply shows the ids of tokens.
    pub(super) token_ids: bool,
    /// Answers to each prompt.
    pub(super) n: usize,
}

/// Resolves `fields`; `default_max` is the length where they name none.
pub(super) fn resolve(
    fields: &GenerationFields,
    max_tokens: Option<u32>,
    default_max: MaxLength,
    service: &Service,
) -> Result<Resolved, Error> {
    refuse_unsupported(fields)?;
    let defaults = service.defaults();
    let stop = stop(fields, defaults, service.vocab_size())?;
    let mut sampling = sampling(fields, defaults)?;
    sampling.eos.clone_from(&stop.eos);
    sampling.min_new_tokens = fields.min_tokens.unwrap_or(0) as usize;
    sampling.sequence_bias = match &fields.logit_bias {
        Some(biases) => logit_bias(biases, service.vocab_size())?,
        None => Vec::new(),
    };
    sampling.bad_words = bad_words(fields.bad_words.as_deref().unwrap_or_default(), service)?;
    if let Some((min, max)) = fields.min_tokens.zip(max_tokens).filter(|(min, max)| min > max) {
        return Err(refuse("min_tokens", &format!("is {min}, more than the {max} tokens that the answer may have")));
    }
    let max = match max_tokens {
        Some(tokens) => MaxLength::New(tokens as usize),
        None => defaults.max_new_tokens.map_or(default_max, MaxLength::NewAtMost),
    };
    let n = in_range("n", fields.n, |n| n > 0, "above 0")?.unwrap_or(1) as usize;
    let truncate = in_range("truncate_prompt_tokens", fields.truncate_prompt_tokens, |n| n > 0, "above 0")?;
    let prompt_logprobs = in_range("prompt_logprobs", fields.prompt_logprobs, |n| n <= MAX_TOP_LOGPROBS, "up to 20")?;
    Ok(Resolved {
        sampling,
        length: Length { max, max_time: max_time(fields.max_time)?, truncate: truncate.map(|n| n as usize) },
        stop,
        skip_special_tokens: fields.skip_special_tokens.unwrap_or(true),
        prompt_logprobs: prompt_logprobs.map(|n| n as usize),
        names: Names::read(fields),
        token_ids: fields.return_token_ids.unwrap_or(false),
        n,
    })
}

/// What is known and cannot be done; an answer that silently lacked it would be wrong.
fn refuse_unsupported(fields: &GenerationFields) -> Result<(), Error> {
    if fields.use_beam_search == Some(true) {
        return Err(refuse("use_beam_search", "is not supported by this server"));
    }
    match &fields.response_format {
        Some(format) if format["type"] != "text" => Err(refuse(
            "response_format",
            "is not supported by this server but for {\"type\": \"text\"}: ask for JSON in the prompt",
        )),
        _ => Ok(()),
    }
}

/// The request, else generation_config.json, else vLLM's own. A checkpoint that says `do_sample: false` and no temperature
/// is greedy, which vLLM overlooks.
fn sampling(fields: &GenerationFields, defaults: &GenerationDefaults) -> Result<Sampling, Error> {
    let is_greedy_by_default = defaults.do_sample == Some(false) && defaults.temperature.is_none();
    let default_temperature = if is_greedy_by_default { 0.0 } else { defaults.temperature.unwrap_or(1.0) };
    let temperature = in_range("temperature", fields.temperature, |t| (0.0..=2.0).contains(&t), "from 0 to 2")?;
    let temperature = temperature.unwrap_or(default_temperature);
    let top_k = match fields.top_k {
        None => defaults.top_k.unwrap_or(0),
        Some(-1 | 0) => 0,
        Some(k) => usize::try_from(k).map_err(|_| refuse("top_k", &format!("must be -1 or more, not {k}")))?,
    };
    let is_penalty = |penalty| (-2.0..=2.0).contains(&penalty);
    let frequency_penalty = in_range("frequency_penalty", fields.frequency_penalty, is_penalty, "from -2 to 2")?;
    let presence_penalty = in_range("presence_penalty", fields.presence_penalty, is_penalty, "from -2 to 2")?;
    let top_p = in_range("top_p", fields.top_p, |p| p > 0.0 && p <= 1.0, "above 0 and up to 1")?;
    let min_p = in_range("min_p", fields.min_p, |p| (0.0..=1.0).contains(&p), "from 0 to 1")?;
    let repetition_penalty = in_range("repetition_penalty", fields.repetition_penalty, |p| p > 0.0, "above 0")?;
    Ok(Sampling {
        do_sample: temperature > 0.0,
        seed: fields.seed.map_or_else(random_seed, |seed| seed as u64),
        temperature: if temperature > 0.0 { temperature } else { 1.0 },
        top_k,
        top_p: top_p.or(defaults.top_p).unwrap_or(1.0),
        min_p: min_p.or(defaults.min_p).unwrap_or(0.0),
        repetition_penalty: repetition_penalty.or(defaults.repetition_penalty).unwrap_or(1.0),
        frequency_penalty: frequency_penalty.unwrap_or(0.0),
        presence_penalty: presence_penalty.unwrap_or(0.0),
        ..Sampling::greedy()
    })
}

fn stop(fields: &GenerationFields, defaults: &GenerationDefaults, vocab_size: usize) -> Result<Stop, Error> {
    let mut eos = if fields.ignore_eos == Some(true) { Vec::new() } else { defaults.eos_token_id.clone() };
    let ids = fields.stop_token_ids.as_deref().unwrap_or_default();
    if let Some(id) = ids.iter().find(|id| **id as usize >= vocab_size) {
        return Err(refuse("stop_token_ids", &format!("has {id}; there are token ids from 0 to {}", vocab_size - 1)));
    }
    eos.extend(ids);
    let strings = match fields.stop.clone() {
        None => Vec::new(),
        Some(OneOrMany::One(text)) => vec![text],
        Some(OneOrMany::Many(texts)) => texts,
    };
    check_texts("stop", &strings)?;
    Ok(Stop { eos, strings, keep_string: fields.include_stop_str_in_output.unwrap_or(false) })
}

fn check_texts(name: &str, texts: &[String]) -> Result<(), Error> {
    if texts.len() > MAX_TEXTS {
        return Err(refuse(name, &format!("has {} texts, more than {MAX_TEXTS}", texts.len())));
    }
    match texts.iter().find(|text| text.is_empty() || text.len() > MAX_TEXT_LEN) {
        Some(text) => {
            Err(refuse(name, &format!("has a text of {} bytes; allowed are 1 to {MAX_TEXT_LEN}", text.len())))
        }
        None => Ok(()),
    }
}

fn logit_bias(biases: &Map<String, Value>, vocab_size: usize) -> Result<Vec<(Vec<u32>, f32)>, Error> {
    if biases.len() > MAX_BIASES {
        return Err(refuse("logit_bias", &format!("has {} entries, more than {MAX_BIASES}", biases.len())));
    }
    let bias = |(id, bias): (&String, &Value)| {
        let id = id.parse::<u32>().ok().filter(|id| (*id as usize) < vocab_size).ok_or_else(|| {
            refuse("logit_bias", &format!("has the key {id:?}; keys are token ids from 0 to {}", vocab_size - 1))
        })?;
        let bias = bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias)).ok_or_else(|| {
            refuse("logit_bias", &format!("gives token {id} {}; allowed are numbers from -100 to 100", shown(bias)))
        })?;
        Ok((vec![id], bias as f32))
    };
    biases.iter().map(bias).collect()
}

/// The token sequences of words that must not appear, at the start of a text and within it (vLLM's rule).
fn bad_words(words: &[String], service: &Service) -> Result<Vec<Vec<u32>>, Error> {
    check_texts("bad_words", words)?;
    let mut sequences = Vec::new();
    for word in words {
        for text in [word.trim_start().to_owned(), format!(" {}", word.trim_start())] {
            let ids = service.encode(&text)?;
            if !ids.is_empty() && !sequences.contains(&ids) {
                sequences.push(ids);
            }
        }
    }
    Ok(sequences)
}

fn max_time(seconds: Option<f64>) -> Result<Option<Duration>, Error> {
    let seconds = in_range("max_time", seconds, |seconds| seconds > 0.0, "of seconds above 0")?;
    Ok(seconds.and_then(parameters::max_time))
}

/// Refuses more answers to one request than the server gives.
pub(super) fn check_answers(count: usize, limit: usize) -> Result<(), Error> {
    too_many_answers(count, limit).map_or(Ok(()), |message| Err(Error::invalid_param("n", message)))
}

/// `value` where it is `valid`; `range` says in words which are.
pub(super) fn in_range<T: Copy + std::fmt::Display>(
    name: &str,
    value: Option<T>,
    valid: impl FnOnce(T) -> bool,
    range: &str,
) -> Result<Option<T>, Error> {
    match value {
        Some(value) if !valid(value) => Err(refuse(name, &format!("must be a number {range}, not {value}"))),
        value => Ok(value),
    }
}
