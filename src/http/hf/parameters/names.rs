//! Parameters by name: other spellings, those that are known but not supported, and the nearest to a mistyped one.

use serde_json::{Map, Value};

use super::{kind, refuse, shown};
use crate::error::Error;

/// Objects among the parameters that hold parameters themselves: the pipeline's, and the one that became it.
const NESTED: [&str; 3] = ["parameters", "generate_kwargs", "generation_parameters"];

/// (other spelling, name).
const ALIASES: [(&str, &str); 5] = [
    ("max_tokens", "max_new_tokens"),
    ("max_completion_tokens", "max_new_tokens"),
    ("stop", "stop_strings"),
    ("stop_sequence", "stop_strings"),
    ("stop_sequences", "stop_strings"),
];

/// Parameters of Transformers, its pipelines and TGI that are not supported, with the values (false is 0, true is 1) at
/// which they ask for nothing.
const UNSUPPORTED: [(&str, &[f64]); 45] = [
    ("adapter_id", &[]),
    ("assistant_confidence_threshold", &[]),
    ("assistant_early_exit", &[]),
    ("assistant_model", &[]),
    ("cache_config", &[]),
    ("cache_implementation", &[]),
    ("clean_up_tokenization_spaces", &[0.0]),
    ("compile_config", &[]),
    ("constraints", &[]),
    ("custom_generate", &[]),
    ("decoder_start_token_id", &[]),
    ("disable_compile", &[0.0, 1.0]),
    ("diversity_penalty", &[0.0]),
    ("dola_layers", &[]),
    ("early_stopping", &[0.0]),
    ("encoder_no_repeat_ngram_size", &[0.0]),
    ("encoder_repetition_penalty", &[1.0]),
    ("force_words_ids", &[]),
    ("grammar", &[]),
    ("guidance_scale", &[1.0]),
    ("is_assistant", &[0.0]),
    ("length_penalty", &[1.0]),
    ("low_memory", &[0.0]),
    ("max_matching_ngram_size", &[]),
    ("num_assistant_tokens", &[]),
    ("num_beam_groups", &[1.0]),
    ("num_beams", &[1.0]),
    ("output_attentions", &[0.0]),
    ("output_hidden_states", &[0.0]),
    ("output_logits", &[0.0]),
    ("output_scores", &[0.0]),
    ("penalty_alpha", &[0.0]),
    ("prefill_chunk_size", &[]),
    ("prompt_lookup_num_tokens", &[]),
    ("return_dict_in_generate", &[0.0]),
    ("return_legacy_cache", &[0.0]),
    ("return_tensors", &[0.0]),
    ("return_text", &[1.0]),
    ("target_lookbehind", &[]),
    ("timeout", &[]),
    ("token_healing", &[0.0]),
    ("tool_choice", &[]),
    ("use_cache", &[1.0]),
    ("use_mtp", &[0.0]),
    ("watermark", &[0.0]),
];

/// `given` added to `parameters`, under the names used here and without what is null. Errors where one parameter is given
/// two values.
pub(in crate::http) fn merge(
    mut parameters: Map<String, Value>,
    given: Map<String, Value>,
) -> Result<Map<String, Value>, Error> {
    for (key, value) in given {
        let value = match value {
            Value::Null => continue,
            Value::Object(nested) if NESTED.contains(&key.as_str()) => {
                parameters = merge(parameters, nested)?;
                continue;
            }
            other if NESTED.contains(&key.as_str()) => {
                return Err(refuse(&key, &format!("must be an object, not {}", kind(&other))));
            }
            other => other,
        };
        let name = ALIASES.iter().find(|(alias, _)| *alias == key).map_or(key.as_str(), |(_, name)| name);
        match parameters.get(name) {
            Some(present) if *present != value => {
                let spelling = if name == key { String::new() } else { format!(" (as `{key}`)") };
                return Err(refuse(
                    name,
                    &format!("is given twice{spelling}, as {} and as {}", shown(present), shown(&value)),
                ));
            }
            _ => parameters.insert(name.to_owned(), value),
        };
    }
    Ok(parameters)
}

/// The names of parameters that are known though not supported.
pub(super) fn unsupported() -> impl Iterator<Item = &'static str> {
    UNSUPPORTED.iter().map(|(name, _)| *name)
}

/// Whether `name` is known though not supported: `Some(true)` where `value` asks for nothing.
pub(super) fn is_neutral(name: &str, value: &Value) -> Option<bool> {
    let (_, neutral) = UNSUPPORTED.iter().find(|(unsupported, _)| *unsupported == name)?;
    let value = value.as_f64().or_else(|| value.as_bool().map(f64::from));
    Some(value.is_some_and(|value| neutral.contains(&value)))
}

/// The name among `known` that was probably meant.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let close_enough = 1 + name.len() / 4;
    let with_distance = known.iter().map(|known| (edit_distance(name, known), *known));
    with_distance.min().filter(|(distance, _)| *distance <= close_enough).map(|(_, known)| known)
}

/// Levenshtein's: insertions, deletions and replacements of bytes.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Other spellings of parameters.
#[cfg(test)]
pub(super) fn aliases() -> impl Iterator<Item = &'static str> {
    ALIASES.iter().map(|(alias, _)| *alias)
}

/// Objects that hold parameters.
#[cfg(test)]
pub(super) fn nested() -> impl Iterator<Item = &'static str> {
    NESTED.into_iter()
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::{edit_distance, is_neutral, merge, nearest};

    fn merged(places: &[Value]) -> Result<Value, String> {
        let mut parameters = Map::new();
        for place in places {
            parameters = merge(parameters, place.as_object().unwrap().clone()).map_err(|error| error.to_string())?;
        }
        Ok(Value::Object(parameters))
    }

    #[test]
    fn parameters_of_all_places_come_together() {
        let places = [json!({"top_k": 5, "seed": null}), json!({"generate_kwargs": {"top_p": 0.5, "top_k": 5}})];
        assert_eq!(merged(&places), Ok(json!({"top_k": 5, "top_p": 0.5})));
    }

    #[test]
    fn two_values_for_one_parameter_are_refused_under_any_spelling() {
        let refused = merged(&[json!({"max_new_tokens": 5}), json!({"max_tokens": 6})]).unwrap_err();
        assert_eq!(refused, "`max_new_tokens` is given twice (as `max_tokens`), as 5 and as 6");
    }

    #[test]
    fn what_is_not_supported_is_accepted_only_where_it_asks_for_nothing() {
        assert_eq!(is_neutral("num_beams", &json!(1)), Some(true));
        assert_eq!(is_neutral("num_beams", &json!(4)), Some(false));
        assert_eq!(is_neutral("watermark", &json!(false)), Some(true));
        assert_eq!(is_neutral("adapter_id", &json!("x")), Some(false));
        assert_eq!(is_neutral("temprature", &json!(1)), None);
    }

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(nearest("temprature", &["top_k", "temperature"]), Some("temperature"));
        assert_eq!(nearest("colour", &["top_k", "temperature"]), None);
    }
}
