//! A model that follows a script: it answers what the test says, and remembers what it was asked.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sardine::engine::{self, ModelRunner, Outcome, Outputs, Row, Sampled, Sampling, Score, Step};

/// What the model does.
#[derive(Debug, Clone, PartialEq)]
pub enum Mode {
    /// Answers these ids, one after another.
    Answer(Vec<u32>),
    /// Answers this id forever, a step every few milliseconds.
    Endless(u32),
    /// Panics, as libtorch's failures do.
    Panic(&'static str),
    /// Fails the sequence, not the step.
    Fail(&'static str),
    /// Is busy with its step until the test sets another mode: a long prompt.
    Stall,
}

/// A sequence that reached the model.
#[derive(Debug, Clone)]
pub struct Seen {
    pub ids: Vec<u32>,
    pub num_pictures: usize,
    pub sampling: Sampling,
    pub max_len: usize,
}

/// The script, shared by the test and the engine's thread.
pub struct Script {
    mode: Mutex<Mode>,
    seen: Mutex<Vec<Seen>>,
}

impl Script {
    pub fn new(mode: Mode) -> Arc<Script> {
        Arc::new(Script { mode: Mutex::new(mode), seen: Mutex::new(Vec::new()) })
    }

    pub fn mode(&self) -> Mode {
        self.mode.lock().unwrap().clone()
    }

    pub fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    /// The sequences since the last call, in the order in which they reached the model.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

pub struct ScriptedRunner(pub Arc<Script>);

impl ModelRunner for ScriptedRunner {
    fn run(&mut self, step: &Step) -> Outputs {
        while !step.rows.is_empty() && self.0.mode() == Mode::Stall {
            std::thread::sleep(Duration::from_millis(2));
        }
        let mode = self.0.mode();
        match mode {
            Mode::Endless(_) => std::thread::sleep(Duration::from_millis(2)),
            Mode::Panic(message) if !step.rows.is_empty() => panic!("{message}"),
            _ => {}
        }
        Outputs {
            rows: step.rows.iter().map(|row| self.answer(row, &mode)).collect(),
            scores: step.rows.iter().map(|row| row.score.as_ref().map_or_else(Vec::new, scores)).collect(),
            seen: see(step),
        }
    }
}

/// Pictures take no time, and none is remembered.
fn see(step: &Step) -> Option<engine::Seen> {
    let now = Instant::now();
    let num_computed = step.rows.iter().map(|row| row.pictures.len()).sum();
    (num_computed > 0).then_some(engine::Seen { began: now, ended: now, num_computed, num_reused: 0, kept_bytes: 0 })
}

impl ScriptedRunner {
    fn answer(&self, row: &Row, mode: &Mode) -> Outcome {
        let Some(sample) = &row.sample else { return Outcome::Prefilled };
        if sample.num_generated == 0 {
            self.0.seen.lock().unwrap().push(Seen {
                ids: row.ids.clone(),
                num_pictures: row.pictures.len(),
                sampling: (*sample.settings).clone(),
                max_len: row.max_len,
            });
        }
        let id = match mode {
            Mode::Answer(ids) => ids.get(sample.num_generated).or(ids.last()).copied().unwrap_or(0),
            Mode::Endless(id) => *id,
            Mode::Fail(message) => return Outcome::Failed((*message).to_owned()),
            Mode::Panic(_) => unreachable!("the step has panicked"),
            Mode::Stall => unreachable!("the step has gone on"),
        };
        Outcome::Sampled(Sampled { id, logprob: -0.25, top: top(sample.settings.top_logprobs) })
    }
}

/// Every token of a prompt is as likely as the next.
fn scores(score: &Score) -> Vec<Sampled> {
    score.targets.iter().map(|id| Sampled { id: *id, logprob: -0.5, top: top(score.top) }).collect()
}

fn top(tokens: usize) -> Vec<(u32, f32)> {
    (0..tokens as u32).map(|rank| (rank, -1.0 - rank as f32)).collect()
}
