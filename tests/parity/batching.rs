//! Sequences that share steps get the answers that they get alone, and a slot forgets.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use sardine::engine::{Held, ModelRunner, Outcome, Slot, Step};
use sardine::model::Dtype;

use crate::driving::{Sequence, generate, step, watch};
use crate::fixtures::{Case, load};

#[test]
fn sequences_that_share_steps_answer_as_they_do_alone() {
    let mut runner = load(Dtype::Float32);
    let names = ["text", "one_image", "long", "two_images"];
    let cases = names.map(Case::read);
    let mut sequences: Vec<Sequence> =
        cases.iter().enumerate().map(|(slot, case)| Sequence::new(&case.prompt, slot, case.greedy().len())).collect();
    // One more sequence joins every few steps, so that rows of prompts and of answers mix.
    for tick in 0.. {
        let running = sequences.iter_mut().take(1 + tick / 3).filter(|sequence| !sequence.is_done());
        let mut rows: Vec<(&mut Sequence, usize)> = running.map(|sequence| (sequence, 50)).collect();
        if rows.is_empty() {
            break;
        }
        step(&mut runner, &mut rows);
    }
    for ((name, case), sequence) in names.iter().zip(&cases).zip(&sequences) {
        assert_eq!(sequence.generated, case.greedy(), "{name}");
    }
}

#[test]
fn a_slot_forgets_its_last_sequence() {
    let mut runner = load(Dtype::Float32);
    let (first, second) = (Case::read("long"), Case::read("one_image"));
    generate(&mut runner, &first.prompt, 2, 100, 5);
    // 256 tokens at a time, and never more than the sequence may grow to.
    let max_len = first.prompt.len() + 5;
    let held = runner.held();
    assert!(held.sequences == 1 && held.pictures == 0 && (1..=max_len).contains(&held.kv_tokens), "{held:?}");
    runner.run(&Step { released: vec![Slot(2)], rows: Vec::new() });
    assert_eq!(runner.held(), Held::default());
    assert_eq!(generate(&mut runner, &second.prompt, 2, 100, 24), second.greedy());
    // Also where nobody released it.
    assert_eq!(generate(&mut runner, &first.prompt, 2, 100, 24), first.greedy());
}

#[test]
fn a_row_that_cannot_be_run_fails_alone() {
    let mut runner = load(Dtype::Float32);
    let case = Case::read("text");
    let sound = Sequence::new(&case.prompt, 0, 1).next_row(usize::MAX);
    let faulty = |change: fn(&mut sardine::engine::Row), expected: &'static str| {
        let mut row = Sequence::new(&case.prompt, 1, 1).next_row(usize::MAX);
        change(&mut row);
        (row, expected)
    };
    let faults = [
        faulty(|row| row.ids[3] = 320, "token 320 is outside the vocabulary of 320"),
        faulty(|row| row.slot = Slot(4), "there is no slot 4: the model has 4"),
        faulty(|row| row.start = 9, "memory holds 0 tokens where 9 were expected"),
        faulty(|row| row.ids.clear(), "a row of 0 ids"),
    ];
    for (row, expected) in faults {
        let outputs = runner.run(&Step { released: Vec::new(), rows: vec![row, sound.clone()] });
        let Outcome::Failed(message) = &outputs.rows[0] else { panic!("{:?}", outputs.rows[0]) };
        assert!(message.contains(expected), "{message}");
        let Outcome::Sampled(sampled) = &outputs.rows[1] else { panic!("{:?}", outputs.rows[1]) };
        assert_eq!(sampled.id, case.greedy()[0]);
    }
}

#[test]
fn a_picture_that_does_not_fit_fails_its_row() {
    let mut runner = load(Dtype::Float32);
    let case = Case::read("one_image");
    let mut row = Sequence::new(&case.prompt, 0, 1).next_row(usize::MAX);
    let mut picture = row.pictures[0].picture.as_ref().clone();
    picture.patches.pop();
    row.pictures[0].picture = Arc::new(picture);
    let outputs = runner.run(&Step { released: Vec::new(), rows: vec![row] });
    assert!(matches!(&outputs.rows[0], Outcome::Failed(message) if message.contains("a picture of")), "{outputs:?}");
}

#[test]
fn a_runner_that_panicked_serves_the_next_sequence() {
    let mut runner = load(Dtype::Float32);
    let case = Case::read("text");
    let seen = watch(&mut runner);
    runner.observe(Box::new(|name, _| assert_ne!(name, "layer.5", "on purpose")));
    let panicked = catch_unwind(AssertUnwindSafe(|| generate(&mut runner, &case.prompt, 0, usize::MAX, 1)));
    assert!(panicked.is_err());
    runner.observe(Box::new(|_, _| {}));
    assert_eq!(generate(&mut runner, &case.prompt, 0, usize::MAX, 24), case.greedy());
    drop(seen);
}
