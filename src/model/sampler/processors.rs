//! Transformers' logits processors that look at what a request forbids and at its tokens so far: always applied, in
//! order.

use std::collections::{BTreeMap, HashMap};

use tch::{Kind, Tensor};

use crate::engine::{Sample, Sampling};

/// The most that the length penalty multiplies by. Beyond it the stop token is certain, and more would overflow.
const MAX_DECAY: f64 = 1e30;

/// `raw`, `[rows, vocab]` fp32, processed for each row's request; `raw` itself where there is nothing to do.
pub(super) fn apply(raw: &Tensor, requests: &[&Sample]) -> Tensor {
    if requests.iter().all(|request| is_neutral(&request.settings)) {
        return raw.shallow_clone();
    }
    let scores = raw.copy(); // [rows, vocab]
    for (row, request) in requests.iter().enumerate() {
        if !is_neutral(&request.settings) {
            Row { scores: scores.get(row as i64), request }.process();
        }
    }
    scores
}

/// Whether every processor leaves the scores as they are, at every length.
fn is_neutral(settings: &Sampling) -> bool {
    settings.sequence_bias.is_empty()
        && settings.repetition_penalty == 1.0
        && settings.frequency_penalty == 0.0
        && settings.presence_penalty == 0.0
        && settings.no_repeat_ngram_size == 0
        && settings.bad_words.is_empty()
        && settings.min_length == 0
        && settings.min_new_tokens == 0
        && settings.forced_bos.is_none()
        && settings.forced_eos.is_none()
        && !settings.remove_invalid_values
        && settings.exponential_decay_length_penalty.is_none()
        && settings.suppress_tokens.is_empty()
        && settings.begin_suppress_tokens.is_empty()
}

/// NaN becomes 0 and the infinities the largest numbers: Transformers' `InfNanRemoveLogitsProcessor`.
pub(super) fn without_invalid(scores: &Tensor) -> Tensor {
    scores.nan_to_num(0.0, f64::from(f32::MAX), f64::from(f32::MIN))
}

/// One row's scores, `[vocab]`, a view that is written to. Token ids outside the vocabulary are ignored throughout.
struct Row<'a> {
    scores: Tensor,
    request: &'a Sample,
}

impl Row<'_> {
    fn process(mut self) {
        self.bias_sequences();
        self.penalise_repetition();
        self.penalise_occurrences();
        self.forbid_repeated_ngrams();
        self.forbid_bad_words();
        self.forbid_early_end();
        self.force_first();
        self.force_last();
        if self.request.settings.remove_invalid_values {
            let valid = without_invalid(&self.scores);
            self.scores.copy_(&valid);
        }
        self.favour_end();
        self.suppress();
    }

    /// The tokens so far end with `prefix`.
    fn ends_with(&self, prefix: &[u32]) -> bool {
        self.request.history.ends_with(prefix)
    }

    fn len(&self) -> usize {
        self.request.num_prompt + self.request.num_generated
    }

    fn bias_sequences(&mut self) {
        // A sequence that is named twice has its last bias, as in Transformers' dictionary.
        let biases: HashMap<&[u32], f32> =
            self.request.settings.sequence_bias.iter().map(|(ids, bias)| (ids.as_slice(), *bias)).collect();
        let mut added = BTreeMap::new();
        for (ids, bias) in biases {
            if let Some((last, prefix)) = ids.split_last()
                && self.ends_with(prefix)
            {
                *added.entry(*last).or_insert(0.0) += bias;
            }
        }
        self.add(&added);
    }

    /// Once for each distinct token of prompt and answer: away from it, whatever the sign of its score.
    fn penalise_repetition(&mut self) {
        let penalty = f64::from(self.request.settings.repetition_penalty);
        if penalty == 1.0 {
            return;
        }
        let Some(ids) = self.upload(&self.request.history) else { return };
        let scores = self.scores.index_select(0, &ids);
        let penalised = (&scores * penalty).where_self(&scores.lt(0.0), &(&scores / penalty));
        // Repeated ids write the same value.
        let _ = self.scores.index_copy_(0, &ids, &penalised);
    }

    /// OpenAI's penalties, which count the generated tokens only.
    fn penalise_occurrences(&mut self) {
        let (frequency, presence) = (self.request.settings.frequency_penalty, self.request.settings.presence_penalty);
        if frequency == 0.0 && presence == 0.0 {
            return;
        }
        let generated = self.request.history.get(self.request.num_prompt..).unwrap_or_default();
        let mut counts: BTreeMap<u32, f32> = BTreeMap::new();
        generated.iter().for_each(|id| *counts.entry(*id).or_default() += 1.0);
        let penalties = counts.into_iter().map(|(id, count)| (id, -(frequency * count + presence))).collect();
        self.add(&penalties);
    }

    fn forbid_repeated_ngrams(&mut self) {
        let (size, history) = (self.request.settings.no_repeat_ngram_size, &self.request.history);
        if size == 0 || history.len() < size {
            return;
        }
        let prefix = &history[history.len() + 1 - size..];
        let seen = history.windows(size).filter(|window| window[..size - 1] == *prefix);
        let forbidden: Vec<u32> = seen.map(|window| window[size - 1]).collect();
        self.fill(&forbidden, f64::NEG_INFINITY);
    }

    fn forbid_bad_words(&mut self) {
        let mut forbidden = Vec::new();
        for words in &self.request.settings.bad_words {
            let Some((last, prefix)) = words.split_last() else { continue };
            // Transformers does not let the stop token be a bad word of its own.
            let is_end = prefix.is_empty() && self.request.settings.eos.contains(last);
            if !is_end && self.ends_with(prefix) {
                forbidden.push(*last);
            }
        }
        self.fill(&forbidden, f64::NEG_INFINITY);
    }

    fn forbid_early_end(&mut self) {
        let settings = &self.request.settings;
        if self.len() < settings.min_length || self.request.num_generated < settings.min_new_tokens {
            self.fill(&settings.eos, f64::NEG_INFINITY);
        }
    }

    fn force_first(&mut self) {
        if let (Some(id), 1) = (self.request.settings.forced_bos, self.len()) {
            self.force(&[id]);
        }
    }

    fn force_last(&mut self) {
        if let Some((len, ids)) = &self.request.settings.forced_eos
            && self.len() == *len
        {
            self.force(ids);
        }
    }

    fn force(&mut self, ids: &[u32]) {
        let _ = self.scores.fill_(f64::NEG_INFINITY);
        self.fill(ids, 0.0);
    }

    /// `score += |score| * (factor^n - 1)` for the stop tokens, n tokens after the start of the decay.
    fn favour_end(&mut self) {
        let Some((start, factor)) = self.request.settings.exponential_decay_length_penalty else { return };
        let num_tokens = self.request.num_generated.saturating_sub(start);
        let Some(ids) = self.upload(&self.request.settings.eos).filter(|_| num_tokens > 0) else { return };
        let factor = (factor.powf(num_tokens as f64) - 1.0).min(MAX_DECAY);
        let scores = self.scores.index_select(0, &ids);
        let favoured = &scores + scores.abs() * factor;
        let _ = self.scores.index_copy_(0, &ids, &favoured.where_self(&scores.isfinite(), &scores));
    }

    fn suppress(&mut self) {
        let settings = &self.request.settings;
        self.fill(&settings.suppress_tokens, f64::NEG_INFINITY);
        // A forced first token does not count as the beginning.
        let begins_at = usize::from(self.request.num_prompt <= 1 && settings.forced_bos.is_some());
        if self.request.num_generated == begins_at {
            self.fill(&settings.begin_suppress_tokens, f64::NEG_INFINITY);
        }
    }

    fn fill(&mut self, ids: &[u32], score: f64) {
        if let Some(ids) = self.upload(ids) {
            let _ = self.scores.index_fill_(0, &ids, score);
        }
    }

    fn add(&mut self, added: &BTreeMap<u32, f32>) {
        let num_scores = self.scores.size()[0];
        let (ids, values): (Vec<u32>, Vec<f32>) = added.iter().filter(|(id, _)| i64::from(**id) < num_scores).unzip();
        if let Some(ids) = self.upload(&ids) {
            let device = self.scores.device();
            let values = Tensor::from_slice(&values).to_device_(device, Kind::Float, true, false);
            let _ = self.scores.index_add_(0, &ids, &values);
        }
    }

    /// The ids that the vocabulary has, on the scores' device; `None` where there are none.
    fn upload(&self, ids: &[u32]) -> Option<Tensor> {
        let num_scores = self.scores.size()[0];
        let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).filter(|id| *id < num_scores).collect();
        // Not blocking: a plain upload would wait for the device.
        (!ids.is_empty()).then(|| Tensor::from_slice(&ids).to_device_(self.scores.device(), Kind::Int64, true, false))
    }
}
