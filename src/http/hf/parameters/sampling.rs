//! Parameters of the logits processors and of the sampler, with the ranges of each dialect.

use super::dialect::Dialect;
use super::values::Values;
use super::{refuse, shown};
use crate::chat::GenerationDefaults;
use crate::engine::Sampling;
use crate::error::Error;
use crate::http::parameters::random_seed;

/// Read only when sampling.
const WARPERS: [&str; 8] =
    ["temperature", "top_h", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"];

pub(super) fn resolve(
    values: &mut Values,
    dialect: &Dialect,
    defaults: &GenerationDefaults,
    eos: &[u32],
    warnings: &mut Vec<String>,
) -> Result<Sampling, Error> {
    let is_switched_on = dialect.sampling_switches.iter().any(|name| values.is_given(name));
    let do_sample = values.boolean("do_sample")?.or(defaults.do_sample).unwrap_or(false) || is_switched_on;
    if !do_sample {
        // Transformers' rule, and its warning.
        let idle = WARPERS.iter().filter(|name| values.is_given(name));
        warnings.extend(idle.map(|name| format!("{name} has no effect without do_sample")));
    }
    let seed = values.count("seed", "from 0", |_| true)?.map_or_else(random_seed, |seed| seed as u64);
    let mut sampling = Sampling { do_sample, seed, ..Sampling::greedy() };
    sampling.eos = eos.to_vec();
    processors(&mut sampling, values, defaults)?;
    warpers(&mut sampling, values, dialect, defaults)?;
    Ok(sampling)
}

fn processors(sampling: &mut Sampling, values: &mut Values, defaults: &GenerationDefaults) -> Result<(), Error> {
    let any = |_| true;
    sampling.sequence_bias = values.biases("sequence_bias")?.or(defaults.sequence_bias.clone()).unwrap_or_default();
    sampling.repetition_penalty = values
        .number("repetition_penalty", "above 0", |penalty| penalty > 0.0)?
        .or(defaults.repetition_penalty)
        .unwrap_or(1.0);
    let is_penalty = |penalty: f64| (-2.0..=2.0).contains(&penalty);
    sampling.frequency_penalty = values.number("frequency_penalty", "from -2 to 2", is_penalty)?.unwrap_or(0.0);
    sampling.presence_penalty = values.number("presence_penalty", "from -2 to 2", is_penalty)?.unwrap_or(0.0);
    sampling.no_repeat_ngram_size =
        values.count("no_repeat_ngram_size", "from 0", any)?.or(defaults.no_repeat_ngram_size).unwrap_or(0);
    sampling.bad_words =
        values.token_sequences("bad_words_ids")?.or(defaults.bad_words_ids.clone()).unwrap_or_default();
    // Transformers' rule: a stop token cannot be forbidden this way.
    sampling.bad_words.retain(|word| !matches!(word[..], [id] if sampling.eos.contains(&id)));
    sampling.min_length = values.count("min_length", "from 0", any)?.or(defaults.min_length).unwrap_or(0);
    sampling.min_new_tokens = values.count("min_new_tokens", "from 0", any)?.or(defaults.min_new_tokens).unwrap_or(0);
    sampling.forced_bos = match values.token_ids("forced_bos_token_id")?.as_deref() {
        None => defaults.forced_bos_token_id,
        Some([id]) => Some(*id),
        Some(_) => return Err(refuse("forced_bos_token_id", "must be one token id")),
    };
    let forced_eos = values.token_ids("forced_eos_token_id")?.unwrap_or_else(|| defaults.forced_eos_token_id.clone());
    // Where it is forced depends on the prompt's length, which is known later.
    sampling.forced_eos = (!forced_eos.is_empty()).then_some((0, forced_eos));
    sampling.remove_invalid_values =
        values.boolean("remove_invalid_values")?.or(defaults.remove_invalid_values).unwrap_or(false);
    sampling.exponential_decay_length_penalty = length_penalty(values)?.or(defaults.exponential_decay_length_penalty);
    let or_default =
        |given: Option<Vec<u32>>, default: &Option<Vec<u32>>| given.or(default.clone()).unwrap_or_default();
    sampling.suppress_tokens = or_default(values.token_ids("suppress_tokens")?, &defaults.suppress_tokens);
    sampling.begin_suppress_tokens =
        or_default(values.token_ids("begin_suppress_tokens")?, &defaults.begin_suppress_tokens);
    sampling.renormalize_logits =
        values.boolean("renormalize_logits")?.or(defaults.renormalize_logits).unwrap_or(false);
    Ok(())
}

fn warpers(
    sampling: &mut Sampling,
    values: &mut Values,
    dialect: &Dialect,
    defaults: &GenerationDefaults,
) -> Result<(), Error> {
    let is_share = |share: f64| (0.0..=1.0).contains(&share);
    let is_positive_share = |share: f64| share > 0.0 && share <= 1.0;
    let is_cutoff = |cutoff: f64| (0.0..1.0).contains(&cutoff);
    let Dialect { temperature, top_k, top_p, typical_p, .. } = dialect;
    let temperature = values.number("temperature", temperature.words, temperature.holds)?;
    if sampling.do_sample && temperature == Some(0.0) {
        return Err(refuse(
            "temperature",
            "must be above 0 when sampling; for the likeliest answer set `do_sample` to false",
        ));
    }
    sampling.temperature = temperature.filter(|t| *t > 0.0).or(defaults.temperature).unwrap_or(1.0);
    sampling.top_h = values.number("top_h", "above 0, at most 1", is_positive_share)?.or(defaults.top_h);
    sampling.top_k =
        values.count("top_k", top_k.words, top_k.holds)?.or(defaults.top_k).unwrap_or(dialect.default_top_k);
    sampling.top_p = values.number("top_p", top_p.words, top_p.holds)?.or(defaults.top_p).unwrap_or(1.0);
    sampling.min_p = values.number("min_p", "from 0 to 1", is_share)?.or(defaults.min_p).unwrap_or(0.0);
    sampling.typical_p =
        values.number("typical_p", typical_p.words, typical_p.holds)?.or(defaults.typical_p).unwrap_or(1.0);
    sampling.epsilon_cutoff =
        values.number("epsilon_cutoff", "from 0, below 1", is_cutoff)?.or(defaults.epsilon_cutoff).unwrap_or(0.0);
    sampling.eta_cutoff =
        values.number("eta_cutoff", "from 0, below 1", is_cutoff)?.or(defaults.eta_cutoff).unwrap_or(0.0);
    Ok(())
}

/// `[start, factor]`.
fn length_penalty(values: &mut Values) -> Result<Option<(usize, f64)>, Error> {
    const NAME: &str = "exponential_decay_length_penalty";
    let Some(value) = values.take(NAME) else { return Ok(None) };
    let pair = value.as_array().filter(|pair| pair.len() == 2);
    let start = pair.and_then(|pair| pair[0].as_u64()).and_then(|start| usize::try_from(start).ok());
    let factor = pair.and_then(|pair| pair[1].as_f64()).filter(|factor| *factor > 0.0);
    match (start, factor) {
        (Some(start), Some(factor)) => Ok(Some((start, factor))),
        _ => Err(refuse(
            NAME,
            &format!("must be [start, factor]: a whole number and a number above 0, not {}", shown(&value)),
        )),
    }
}
