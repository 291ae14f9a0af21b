//! What company and memory do to a picture's numbers: nothing, to the bit, in fp32 and in bf16.

use std::sync::{Arc, Mutex};

use sardine::checkpoint::Checkpoint;
use sardine::engine::{Grid, ModelRunner, Outputs, Picture, PlacedPicture, Prompt, Slot, Step};
use sardine::model::{Dtype, LoadOptions, QwenRunner};
use tch::Tensor;

use crate::driving::{Sequence, step};
use crate::fixtures::{checkpoint, options};
use crate::together::fry;

/// Grids in patches: few tokens (1, 9, 16), more (17 and on), several of a shape, and one that fills a pass alone.
const GRIDS: [[usize; 2]; 9] = [[2, 2], [6, 6], [8, 8], [2, 34], [10, 10], [10, 10], [8, 14], [32, 64], [6, 20]];

#[test]
fn pictures_that_are_seen_together_keep_their_bits() {
    each_model(|checkpoint, dtype| {
        let mut runner = load(checkpoint, dtype, 0);
        let watched = watch_pictures(&mut runner);
        let pictures = pictures(&runner);
        run(&mut runner, &pictures);
        let together = std::mem::take(&mut *watched.lock().unwrap());
        assert_eq!(together.len(), GRIDS.len());
        for (picture, together) in pictures.iter().zip(&together) {
            run(&mut runner, std::slice::from_ref(picture));
            let alone = watched.lock().unwrap().remove(0);
            assert!(alone.equal(together), "{:?} in {dtype:?}", picture.grid);
        }
    });
}

#[test]
fn a_picture_that_comes_again_is_not_computed_again_and_keeps_its_bits() {
    each_model(|checkpoint, dtype| {
        let mut runner = load(checkpoint, dtype, 64 << 20);
        let watched = watch_pictures(&mut runner);
        let pictures = pictures(&runner);
        let first = run(&mut runner, &pictures);
        let computed = std::mem::take(&mut *watched.lock().unwrap());
        // The same pictures, prepared anew for another request and in another order.
        let again: Vec<Picture> =
            pictures.iter().rev().map(|picture| Picture::new(picture.patches.clone(), picture.grid)).collect();
        let second = run(&mut runner, &again);
        let reused = std::mem::take(&mut *watched.lock().unwrap());
        assert_eq!((counts(&first), counts(&second)), ((GRIDS.len(), 0), (0, GRIDS.len())));
        assert_eq!(computed.len(), reused.len());
        assert!(computed.iter().zip(reused.iter().rev()).all(|(one, other)| one.equal(other)), "{dtype:?}");
        let kept: usize = computed.iter().map(|tensor| tensor.numel() * tensor.kind().elt_size_in_bytes()).sum();
        assert_eq!([first, second].map(|outputs| outputs.seen.unwrap().kept_bytes), [kept as u64; 2]);
    });
}

#[test]
fn answers_are_the_same_with_and_without_a_memory_of_pictures() {
    each_model(|checkpoint, dtype| {
        let answers = [0, 64 << 20].map(|cache| {
            let mut runner = load(checkpoint, dtype, cache);
            let prompt = prompt(&runner, &pictures(&runner)[..4]);
            [0, 1].map(|slot| answer(&mut runner, &prompt, slot))
        });
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0][0], answers[0][1]);
    });
}

#[test]
fn a_picture_twice_in_a_prompt_is_seen_once() {
    let mut runner = load(&checkpoint(), Dtype::Float32, 0);
    let picture = pictures(&runner).remove(4);
    let twice = [picture.clone(), picture];
    assert_eq!(counts(&run(&mut runner, &twice)), (1, 1));
    assert_eq!(counts(&run(&mut runner, &twice)), (1, 1), "nothing is kept in 0 bytes");
    assert_eq!(runner.held().pictures, 0);
}

#[test]
fn a_memory_that_is_full_lets_go_of_the_oldest() {
    let mut runner = load(&checkpoint(), Dtype::Float32, 0);
    let bytes_per_token = {
        let watched = watch_pictures(&mut runner);
        let first = pictures(&runner);
        run(&mut runner, &first[..1]);
        let one_token = watched.lock().unwrap().remove(0);
        4 * one_token.numel() as u64
    };
    let mut runner = load(&checkpoint(), Dtype::Float32, 30 * bytes_per_token); // of 25 + 9, then 9 + 16 tokens
    let all = pictures(&runner);
    for (index, expected) in [(4, (1, 0)), (4, (0, 1)), (1, (1, 0)), (2, (1, 0)), (1, (0, 1)), (4, (1, 0))] {
        let outputs = run(&mut runner, &all[index..=index]);
        assert_eq!(counts(&outputs), expected, "picture {index}");
        assert!(outputs.seen.unwrap().kept_bytes <= 30 * bytes_per_token);
    }
}

/// (computed, reused)
fn counts(outputs: &Outputs) -> (usize, usize) {
    outputs.seen.as_ref().map_or((0, 0), |seen| (seen.num_computed, seen.num_reused))
}

fn each_model(check: impl Fn(&Checkpoint, Dtype)) {
    for checkpoint in [checkpoint(), fry()] {
        for dtype in [Dtype::Float32, Dtype::Bfloat16] {
            check(&checkpoint, dtype);
        }
    }
}

fn load(checkpoint: &Checkpoint, dtype: Dtype, picture_cache_bytes: u64) -> QwenRunner {
    let options = LoadOptions { picture_cache_bytes, ..options(dtype) };
    sardine::model::load(checkpoint, &options, &|_, _| {}).unwrap()
}

/// Pictures of noise, all different.
fn pictures(runner: &QwenRunner) -> Vec<Picture> {
    let patch_len = runner.config().vision.as_ref().unwrap().patch_len();
    let noise = |seed: usize| move |index: usize| ((index + seed * 7) * 7919 % 511) as f32 / 255.5 - 1.0;
    let picture = |(seed, [height, width]): (usize, &[usize; 2])| {
        let grid = Grid { height: *height, width: *width };
        Picture::new((0..grid.num_patches() * patch_len).map(noise(seed)).collect(), grid)
    };
    GRIDS.iter().enumerate().map(picture).collect()
}

/// A prompt of pictures with a word between each two.
fn prompt(runner: &QwenRunner, pictures: &[Picture]) -> Prompt {
    let placeholder = runner.config().vision.as_ref().unwrap().image_token_id;
    let (mut ids, mut placed) = (vec![40], Vec::new());
    for picture in pictures {
        let placeholders = ids.len()..ids.len() + picture.grid.num_tokens();
        ids.extend(placeholders.clone().map(|_| placeholder));
        ids.push(41);
        placed.push(PlacedPicture { picture: Arc::new(picture.clone()), placeholders });
    }
    let positions = (0..ids.len() as i64).map(|at| [at; 3]).collect();
    Prompt { ids, positions, rope_delta: 0, pictures: placed }
}

/// Reads a whole prompt of these pictures in one step.
fn run(runner: &mut QwenRunner, pictures: &[Picture]) -> Outputs {
    let prompt = prompt(runner, pictures);
    let outputs = step(runner, &mut [(&mut Sequence::new(&prompt, 0, 1), usize::MAX)]);
    runner.run(&Step { released: vec![Slot(0)], rows: Vec::new() });
    outputs
}

/// A continuation, the prompt read in pieces that end within pictures.
fn answer(runner: &mut QwenRunner, prompt: &Prompt, slot: usize) -> Vec<u32> {
    let mut sequence = Sequence::new(prompt, slot, 8);
    while !sequence.is_done() {
        step(runner, &mut [(&mut sequence, 7)]);
    }
    sequence.generated
}

/// The embeddings of each picture that a sequence is given.
fn watch_pictures(runner: &mut QwenRunner) -> Arc<Mutex<Vec<Tensor>>> {
    let watched = Arc::new(Mutex::new(Vec::new()));
    let store = watched.clone();
    runner.observe(Box::new(move |name, tensor| {
        if name == "vision" {
            store.lock().unwrap().push(tensor.copy());
        }
    }));
    watched
}
