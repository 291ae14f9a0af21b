//! What sharing steps does to a sequence's numbers: on the CPU nothing, to the bit, in fp32 and in bf16.
//!
//! libtorch's products would round a row differently alone, among two or three rows, and among more; the kernel for few rows
//! does not, nor does our own for many. Prompts share a pass where that one computes, and are alone elsewhere.

use std::path::Path;
use std::sync::{Arc, Mutex};

use sardine::checkpoint::Checkpoint;
use sardine::engine::{ModelRunner, Prompt, Slot, Step};
use sardine::model::{Dtype, LoadOptions, QwenRunner};
use tch::Tensor;

use crate::driving::{Sequence, step};
use crate::fixtures::{Case, checkpoint, difference, options};

const NEW_TOKENS: usize = 16;
const MOST: usize = 20;

#[test]
fn neighbouring_and_scattered_slots_give_the_same_bits() {
    let mut runner = load(&checkpoint(), Dtype::Float32);
    let seen = watch_logits(&mut runner);
    let prompts = prompts(4);
    let neighbours = decode(&mut runner, &seen, &prompts, &[0, 1, 2, 3]);
    for slots in [[3, 0, 2, 1], [9, 4, 0, 14], [5, 6, 1, 2]] {
        let others = decode(&mut runner, &seen, &prompts, &slots);
        for (sequence, (ours, theirs)) in neighbours.iter().zip(&others).enumerate() {
            assert!(ours.logits.equal(&theirs.logits), "sequence {sequence} in slot {}", slots[sequence]);
        }
    }
}

#[test]
fn sharing_steps_changes_no_bit() {
    for (checkpoint, dtype) in [
        (checkpoint(), Dtype::Float32),
        (fry(), Dtype::Float32),
        (checkpoint(), Dtype::Bfloat16),
        (fry(), Dtype::Bfloat16),
    ] {
        let mut runner = load(&checkpoint, dtype);
        for count in [2, 3, 4, 8, 17] {
            let change = compare(&mut runner, count);
            assert_eq!((change.logits, change.same_answers), (0.0, count), "{count} sequences");
        }
    }
}

#[test]
fn prompts_that_are_read_in_one_step_keep_their_bits() {
    let lengths = [20, 70, 9, 33, 16, 17, 40];
    let long = Case::read("long").prompt;
    let prompts: Vec<Prompt> =
        lengths.iter().zip(prompts_like(&long, lengths.len())).map(|(len, prompt)| first(*len, prompt)).collect();
    let slots: Vec<usize> = (0..prompts.len()).collect();
    for (checkpoint, dtype) in
        [(checkpoint(), Dtype::Float32), (fry(), Dtype::Float32), (checkpoint(), Dtype::Bfloat16)]
    {
        let mut runner = load(&checkpoint, dtype);
        let seen = watch_logits(&mut runner);
        let mut sequences = begin(&prompts, &slots);
        step(&mut runner, &mut sequences.iter_mut().map(|sequence| (sequence, usize::MAX)).collect::<Vec<_>>());
        let together = go_on(&mut runner, &seen, sequences, &slots);
        let alone = decode(&mut runner, &seen, &prompts, &slots);
        for ((together, alone), len) in together.iter().zip(&alone).zip(lengths) {
            assert!(
                together.answer == alone.answer && together.logits.equal(&alone.logits),
                "{len} tokens in {dtype:?}"
            );
        }
    }
}

#[test]
fn a_prompt_that_arrives_changes_no_bit() {
    for dtype in [Dtype::Float32, Dtype::Bfloat16] {
        arrives(dtype);
    }
}

fn arrives(dtype: Dtype) {
    let mut runner = load(&checkpoint(), dtype);
    let seen = watch_logits(&mut runner);
    let (first, other) = (&prompts(1)[0], Case::read("long").prompt);
    let alone = decode(&mut runner, &seen, std::slice::from_ref(first), &[1]).remove(0);
    let (mut sequence, mut arriving) = (Sequence::new(first, 1, NEW_TOKENS), Sequence::new(&other, 0, NEW_TOKENS));
    step(&mut runner, &mut [(&mut sequence, usize::MAX)]);
    seen.lock().unwrap().clear();
    let mut num_shared = 0;
    for token in 0..NEW_TOKENS - 1 {
        num_shared += usize::from(arriving.generated.is_empty());
        step(&mut runner, &mut [(&mut arriving, 90), (&mut sequence, 1)]);
        let logits = Tensor::cat(&std::mem::take(&mut *seen.lock().unwrap()), 0);
        // The other is in the lower slot once it decodes, and comes after those who decode while it is a prompt.
        let ours = logits.get(i64::from(arriving.generated.len() > 1));
        assert!(ours.equal(&alone.logits.get(token as i64)), "token {token} {dtype:?}");
    }
    assert!(num_shared > 3 && arriving.generated.len() > 3, "{num_shared} steps with a prompt");
}

#[test]
#[ignore = "prints, for people to read"]
fn how_much_sharing_steps_changes() {
    for (name, checkpoint) in [("random", checkpoint()), ("fry", fry())] {
        for dtype in [Dtype::Float32, Dtype::Bfloat16] {
            let mut runner = load(&checkpoint, dtype);
            for count in [1, 2, 3, 4, 8, 16] {
                let Change { logits, same_answers } = compare(&mut runner, count);
                println!(
                    "{name}, {dtype:?}: logits differ by {logits:.1e}, {same_answers} of {count} answers are the same"
                );
            }
        }
    }
}

pub struct Change {
    /// The largest difference of a logit, as long as the answers are the same.
    pub logits: f64,
    pub same_answers: usize,
}

struct Decoded {
    answer: Vec<u32>,
    logits: Tensor, // [tokens, vocabulary], of the tokens after the first
}

/// Decodes `count` sequences alone and together.
pub fn compare(runner: &mut QwenRunner, count: usize) -> Change {
    let seen = watch_logits(runner);
    let prompts = prompts(count);
    let slots: Vec<usize> = (0..count).collect();
    let together = decode(runner, &seen, &prompts, &slots);
    let alone = prompts.iter().map(|prompt| decode(runner, &seen, std::slice::from_ref(prompt), &[0]).remove(0));
    let mut change = Change { logits: 0.0, same_answers: 0 };
    for (together, alone) in together.iter().zip(alone) {
        let shared = together.answer.iter().zip(&alone.answer).take_while(|(ours, theirs)| ours == theirs).count();
        // The logits after a token that differs have nothing in common.
        let comparable = shared.min(NEW_TOKENS - 1) as i64;
        let first = |decoded: &Decoded| decoded.logits.narrow(0, 0, comparable);
        if comparable > 0 {
            change.logits = change.logits.max(difference(&first(together), &first(&alone)));
        }
        change.same_answers += usize::from(shared == NEW_TOKENS);
    }
    change
}

fn begin<'p>(prompts: &'p [Prompt], slots: &[usize]) -> Vec<Sequence<'p>> {
    prompts.iter().zip(slots).map(|(prompt, slot)| Sequence::new(prompt, *slot, NEW_TOKENS)).collect()
}

/// Prefills each prompt alone in its slot, and decodes them together.
fn decode(runner: &mut QwenRunner, seen: &Logits, prompts: &[Prompt], slots: &[usize]) -> Vec<Decoded> {
    let mut sequences = begin(prompts, slots);
    for sequence in &mut sequences {
        step(runner, &mut [(sequence, usize::MAX)]);
    }
    go_on(runner, seen, sequences, slots)
}

/// Decodes sequences, whose prompts were read, together.
fn go_on(runner: &mut QwenRunner, seen: &Logits, mut sequences: Vec<Sequence>, slots: &[usize]) -> Vec<Decoded> {
    seen.lock().unwrap().clear();
    let mut logits = Vec::new();
    while !sequences[0].is_done() {
        step(runner, &mut sequences.iter_mut().map(|sequence| (sequence, 1)).collect::<Vec<_>>());
        logits.push(Tensor::cat(&std::mem::take(&mut *seen.lock().unwrap()), 0));
    }
    runner.run(&Step { released: slots.iter().map(|slot| Slot(*slot)).collect(), rows: Vec::new() });
    let logits = Tensor::stack(&logits, 1); // [sequences by slot, tokens, vocabulary]
    let by_slot = |slot: usize| slots.iter().filter(|other| **other < slot).count() as i64;
    let decoded = sequences.iter().zip(slots);
    decoded
        .map(|(sequence, slot)| Decoded { answer: sequence.generated.clone(), logits: logits.get(by_slot(*slot)) })
        .collect()
}

/// All logits of a step, in the order in which the runner computes them: a step may take several passes.
type Logits = Arc<Mutex<Vec<Tensor>>>;

fn watch_logits(runner: &mut QwenRunner) -> Logits {
    let logits = Logits::default();
    let store = logits.clone();
    runner.observe(Box::new(move |name, tensor| {
        if name == "logits" {
            store.lock().unwrap().push(tensor.copy());
        }
    }));
    logits
}

/// The trained miniature.
pub fn fry() -> Checkpoint {
    Checkpoint::in_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fry")).unwrap()
}

fn load(checkpoint: &Checkpoint, dtype: Dtype) -> QwenRunner {
    let options = LoadOptions { max_batch_size: MOST, ..options(dtype) };
    sardine::model::load(checkpoint, &options, &|_, _| {}).unwrap()
}

/// Prompts that differ in their first token, and so in everything after it.
fn prompts(count: usize) -> Vec<Prompt> {
    prompts_like(&Case::read("text").prompt, count)
}

fn prompts_like(prompt: &Prompt, count: usize) -> Vec<Prompt> {
    let with_first =
        |id| Prompt { ids: std::iter::once(id).chain(prompt.ids[1..].iter().copied()).collect(), ..prompt.clone() };
    (0..count as u32).map(|index| with_first(40 + index)).collect()
}

/// A text's first tokens.
fn first(len: usize, mut prompt: Prompt) -> Prompt {
    prompt.ids.truncate(len);
    prompt.positions.truncate(len);
    prompt
}
