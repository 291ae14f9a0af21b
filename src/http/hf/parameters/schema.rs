//! The parameters as the document describes them. A test holds the names to those that are read.

use utoipa::openapi::schema::Object;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::names::unsupported;
use crate::http::schema::{OneOrMany, Others, joined};

/// Parameters with the toolkit's ranges.
pub(in crate::http) struct ToolkitParameters;

/// Parameters with TGI's ranges.
pub(in crate::http) struct TgiParameters;

impl ToolkitParameters {
    /// The fields, for an object that has others beside them.
    pub(in crate::http) fn fields() -> [RefOr<Schema>; 2] {
        [Shared::schema(), Transformers::schema()]
    }
}

impl PartialSchema for ToolkitParameters {
    fn schema() -> RefOr<Schema> {
        described(joined(ToolkitParameters::fields(), Others::Refused))
    }
}

impl PartialSchema for TgiParameters {
    fn schema() -> RefOr<Schema> {
        described(joined([Shared::schema(), Tgi::schema()], Others::Refused))
    }
}

impl ToSchema for ToolkitParameters {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Shared::schemas(schemas);
        Transformers::schemas(schemas);
    }
}

impl ToSchema for TgiParameters {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Shared::schemas(schemas);
        Tgi::schemas(schemas);
    }
}

fn described(mut object: Object) -> RefOr<Schema> {
    let unsupported: Vec<&str> = unsupported().collect();
    object.description = Some(format!(
        "How to answer. Null is as good as absent; what is not listed is refused by name. Known, and accepted only with the \
         value that asks for nothing: {}.",
        unsupported.join(", ")
    ));
    RefOr::T(Schema::Object(object))
}

/// What both contracts read alike.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what is read by hand")]
struct Shared {
    /// Draw each token instead of taking the likeliest.
    do_sample: Option<bool>,
    /// Same seed, input and build give the same text, whatever shares the batch. A random one is reported in the details.
    seed: Option<u64>,
    /// Longest answer, in tokens.
    #[schema(minimum = 1)]
    max_new_tokens: Option<u32>,
    /// Another name of `max_new_tokens`, as is `max_completion_tokens`.
    #[schema(minimum = 1)]
    max_tokens: Option<u32>,
    #[schema(minimum = 1)]
    max_completion_tokens: Option<u32>,
    /// Longest sequence, prompt included.
    #[schema(minimum = 1)]
    max_length: Option<u32>,
    /// Seconds. The text so far is the answer once they are over.
    #[schema(exclusive_minimum = 0.0)]
    max_time: Option<f64>,
    /// The end is impossible while the sequence, prompt included, is shorter.
    #[schema(minimum = 0)]
    min_length: Option<u32>,
    /// The end is impossible before so many new tokens.
    #[schema(minimum = 0)]
    min_new_tokens: Option<u32>,
    /// The prompt is cut to its last tokens, as many as this.
    #[schema(minimum = 1)]
    truncate: Option<u32>,
    /// Entropy budget.
    #[schema(exclusive_minimum = 0.0, maximum = 1.0)]
    top_h: Option<f32>,
    #[schema(minimum = 0.0, maximum = 1.0)]
    min_p: Option<f32>,
    #[schema(minimum = 0.0, exclusive_maximum = 1.0)]
    epsilon_cutoff: Option<f32>,
    #[schema(minimum = 0.0, exclusive_maximum = 1.0)]
    eta_cutoff: Option<f32>,
    #[schema(exclusive_minimum = 0.0)]
    repetition_penalty: Option<f32>,
    #[schema(minimum = -2.0, maximum = 2.0)]
    frequency_penalty: Option<f32>,
    #[schema(minimum = -2.0, maximum = 2.0)]
    presence_penalty: Option<f32>,
    #[schema(minimum = 0)]
    no_repeat_ngram_size: Option<u32>,
    /// Sequences of token ids that never appear.
    bad_words_ids: Option<Vec<Vec<u32>>>,
    /// Pairs of a sequence of token ids and the number to add to the score of its last.
    sequence_bias: Option<Vec<Vec<serde_json::Value>>>,
    suppress_tokens: Option<OneOrMany<u32>>,
    begin_suppress_tokens: Option<OneOrMany<u32>>,
    forced_bos_token_id: Option<OneOrMany<u32>>,
    forced_eos_token_id: Option<OneOrMany<u32>>,
    /// Tokens that end the answer, in the place of the checkpoint's.
    eos_token_id: Option<OneOrMany<u32>>,
    /// Without effect: nothing is ever padded.
    pad_token_id: Option<OneOrMany<u32>>,
    /// From which new token on, and the factor.
    #[schema(min_items = 2, max_items = 2)]
    exponential_decay_length_penalty: Option<Vec<f64>>,
    remove_invalid_values: Option<bool>,
    renormalize_logits: Option<bool>,
    /// Answers to the same question, which differ in their seed.
    #[schema(minimum = 1)]
    num_return_sequences: Option<u32>,
    /// Answers of which the likeliest is returned.
    #[schema(minimum = 1)]
    best_of: Option<u32>,
    /// Put what was asked before the answer.
    return_full_text: Option<bool>,
    /// Tell how the answer came about.
    details: Option<bool>,
    /// Tell the prompt's tokens in the details.
    decoder_input_details: Option<bool>,
    /// So many alternatives to each token in the details, or in the events of a stream.
    #[schema(minimum = 0, maximum = 20)]
    top_n_tokens: Option<u32>,
    /// Leave `<|im_end|>` and its like out of the text. Default: true.
    skip_special_tokens: Option<bool>,
    /// Whether a text is the prompt itself, to which no chat template is applied.
    raw_prompt: Option<bool>,
    /// Functions that the chat template tells the model of.
    #[schema(value_type = Option<Vec<Object>>)]
    tools: Option<Vec<serde_json::Value>>,
    /// Variables for the chat template.
    #[schema(value_type = Option<Object>)]
    chat_template_kwargs: Option<serde_json::Value>,
    /// Bounds on the area of each resized picture or frame that has none of its own, in pixels.
    #[schema(minimum = 1)]
    min_pixels: Option<u64>,
    #[schema(minimum = 1)]
    max_pixels: Option<u64>,
    /// How pictures and videos are read: `min_pixels`, `max_pixels`, and for videos `fps`, `num_frames`, `video_start`,
    /// `video_end`, `total_pixels`. A part's own come first.
    #[schema(value_type = Option<Object>)]
    mm_processor_kwargs: Option<serde_json::Value>,
    /// The template's variable of this name: whether the model thinks before it answers.
    enable_thinking: Option<bool>,
    /// The template's variable of this name: whether pictures are numbered.
    add_vision_id: Option<bool>,
    /// False: the prompt ends after the last message.
    add_generation_prompt: Option<bool>,
    /// The last message, the assistant's, is continued. Default: true where it is the last.
    continue_final_message: Option<bool>,
    /// Parameters, as if they stood beside it.
    #[schema(value_type = Option<Object>)]
    generate_kwargs: Option<serde_json::Value>,
    /// Parameters, as if they stood beside it.
    #[schema(value_type = Option<Object>)]
    generation_parameters: Option<serde_json::Value>,
}

/// What the toolkit reads as Transformers does.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what is read by hand")]
struct Transformers {
    /// Read only when sampling, as are `top_k`, `top_p` and `typical_p`.
    #[schema(minimum = 0.0)]
    temperature: Option<f32>,
    /// 0: off. Default: 50.
    #[schema(minimum = 0)]
    top_k: Option<u32>,
    #[schema(minimum = 0.0, maximum = 1.0)]
    top_p: Option<f32>,
    #[schema(exclusive_minimum = 0.0, maximum = 1.0)]
    typical_p: Option<f32>,
    /// Texts that end the answer and stay in it: at most 64. Also known as `stop`, `stop_sequence` and `stop_sequences`.
    stop_strings: Option<OneOrMany<String>>,
    stop: Option<OneOrMany<String>>,
    stop_sequence: Option<OneOrMany<String>>,
    stop_sequences: Option<OneOrMany<String>>,
}

/// What TGI reads otherwise.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what is read by hand")]
struct Tgi {
    /// Switches sampling on, as do `top_k`, `top_p` and `typical_p`.
    #[schema(exclusive_minimum = 0.0)]
    temperature: Option<f32>,
    /// Default: all tokens.
    #[schema(minimum = 1)]
    top_k: Option<u32>,
    #[schema(exclusive_minimum = 0.0, exclusive_maximum = 1.0)]
    top_p: Option<f32>,
    #[schema(exclusive_minimum = 0.0, exclusive_maximum = 1.0)]
    typical_p: Option<f32>,
    /// Texts that end the answer and stay in it: at most 4. Also known as `stop_strings`, `stop_sequence` and `stop_sequences`.
    stop: Option<OneOrMany<String>>,
    stop_strings: Option<OneOrMany<String>>,
    stop_sequence: Option<OneOrMany<String>>,
    stop_sequences: Option<OneOrMany<String>>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Map;
    use utoipa::PartialSchema;
    use utoipa::openapi::{RefOr, Schema};

    use super::super::names::{aliases, nested};
    use super::super::{Delivery, Reading, TGI, TRANSFORMERS, known_names};
    use super::{TgiParameters, ToolkitParameters};
    use crate::chat::GenerationDefaults;

    fn documented<T: PartialSchema>() -> BTreeSet<String> {
        let RefOr::T(Schema::Object(object)) = T::schema() else { panic!("parameters are an object") };
        object.properties.into_keys().collect()
    }

    #[test]
    fn the_documented_parameters_are_those_that_are_read() {
        let defaults = GenerationDefaults::default();
        for (dialect, documented) in
            [(&TRANSFORMERS, documented::<ToolkitParameters>()), (&TGI, documented::<TgiParameters>())]
        {
            let reading = Reading { dialect, defaults: &defaults, vocab_size: 10, delivery: Delivery::Whole };
            let read = known_names(Map::new(), reading).unwrap();
            let read = read.into_iter().chain(aliases()).chain(nested().filter(|name| *name != "parameters"));
            assert_eq!(documented, read.map(str::to_owned).collect::<BTreeSet<_>>());
        }
    }
}
