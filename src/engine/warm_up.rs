//! The model's first steps, taken before anybody waits for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::unbounded_channel;

use super::handle::Request;
use super::prompt::Prompt;
use super::sampling::Sampling;
use super::sequence::Sequence;
use super::step::{ModelRunner, Outcome, Slot, Step};

/// Tokens of the prompt: as few as go through everything. On a CPU they cost what one does, as reading the weights is the work.
const NUM_PROMPT: u32 = 4;

/// One for the prompt's step, one for a step that decodes.
const NUM_NEW: usize = 2;

/// Runs a short sequence through `runner`, a step for its prompt and one that decodes, and lets go of it: whatever is done at
/// the first use (kernels chosen, libraries opened, mapped weights read) is done now. How long that took; the error is one
/// line.
pub fn warm_up(runner: &mut dyn ModelRunner) -> Result<Duration, String> {
    let began = Instant::now();
    let slot = Slot(0);
    let (events, _nobody_listens) = unbounded_channel();
    let mut sequence = Sequence::new(request(), events);
    sequence.start(began);
    let mut num_tokens = NUM_PROMPT as usize;
    loop {
        let step = Step { released: Vec::new(), rows: vec![sequence.row(slot, num_tokens)] };
        sequence.advance(num_tokens, Vec::new());
        match runner.run(&step).rows.into_iter().next() {
            Some(Outcome::Sampled(sampled)) => {
                if sequence.accept(sampled) {
                    break;
                }
                num_tokens = 1;
            }
            Some(Outcome::Failed(reason)) => return Err(format!("the model failed at its first steps: {reason}")),
            Some(Outcome::Prefilled) | None => return Err("the model gave no token at its first steps".to_owned()),
        }
    }
    runner.run(&Step { released: vec![slot], rows: Vec::new() });
    Ok(began.elapsed())
}

/// Any ids will do, and nobody reads the answer.
fn request() -> Request {
    let positions = (0..i64::from(NUM_PROMPT)).map(|at| [at; 3]).collect();
    let prompt = Prompt { ids: (0..NUM_PROMPT).collect(), positions, rope_delta: 0, pictures: Vec::new() };
    Request {
        prompt: Arc::new(prompt),
        sampling: Arc::new(Sampling::greedy()),
        eos: Vec::new(),
        max_new_tokens: NUM_NEW,
        prompt_logprobs: None,
        deadline: None,
        max_time: None,
        share: None,
    }
}
