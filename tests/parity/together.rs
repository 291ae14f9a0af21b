//! What sharing steps does to a sequence's numbers: nothing, to the last bit.
//!
//! libtorch's products would round a row differently alone, among two or three rows, and among more; the kernel for few rows
//! does not, and neither do the convolution, the delta rule and attention.

use std::path::Path;

use sardine::checkpoint::Checkpoint;
use sardine::engine::{ModelRunner, Prompt, Slot, Step};
use sardine::model::{Dtype, LoadOptions, QwenRunner};
use tch::Tensor;

use crate::driving::{Seen, Sequence, step, watch};
use crate::fixtures::{Case, checkpoint, difference, options};

const NEW_TOKENS: usize = 16;
const MOST: usize = 16;

#[test]
fn neighbouring_and_scattered_slots_give_the_same_bits() {
    let mut runner = load(&checkpoint(), Dtype::Float32);
    let seen = watch(&mut runner);
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
    for dtype in [Dtype::Float32, Dtype::Bfloat16] {
        let mut runner = load(&checkpoint(), dtype);
        for count in [2, 3, 5, 16] {
            let change = compare(&mut runner, count);
            assert_eq!(change.same_answers, count, "{count} sequences, {dtype:?}");
            assert_eq!(change.logits, 0.0, "{count} sequences, {dtype:?}");
        }
    }
}

#[test]
#[ignore = "prints, for people to read"]
fn how_much_sharing_steps_changes() {
    let fry = Checkpoint::in_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fry")).unwrap();
    for (name, checkpoint) in [("random", checkpoint()), ("fry", fry)] {
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

struct Change {
    /// The largest difference of a logit, as long as the answers are the same.
    logits: f64,
    same_answers: usize,
}

struct Decoded {
    answer: Vec<u32>,
    logits: Tensor, // [tokens, vocabulary], of the tokens after the first
}

/// Decodes `count` sequences alone and together.
fn compare(runner: &mut QwenRunner, count: usize) -> Change {
    let seen = watch(runner);
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

/// Prefills each prompt alone in its slot, and decodes them together.
fn decode(runner: &mut QwenRunner, seen: &Seen, prompts: &[Prompt], slots: &[usize]) -> Vec<Decoded> {
    let mut sequences: Vec<Sequence> =
        prompts.iter().zip(slots).map(|(prompt, slot)| Sequence::new(prompt, *slot, NEW_TOKENS)).collect();
    for sequence in &mut sequences {
        step(runner, &mut [(sequence, usize::MAX)]);
    }
    let mut logits = Vec::new();
    while !sequences[0].is_done() {
        step(runner, &mut sequences.iter_mut().map(|sequence| (sequence, 1)).collect::<Vec<_>>());
        logits.push(seen.lock().unwrap()["logits"].copy());
    }
    runner.run(&Step { released: slots.iter().map(|slot| Slot(*slot)).collect(), rows: Vec::new() });
    let logits = Tensor::stack(&logits, 1); // [sequences by slot, tokens, vocabulary]
    let by_slot = |slot: usize| slots.iter().filter(|other| **other < slot).count() as i64;
    let decoded = sequences.iter().zip(slots);
    decoded
        .map(|(sequence, slot)| Decoded { answer: sequence.generated.clone(), logits: logits.get(by_slot(*slot)) })
        .collect()
}

fn load(checkpoint: &Checkpoint, dtype: Dtype) -> QwenRunner {
    let options = LoadOptions { max_batch_size: MOST, ..options(dtype) };
    sardine::model::load(checkpoint, &options, &|_, _| {}).unwrap()
}

/// Prompts that differ in their first token, and so in everything after it.
fn prompts(count: usize) -> Vec<Prompt> {
    let prompt = Case::read("text").prompt;
    let with_first =
        |id| Prompt { ids: std::iter::once(id).chain(prompt.ids[1..].iter().copied()).collect(), ..prompt.clone() };
    (0..count as u32).map(|index| with_first(40 + index)).collect()
}
