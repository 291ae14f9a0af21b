//! One request on the engine: how far it is, its next row, and what each sampled token means for it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;

use super::handle::{Ended, Event, Request};
use super::prompt::PlacedPicture;
use super::scheduler::Work;
use super::step::{PictureRows, Row, Sample, Sampled, Score, Seen, Slot};
use crate::error::Error;

/// Tokens that prompts share if they begin alike: a system message or the tools, say.
const PREFIX: usize = 64;

pub(super) struct Sequence {
    request: Request,
    events: UnboundedSender<Event>,
    /// When it left the queue.
    started: Option<Instant>,
    /// Tokens that the slot holds.
    num_computed: usize,
    generated: Vec<u32>,
}

impl Sequence {
    pub(super) fn new(request: Request, events: UnboundedSender<Event>) -> Sequence {
        Sequence { request, events, started: None, num_computed: 0, generated: Vec::new() }
    }

    /// The client dropped its stream.
    pub(super) fn is_cancelled(&self) -> bool {
        self.events.is_closed()
    }

    /// The sequence got a slot: it has left the queue.
    pub(super) fn start(&mut self, now: Instant) {
        self.started = Some(now);
        self.send(Event::Started);
    }

    /// Tokens that it may grow to, and that keys and values are reserved for.
    pub(super) fn num_promised(&self) -> usize {
        self.request.prompt.len() + self.request.max_new_tokens
    }

    /// A digest of how the prompt begins.
    pub(super) fn prefix(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let ids = &self.request.prompt.ids;
        ids[..ids.len().min(PREFIX)].hash(&mut hasher);
        hasher.finish()
    }

    /// Prompt tokens that the slot lacks; 0 once the sequence decodes.
    fn num_to_prefill(&self) -> usize {
        self.request.prompt.len().saturating_sub(self.num_computed)
    }

    /// What it would do in the next step, of prompts at most `chunk` tokens.
    pub(super) fn work(&self, chunk: usize) -> Work {
        let num_tokens = self.num_to_prefill().min(chunk);
        if num_tokens == 0 {
            return Work::Decode;
        }
        let read = self.num_computed..self.num_computed + num_tokens;
        let begin_here = self.request.prompt.pictures.iter().filter(|placed| read.contains(&placed.placeholders.start));
        let behind: usize = begin_here.map(|placed| placed.placeholders.end.saturating_sub(read.end)).sum();
        Work::Prefill { num_tokens, cost: num_tokens + behind }
    }

    /// The client has stopped waiting.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.request.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// Ends at the client's deadline: with the text so far, if there is any.
    pub(super) fn end_late(&self) {
        if self.generated.is_empty() {
            self.fail(Error::missed_deadline());
        } else {
            self.send(Event::Finished(Ended::Deadline));
        }
    }

    /// `max_time` is over, which Transformers counts from the start of the generation and looks at after each token.
    fn is_out_of_time(&self, now: Instant) -> bool {
        let since_start = self.started.map(|started| now.saturating_duration_since(started));
        since_start.zip(self.request.max_time).is_some_and(|(elapsed, max_time)| elapsed > max_time)
    }

    /// The row of the next `num_tokens` tokens: of the prompt, or the newest generated one.
    pub(super) fn row(&self, slot: Slot, num_tokens: usize) -> Row {
        let start = self.num_computed;
        let end = start + num_tokens;
        let prompt = &self.request.prompt;
        let max_len = self.num_promised();
        if self.num_to_prefill() == 0 {
            let newest = *self.generated.last().expect("a sequence that decodes has a newest token");
            let position = start as i64 + prompt.rope_delta;
            let sample = Some(self.sample());
            return Row {
                slot,
                start,
                max_len,
                ids: vec![newest],
                positions: vec![[position; 3]],
                pictures: Vec::new(),
                sample,
                score: None,
            };
        }
        Row {
            slot,
            start,
            max_len,
            ids: prompt.ids[start..end].to_vec(),
            positions: prompt.positions[start..end].to_vec(),
            pictures: prompt.pictures.iter().filter_map(|placed| part_in(placed, start..end)).collect(),
            sample: (end == prompt.len() && self.request.max_new_tokens > 0).then(|| self.sample()),
            score: self.score(start..end),
        }
    }

    /// What follows each of the prompt's tokens in `chunk`, if that is to be scored.
    fn score(&self, chunk: Range<usize>) -> Option<Score> {
        let ids = &self.request.prompt.ids;
        let followers = chunk.start + 1..ids.len().min(chunk.end + 1);
        self.request.prompt_logprobs.map(|top| Score { targets: ids[followers].to_vec(), top })
    }

    fn sample(&self) -> Sample {
        let prompt = &self.request.prompt;
        let history = if self.request.sampling.reads_history() {
            prompt.ids.iter().chain(&self.generated).copied().collect()
        } else {
            Vec::new()
        };
        Sample {
            settings: self.request.sampling.clone(),
            num_generated: self.generated.len(),
            num_prompt: prompt.len(),
            history,
        }
    }

    /// Its pictures that begin in the step's part of the prompt were seen.
    pub(super) fn saw(&self, seen: Seen) {
        self.send(Event::Seen(seen));
    }

    /// The slot holds `num_tokens` more, of which the prompt's were `scored`.
    pub(super) fn advance(&mut self, num_tokens: usize, scored: Vec<Sampled>) {
        self.num_computed += num_tokens;
        if !scored.is_empty() {
            self.send(Event::Scored(scored));
        }
    }

    /// A part of the prompt was read and no token chosen. True where that is all there is to do.
    pub(super) fn accept_prefill(&mut self) -> bool {
        let is_over = self.num_to_prefill() == 0;
        if is_over {
            self.send(Event::Finished(Ended::Length));
        }
        is_over
    }

    /// Takes the next token. True where it was the last.
    pub(super) fn accept(&mut self, sampled: Sampled) -> bool {
        let (id, now) = (sampled.id, Instant::now());
        self.generated.push(id);
        self.send(Event::Token(sampled));
        let ended = if self.request.eos.contains(&id) {
            Ended::Eos
        } else if self.generated.len() >= self.request.max_new_tokens {
            Ended::Length
        } else if self.is_late(now) || self.is_out_of_time(now) {
            Ended::Deadline
        } else {
            return false;
        };
        self.send(Event::Finished(ended));
        true
    }

    pub(super) fn fail(&self, error: Error) {
        self.send(Event::Failed(error));
    }

    /// A client that left hears nothing; the next step frees its slot.
    fn send(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

/// The part of a picture whose placeholders lie in `chunk`, in rows of that chunk.
fn part_in(placed: &PlacedPicture, chunk: Range<usize>) -> Option<PictureRows> {
    let first = placed.placeholders.start.max(chunk.start);
    let last = placed.placeholders.end.min(chunk.end);
    (first < last).then(|| PictureRows {
        picture: placed.picture.clone(),
        rows: first - chunk.start..last - chunk.start,
        first_embedding: first - placed.placeholders.start,
    })
}
