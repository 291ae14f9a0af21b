//! The checkpoint's own generation settings: `generation_config.json`.

use serde::{Deserialize, Deserializer};

use crate::checkpoint::Checkpoint;

/// What `generation_config.json` says, in Transformers' names and meanings. `None`: it does not say.
///
/// `eos_token_id` is never empty. A checkpoint without the file (Qwen/Qwen3.5-4B has none) would in Transformers stop
/// only at config.json's `text_config.eos_token_id`, `<|endoftext|>`, and talk on past the end of its turn; here the
/// tokenizer's `eos_token`, `<|im_end|>`, stops it as well.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct GenerationDefaults {
    pub do_sample: Option<bool>,
    pub temperature: Option<f32>,
    pub top_h: Option<f32>,
    pub top_k: Option<usize>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub typical_p: Option<f32>,
    pub epsilon_cutoff: Option<f32>,
    pub eta_cutoff: Option<f32>,
    pub repetition_penalty: Option<f32>,
    pub no_repeat_ngram_size: Option<usize>,
    pub bad_words_ids: Option<Vec<Vec<u32>>>,
    pub sequence_bias: Option<Vec<(Vec<u32>, f32)>>,
    pub suppress_tokens: Option<Vec<u32>>,
    pub begin_suppress_tokens: Option<Vec<u32>>,
    pub forced_bos_token_id: Option<u32>,
    #[serde(deserialize_with = "some_or_many")]
    pub forced_eos_token_id: Vec<u32>,
    pub exponential_decay_length_penalty: Option<(usize, f64)>,
    pub renormalize_logits: Option<bool>,
    pub remove_invalid_values: Option<bool>,
    pub min_length: Option<usize>,
    pub min_new_tokens: Option<usize>,
    pub max_length: Option<usize>,
    pub max_new_tokens: Option<usize>,
    /// Seconds.
    pub max_time: Option<f64>,
    #[serde(deserialize_with = "some_or_many")]
    pub stop_strings: Vec<String>,
    #[serde(deserialize_with = "some_or_many")]
    pub eos_token_id: Vec<u32>,
    pub pad_token_id: Option<u32>,
}

impl GenerationDefaults {
    /// Reads `generation_config.json`, if there is one, and finds the stop tokens. `eos_token` is the tokenizer's.
    pub(super) fn load(checkpoint: &Checkpoint, eos_token: Option<u32>) -> Result<GenerationDefaults, String> {
        let file = checkpoint.json("generation_config.json")?.unwrap_or_else(|| serde_json::json!({}));
        let mut defaults: GenerationDefaults = serde_json::from_value(file)
            .map_err(|error| format!("{}: generation_config.json: {error}", checkpoint.name()))?;
        if defaults.eos_token_id.is_empty() {
            defaults.eos_token_id = configured_eos(checkpoint)?;
            defaults.eos_token_id.extend(eos_token);
            defaults.eos_token_id.dedup();
        }
        if defaults.eos_token_id.is_empty() {
            let name = checkpoint.name();
            return Err(format!(
                "{name}: no file names an eos token (generation_config.json: eos_token_id), so nothing would end an answer"
            ));
        }
        Ok(defaults)
    }
}

/// The stop tokens of config.json.
fn configured_eos(checkpoint: &Checkpoint) -> Result<Vec<u32>, String> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Config {
        #[serde(deserialize_with = "some_or_many")]
        eos_token_id: Vec<u32>,
        text_config: TextConfig,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct TextConfig {
        #[serde(deserialize_with = "some_or_many")]
        eos_token_id: Vec<u32>,
    }
    let Some(config) = checkpoint.json("config.json")? else { return Ok(Vec::new()) };
    let config: Config =
        serde_json::from_value(config).map_err(|error| format!("{}: config.json: {error}", checkpoint.name()))?;
    let text = config.text_config.eos_token_id;
    Ok(if text.is_empty() { config.eos_token_id } else { text })
}

/// Nothing, one value or a list of them.
fn some_or_many<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Some<T> {
        One(T),
        Many(Vec<T>),
    }
    Ok(match Option::<Some<T>>::deserialize(deserializer)? {
        None => Vec::new(),
        Option::Some(Some::One(value)) => vec![value],
        Option::Some(Some::Many(values)) => values,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::GenerationDefaults;
    use crate::checkpoint::Checkpoint;

    fn load(files: &[(&str, &str)], eos_token: Option<u32>) -> Result<GenerationDefaults, String> {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in files {
            fs::write(folder.path().join(file), text).unwrap();
        }
        GenerationDefaults::load(&Checkpoint::Folder(folder.path().to_owned()), eos_token)
    }

    #[test]
    fn the_file_is_read_and_unknown_keys_are_ignored() {
        let text =
            r#"{"eos_token_id": [7, 8], "temperature": 1, "top_k": 20, "top_p": null, "transformers_version": "5"}"#;
        let defaults = load(&[("generation_config.json", text)], Some(9)).unwrap();
        assert_eq!((defaults.temperature, defaults.top_k, defaults.top_p), (Some(1.0), Some(20), None));
        assert_eq!(defaults.eos_token_id, [7, 8]);
        assert_eq!(load(&[("generation_config.json", r#"{"eos_token_id": 7}"#)], None).unwrap().eos_token_id, [7]);
    }

    #[test]
    fn without_the_file_both_the_models_and_the_tokenizers_end_stop_an_answer() {
        let config = ("config.json", r#"{"text_config": {"eos_token_id": 44, "rope": {}}}"#);
        assert_eq!(load(&[config], Some(46)).unwrap().eos_token_id, [44, 46]);
        assert_eq!(load(&[config], Some(44)).unwrap().eos_token_id, [44]);
    }

    #[test]
    fn a_checkpoint_that_nothing_would_stop_is_refused() {
        assert!(load(&[], None).unwrap_err().contains("eos_token_id"));
    }

    #[test]
    fn a_value_of_the_wrong_type_names_the_file() {
        let error = load(&[("generation_config.json", r#"{"top_k": "many"}"#)], Some(1)).unwrap_err();
        assert!(error.contains("generation_config.json"), "{error}");
    }
}
