//! One request on the engine: how far it is, its next row, and what each sampled token means for it.

use std::ops::Range;
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

use super::handle::{Ended, Event, Request};
use super::prompt::PlacedPicture;
use super::step::{PictureRows, Row, Sample, Sampled, Score, Slot};
use crate::error::Error;

pub(super) struct Sequence {
    request: Request,
    events: UnboundedSender<Event>,
    /// Held while the request waits for a slot.
    place_in_queue: Option<OwnedSemaphorePermit>,
    /// Tokens that the slot holds.
    num_computed: usize,
    generated: Vec<u32>,
}

impl Sequence {
    pub(super) fn new(request: Request, events: UnboundedSender<Event>, place: OwnedSemaphorePermit) -> Sequence {
        Sequence { request, events, place_in_queue: Some(place), num_computed: 0, generated: Vec::new() }
    }

    /// The client dropped its stream.
    pub(super) fn is_cancelled(&self) -> bool {
        self.events.is_closed()
    }

    /// The sequence got a slot: its place in the queue is free.
    pub(super) fn leave_queue(&mut self) {
        self.place_in_queue = None;
        self.send(Event::Started);
    }

    /// Prompt tokens that the slot lacks; 0 once the sequence decodes.
    pub(super) fn num_to_prefill(&self) -> usize {
        self.request.prompt.len().saturating_sub(self.num_computed)
    }

    /// The row of the next `num_tokens` tokens: of the prompt, or the newest generated one.
    pub(super) fn row(&self, slot: Slot, num_tokens: usize) -> Row {
        let start = self.num_computed;
        let end = start + num_tokens;
        let prompt = &self.request.prompt;
        let max_len = prompt.len() + self.request.max_new_tokens;
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
        let id = sampled.id;
        self.generated.push(id);
        self.send(Event::Token(sampled));
        let ended = if self.request.eos.contains(&id) {
            Ended::Eos
        } else if self.generated.len() >= self.request.max_new_tokens {
            Ended::Length
        } else if self.request.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
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
