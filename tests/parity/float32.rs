//! In fp32 every hidden state and every choice is Transformers'.

use sardine::model::Dtype;

use crate::driving::{generate, watch};
use crate::fixtures::{CASES, CASES_WITH_LAYERS, Case, difference, load};

const TOLERANCE: f64 = 1e-3;

#[test]
fn hidden_states_are_those_of_transformers() {
    for name in CASES_WITH_LAYERS {
        let case = Case::read(name);
        let mut runner = load(Dtype::Float32);
        let seen = watch(&mut runner);
        generate(&mut runner, &case.prompt, 0, usize::MAX, 1);
        let seen = seen.lock().unwrap();
        for layer in 0..runner.config().text.layer_types.len() {
            let worst = difference(&seen[&format!("layer.{layer}")], case.golden(&format!("fp32.layer.{layer}")));
            println!("{name}: layer {layer} differs by {worst:.1e}");
            assert!(worst < TOLERANCE, "{name}: layer {layer} differs by {worst}");
        }
    }
}

#[test]
fn pictures_embed_as_in_transformers() {
    for (name, num_pictures) in [("one_image", 1), ("two_images", 2)] {
        let case = Case::read(name);
        assert_eq!(case.prompt.pictures.len(), num_pictures);
        let mut runner = load(Dtype::Float32);
        let seen = watch(&mut runner);
        generate(&mut runner, &case.prompt, 0, usize::MAX, 1);
        for index in 0..num_pictures {
            let embeddings = &seen.lock().unwrap()[&format!("vision.{index}")];
            let worst = difference(embeddings, case.golden(&format!("fp32.vision.{index}")));
            assert!(worst < TOLERANCE, "{name}: picture {index} differs by {worst}");
        }
    }
}

#[test]
fn logits_and_greedy_answers_are_those_of_transformers() {
    let mut runner = load(Dtype::Float32);
    let seen = watch(&mut runner);
    for name in CASES {
        let case = Case::read(name);
        generate(&mut runner, &case.prompt, 0, usize::MAX, 1);
        let worst = difference(&seen.lock().unwrap()["logits"].squeeze(), case.golden("fp32.logits"));
        println!("{name}: logits differ by {worst:.1e}");
        assert!(worst < TOLERANCE, "{name}: logits differ by {worst}");
        let greedy = case.greedy();
        assert_eq!(generate(&mut runner, &case.prompt, 0, usize::MAX, greedy.len()), greedy, "{name}");
    }
}

#[test]
fn a_prompt_in_pieces_gives_the_same_answer() {
    let mut runner = load(Dtype::Float32);
    for name in CASES {
        let case = Case::read(name);
        let greedy = case.greedy();
        // Pieces of odd sizes cut pictures and chunks of the delta rule; 1 is the recurrent form all the way.
        for chunk in [1, 3, 7, 33, 64, 100, 513].into_iter().filter(|chunk| case.prompt.len() < 100 * chunk) {
            let answer = generate(&mut runner, &case.prompt, 1, chunk, greedy.len());
            assert_eq!(answer, greedy, "{name} in pieces of {chunk}");
        }
    }
}
