//! The model behind the engine's seam: a step of plain data in, tokens out.

use std::sync::Arc;
use std::time::Instant;

use tch::{Device, Kind, Tensor};

use super::cache::Slots;
use super::company::Company;
use super::config::Config;
use super::decoder::Decoder;
use super::kernels;
use super::packing::{Asked, Packed, Span, pack};
use super::sampler::{NOT_FINITE, sample, score};
use super::sight::Sight;
use super::threads;
use crate::checkpoint::Bytes;
use crate::engine::{Held, ModelRunner, Outcome, Outputs, Picture, PictureRows, Row, Sample, Sampled, Seen, Step};

/// Sees intermediate results by name: `vision` for each picture, `layer.{i}` over the packed tokens of a step, `logits` of
/// the rows that are sampled.
pub type Observer = Box<dyn FnMut(&str, &Tensor) + Send>;

/// Tokens that are multiplied as many are, not as few.
const MANY: usize = kernels::MAX_FEW_ROWS as usize + 1;

/// Rows of a prompt that are scored at a time: the logits of a whole chunk would take half a gigabyte.
const SCORED_ROWS: usize = 64;

/// A loaded model and the memory of the sequences that it runs.
pub struct QwenRunner {
    // Dropped in this order. Invariant: tensors before the files that they may lie in.
    pub(super) decoder: Decoder,
    /// `None` where the checkpoint has no vision tower.
    pub(super) sight: Option<Sight>,
    pub(super) slots: Slots,
    pub(super) config: Config,
    pub(super) device: Device,
    pub(super) kind: Kind,
    pub(super) company: Company,
    pub(super) observer: Option<Observer>,
    pub(super) _files: Vec<Bytes>,
}

impl ModelRunner for QwenRunner {
    /// Runs all rows together. A row that cannot be run fails alone.
    fn run(&mut self, step: &Step) -> Outputs {
        match self.device {
            Device::Cpu => threads::run(|| self.step(step)),
            _ => self.step(step),
        }
    }

    fn held(&self) -> Held {
        self.slots.held()
    }
}

impl QwenRunner {
    fn step(&mut self, step: &Step) -> Outputs {
        let _guard = tch::no_grad_guard();
        for slot in &step.released {
            self.slots.release(*slot);
        }
        let num_rows = step.rows.len();
        let mut outputs =
            Outputs { rows: vec![Outcome::Prefilled; num_rows], scores: vec![Vec::new(); num_rows], seen: None };
        let mut sound = Vec::new();
        for (index, row) in step.rows.iter().enumerate() {
            match self.fault(row) {
                Some(fault) => outputs.rows[index] = Outcome::Failed(fault),
                None => sound.push(index),
            }
        }
        // Sequences of one token first, by slot: a recurrent layer runs neighbours among them as one. Those of few come next, those
        // of many last: there may be passes for each kind.
        sound.sort_by_key(|index| (step.rows[*index].ids.len().min(MANY), step.rows[*index].slot));
        let rows: Vec<&Row> = sound.iter().map(|index| &step.rows[*index]).collect();
        for row in rows.iter().filter(|row| row.start == 0) {
            self.slots.begin(row.slot);
        }
        outputs.seen = self.see(&rows);
        let computed: Vec<_> = self.passes(&rows).into_iter().flat_map(|pass| self.forward(pass)).collect();
        for (index, (outcome, scored)) in sound.into_iter().zip(computed) {
            (outputs.rows[index], outputs.scores[index]) = (outcome, scored);
        }
        outputs
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where it computes: "cpu" or "cuda:0".
    pub fn device_name(&self) -> String {
        match self.device {
            Device::Cuda(index) => format!("cuda:{index}"),
            _ => "cpu".to_owned(),
        }
    }

    /// Shows every intermediate result to `observer` from now on; the last layer, too, then computes all tokens.
    pub fn observe(&mut self, observer: Observer) {
        self.observer = Some(observer);
    }

    /// Why `row` cannot be run, if it cannot. An id or a slot out of range would fail the whole step, and on a CUDA device
    /// every step after it.
    fn fault(&mut self, row: &Row) -> Option<String> {
        if row.slot.0 >= self.slots.len() {
            return Some(format!("there is no slot {}: the model has {}", row.slot.0, self.slots.len()));
        }
        if row.ids.is_empty() || row.ids.len() != row.positions.len() {
            return Some(format!("a row of {} ids and {} positions", row.ids.len(), row.positions.len()));
        }
        let held = self.slots.memory(row.slot).num_tokens;
        if row.start != 0 && row.start != held {
            return Some(format!("the sequence's memory holds {held} tokens where {} were expected", row.start));
        }
        if let Some(id) = row.ids.iter().find(|id| **id as usize >= self.config.text.vocab_size) {
            return Some(format!("token {id} is outside the vocabulary of {}", self.config.text.vocab_size));
        }
        if let Some(score) = &row.score {
            let is_sound = score.targets.len() <= row.ids.len()
                && score.targets.iter().all(|id| (*id as usize) < self.config.text.vocab_size);
            if !is_sound {
                return Some("the tokens to score are not those of the prompt".to_owned());
            }
        }
        row.pictures.iter().find_map(|rows| self.picture_fault(row, rows))
    }

    fn picture_fault(&self, row: &Row, rows: &PictureRows) -> Option<String> {
        let Some(vision) = &self.config.vision else { return Some("this model has no vision tower".to_owned()) };
        let (grid, picture) = (rows.picture.grid, &rows.picture);
        if picture.patches.len() != grid.num_patches() * vision.patch_len() || grid.height % 2 + grid.width % 2 != 0 {
            return Some(format!(
                "a picture of {} numbers on a grid of {} x {} patches",
                picture.patches.len(),
                grid.height,
                grid.width
            ));
        }
        let fits = rows.rows.end <= row.ids.len() && rows.first_embedding + rows.rows.len() <= grid.num_tokens();
        (!fits).then(|| format!("a picture's rows {:?} do not fit in a row of {} tokens", rows.rows, row.ids.len()))
    }

    /// Cuts sound rows, those of one token first, into the passes that they are computed in.
    ///
    /// On the CPU a row's numbers must not depend on its company. A product of few rows keeps that promise
    /// ([`kernels::linear`]), and where one of many rows keeps it too, prompts of many tokens share a pass: reading and packing
    /// the weights is what a short one costs. On a GPU one pass takes all, unless company must not count there.
    fn passes<'r>(&self, rows: &'r [&'r Row]) -> Vec<&'r [&'r Row]> {
        let together = |rows| self.company.passes(rows, usize::MAX, |row: &&Row| row.ids.len());
        if self.device != Device::Cpu {
            return together(rows);
        }
        // At most as many rows as the head, too, multiplies as few.
        let few = kernels::MAX_FEW_ROWS as usize;
        let (decoding, reading) = rows.split_at(rows.partition_point(|row| row.ids.len() == 1));
        decoding.chunks(few).chain(together(reading).into_iter().flat_map(|pass| pass.chunks(few))).collect()
    }

    /// One forward pass over sound rows: what becomes of each, and its scored tokens.
    fn forward(&mut self, rows: &[&Row]) -> Vec<(Outcome, Vec<Sampled>)> {
        if rows.is_empty() {
            return Vec::new();
        }
        let packed = Packed::new(rows, self.device);
        let asked = self.asked(rows, &packed.spans);
        let embeddings = self.embed(rows, &packed);
        let rotation = self.decoder.rotation(&packed.positions, self.kind);
        let observer = &mut self.observer;
        let mut observe = |index: usize, hidden: &Tensor| show(observer, || format!("layer.{index}"), hidden);
        let hidden =
            self.decoder.forward(embeddings, &rotation, &packed, asked.as_ref(), &mut self.slots, &mut observe);
        for row in rows {
            self.slots.memory(row.slot).num_tokens = row.start + row.ids.len();
        }
        let spans = asked.as_ref().map_or(&packed.spans, |asked| &asked.spans);
        let outcomes = self.choose(rows, spans, &hidden);
        let scores = rows.iter().zip(spans).map(|(row, span)| self.score(row, &span.of(&hidden)));
        outcomes.into_iter().zip(scores).map(|(outcome, scored)| fail_unless_finite(outcome, scored)).collect()
    }

    /// The tokens whose outputs are asked for: one of each row, and with it as many as keep it among [`MANY`], so that its bits are
    /// those that it has among all. `None` where all are asked for.
    fn asked(&self, rows: &[&Row], spans: &[Span]) -> Option<Asked> {
        let wants_all = self.observer.is_some() || rows.iter().any(|row| row.score.is_some());
        if wants_all { None } else { Asked::last_of(spans, MANY as i64) }
    }

    /// The tokens' embeddings, pictures' in place of their placeholders': [tokens, hidden].
    fn embed(&mut self, rows: &[&Row], packed: &Packed) -> Tensor {
        let embeddings = self.decoder.embed_tokens.forward(&packed.ids);
        for (row, span) in rows.iter().zip(&packed.spans) {
            for part in &row.pictures {
                let pictures = &mut self.slots.memory(row.slot).pictures;
                let index = index_of(&part.picture, pictures).expect("Invariant: pictures were seen before");
                let (first, len) = (part.first_embedding as i64, part.rows.len() as i64);
                let mut place = embeddings.narrow(0, span.first + part.rows.start as i64, len);
                place.copy_(&pictures[index].1.narrow(0, first, len));
                if part.first_embedding + part.rows.len() == part.picture.grid.num_tokens() {
                    drop(pictures.remove(index));
                }
            }
        }
        embeddings
    }

    /// Turns the pictures that begin in `rows` into embeddings, all together, and gives them to their sequences.
    fn see(&mut self, rows: &[&Row]) -> Option<Seen> {
        let slots = &mut self.slots;
        let mut beginning = Vec::new();
        for row in rows {
            let known = &slots.memory(row.slot).pictures;
            let new = row.pictures.iter().filter(|part| index_of(&part.picture, known).is_none());
            beginning.extend(new.map(|part| (row.slot, part.picture.clone())));
        }
        if beginning.is_empty() {
            return None;
        }
        let began = Instant::now();
        let sight = self.sight.as_mut().expect("Invariant: a picture without a tower is a fault");
        let (slots_of, pictures): (Vec<_>, Vec<_>) = beginning.into_iter().unzip();
        let (seen, num_computed) = sight.see(&pictures);
        let num_reused = pictures.len() - num_computed;
        for ((slot, picture), seen) in slots_of.into_iter().zip(pictures).zip(seen) {
            show(&mut self.observer, || "vision".to_owned(), &seen);
            slots.memory(slot).pictures.push((picture, seen));
        }
        Some(Seen { began, ended: Instant::now(), num_computed, num_reused, kept_bytes: sight.features.bytes() })
    }

    /// Samples the rows that ask for it. Only their last tokens go through the head.
    fn choose(&mut self, rows: &[&Row], spans: &[Span], hidden: &Tensor) -> Vec<Outcome> {
        let asking = rows.iter().zip(spans).filter_map(|(row, span)| row.sample.as_ref().map(|sample| (sample, span)));
        let (requests, spans): (Vec<&Sample>, Vec<&Span>) = asking.unzip();
        let mut sampled = Vec::new().into_iter();
        if !requests.is_empty() {
            let last = pack(spans.iter().map(|span| span.last_of(hidden)).collect()); // [sampled rows, hidden]
            let logits = self.decoder.logits(&last); // [sampled rows, vocabulary]
            show(&mut self.observer, || "logits".to_owned(), &logits);
            sampled = sample(&logits, &requests).into_iter();
        }
        let outcome = |row: &&Row| match row.sample {
            Some(_) => sampled.next().expect("Invariant: the sampler answers every request"),
            None => Outcome::Prefilled,
        };
        rows.iter().map(outcome).collect()
    }

    /// How likely the tokens are that the row wants scored; `hidden` [row's tokens, hidden].
    fn score(&self, row: &Row, hidden: &Tensor) -> Vec<Sampled> {
        let Some(wanted) = &row.score else { return Vec::new() };
        let blocks = wanted.targets.chunks(SCORED_ROWS).enumerate().map(|(block, targets)| {
            let hidden = hidden.narrow(0, (block * SCORED_ROWS) as i64, targets.len() as i64);
            score(&self.decoder.logits(&hidden), targets, wanted.top) // [block, vocabulary] -> numbers
        });
        blocks.flatten().collect()
    }
}

/// Where `picture` is among those of a sequence.
fn index_of(picture: &Arc<Picture>, pictures: &[(Arc<Picture>, Tensor)]) -> Option<usize> {
    pictures.iter().position(|(known, _)| Arc::ptr_eq(known, picture))
}

/// A prompt whose scores are not numbers fails, as one whose next token cannot be chosen does.
fn fail_unless_finite(outcome: Outcome, scored: Vec<Sampled>) -> (Outcome, Vec<Sampled>) {
    if scored.iter().all(|token| token.logprob.is_finite()) {
        return (outcome, scored);
    }
    (Outcome::Failed(NOT_FINITE.to_owned()), Vec::new())
}

fn show(observer: &mut Option<Observer>, name: impl FnOnce() -> String, tensor: &Tensor) {
    if let Some(observer) = observer {
        observer(&name(), tensor);
    }
}
