//! How the next token is chosen, as plain data: Transformers' logits processors, in its terms and with its neutral values.

/// Settings of the logits processors and of the sampler. Every field has Transformers' meaning; a field at its neutral
/// value (see [`Sampling::greedy`]) leaves the scores as they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// False: argmax of the processed scores, and the warpers (`temperature` to `eta_cutoff`) are skipped.
    pub do_sample: bool,
    /// Seed of this request's own generator. Same seed, prompt and build give the same text, whatever shares the batch.
    pub seed: u64,

    // Processors, always applied, in this order.
    /// (token ids, bias): the bias is added to the last id where the ids before it end the sequence.
    pub sequence_bias: Vec<(Vec<u32>, f32)>,
    pub repetition_penalty: f32,
    /// OpenAI's: subtracted once per occurrence among the generated tokens.
    pub frequency_penalty: f32,
    /// OpenAI's: subtracted once from each token that was generated.
    pub presence_penalty: f32,
    pub no_repeat_ngram_size: usize,
    pub bad_words: Vec<Vec<u32>>,
    /// The tokens in `eos` are impossible while the sequence, prompt included, is shorter.
    pub min_length: usize,
    /// The tokens in `eos` are impossible before so many new ones.
    pub min_new_tokens: usize,
    /// The stop tokens that `min_length`, `min_new_tokens` and `exponential_decay_length_penalty` speak of.
    pub eos: Vec<u32>,
    /// Forced as the first new token of a prompt of one token (Transformers' rule).
    pub forced_bos: Option<u32>,
    /// Forced as the last token that `max_length` allows: (length of the sequence at which it is forced, ids).
    pub forced_eos: Option<(usize, Vec<u32>)>,
    pub remove_invalid_values: bool,
    /// (start among the new tokens, factor).
    pub exponential_decay_length_penalty: Option<(usize, f64)>,
    pub suppress_tokens: Vec<u32>,
    pub begin_suppress_tokens: Vec<u32>,

    // Warpers, applied when sampling, in this order.
    pub temperature: f32,
    /// Entropy budget, (0, 1].
    pub top_h: Option<f32>,
    /// 0: off.
    pub top_k: usize,
    /// 1: off.
    pub top_p: f32,
    /// 0: off.
    pub min_p: f32,
    /// 1: off.
    pub typical_p: f32,
    /// 0: off.
    pub epsilon_cutoff: f32,
    /// 0: off.
    pub eta_cutoff: f32,

    pub renormalize_logits: bool,
    /// So many most likely alternatives are reported with every token.
    pub top_logprobs: usize,
}

impl Sampling {
    /// The most likely token each time, nothing else.
    pub fn greedy() -> Sampling {
        Sampling {
            do_sample: false,
            seed: 0,
            sequence_bias: Vec::new(),
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            no_repeat_ngram_size: 0,
            bad_words: Vec::new(),
            min_length: 0,
            min_new_tokens: 0,
            eos: Vec::new(),
            forced_bos: None,
            forced_eos: None,
            remove_invalid_values: false,
            exponential_decay_length_penalty: None,
            suppress_tokens: Vec::new(),
            begin_suppress_tokens: Vec::new(),
            temperature: 1.0,
            top_h: None,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            epsilon_cutoff: 0.0,
            eta_cutoff: 0.0,
            renormalize_logits: false,
            top_logprobs: 0,
        }
    }

    /// Whether the processors look at the tokens before the one to choose.
    pub fn reads_history(&self) -> bool {
        self.repetition_penalty != 1.0
            || self.frequency_penalty != 0.0
            || self.presence_penalty != 0.0
            || self.no_repeat_ngram_size > 0
            || self.bad_words.iter().any(|words| words.len() > 1)
            || self.sequence_bias.iter().any(|(ids, _)| ids.len() > 1)
    }
}
