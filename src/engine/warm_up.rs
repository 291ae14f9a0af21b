//! The model's first steps, taken before anybody waits for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::unbounded_channel;

use super::handle::Request;
use super::prompt::{Grid, Picture, PlacedPicture, Prompt};
use super::sampling::Sampling;
use super::sequence::Sequence;
use super::step::{ModelRunner, Outcome, Slot, Step};

/// Tokens of the prompt: as few as go through everything. On a CPU they cost what one does, as reading the weights is the work.
const NUM_PROMPT: u32 = 4;

/// One for the prompt's step, one for a step that decodes.
const NUM_NEW: usize = 2;

/// The smallest picture: one token.
const GRID: Grid = Grid { height: 2, width: 2 };

/// Runs a short sequence through `runner`, a step for its prompt and one that decodes, and lets go of it: whatever is done at
/// the first use (kernels chosen, libraries opened, mapped weights read) is done now. A model that sees has a picture in it, whose
/// patches have `patch_len` numbers. How long that took; the error is one line.
pub fn warm_up(runner: &mut dyn ModelRunner, patch_len: Option<usize>) -> Result<Duration, String> {
    let began = Instant::now();
    let slot = Slot(0);
    let (events, _nobody_listens) = unbounded_channel();
    let mut sequence = Sequence::new(request(patch_len.map(grey)), events);
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

fn grey(patch_len: usize) -> Picture {
    Picture::new(vec![0.0; GRID.num_patches() * patch_len], GRID)
}

/// Any ids will do, and nobody reads the answer.
fn request(picture: Option<Picture>) -> Request {
    let positions = (0..i64::from(NUM_PROMPT)).map(|at| [at; 3]).collect();
    let place = |picture| PlacedPicture { picture: Arc::new(picture), placeholders: 1..1 + GRID.num_tokens() };
    let pictures = picture.into_iter().map(place).collect();
    let prompt = Prompt { ids: (0..NUM_PROMPT).collect(), positions, rope_delta: 0, pictures };
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

#[cfg(test)]
mod tests {
    use super::warm_up;
    use crate::engine::{ModelRunner, Outcome, Outputs, Sampled, Slot, Step};

    /// Answers every row alike, and remembers its steps.
    struct Model(Vec<Step>, Outcome);

    impl ModelRunner for Model {
        fn run(&mut self, step: &Step) -> Outputs {
            self.0.push(step.clone());
            Outputs {
                rows: vec![self.1.clone(); step.rows.len()],
                scores: vec![Vec::new(); step.rows.len()],
                seen: None,
            }
        }
    }

    #[test]
    fn the_first_steps_go_through_the_eyes_where_there_are_any_and_leave_nothing_behind() {
        let sampled = Outcome::Sampled(Sampled { id: 7, logprob: 0.0, top: Vec::new() });
        for (patch_len, num_pictures) in [(None, 0), (Some(24), 1)] {
            let mut model = Model(Vec::new(), sampled.clone());
            warm_up(&mut model, patch_len).unwrap();
            let [prompt, decode, release] = &model.0[..] else { panic!("{:?}", model.0) };
            let pictures = &prompt.rows[0].pictures;
            assert_eq!((pictures.len(), decode.rows[0].ids.as_slice()), (num_pictures, &[7][..]));
            assert!(pictures.iter().all(|rows| rows.picture.patches.len() == 4 * 24 && rows.rows == (1..2)));
            assert_eq!((release.rows.len(), &release.released[..]), (0, &[Slot(0)][..]));
        }
    }

    #[test]
    fn a_model_that_fails_at_once_is_not_served() {
        let failed = warm_up(&mut Model(Vec::new(), Outcome::Failed("not a number".to_owned())), None);
        assert!(failed.unwrap_err().contains("not a number"));
    }
}
