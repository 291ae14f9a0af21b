//! In bf16 rounding differs from build to build, so likeness is measured: the angle between logits, and the best five.

use sardine::model::Dtype;
use tch::{Kind, Tensor};

use crate::driving::{generate, watch};
use crate::fixtures::{CASES, CASES_WITH_LAYERS, Case, integers, load};

#[test]
fn logits_are_as_near_to_fp32_as_those_of_transformers() {
    let mut runner = load(Dtype::Bfloat16);
    let seen = watch(&mut runner);
    for name in CASES {
        let case = Case::read(name);
        generate(&mut runner, &case.prompt, 0, usize::MAX, 1);
        let ours = seen.lock().unwrap()["logits"].squeeze();
        let (theirs, exact) = (case.golden("bf16.logits"), case.golden("fp32.logits"));
        let (likeness, shared) = (cosine(&ours, theirs), shared_in_top_five(&ours, theirs));
        let (our_error, their_error) = (1.0 - cosine(&ours, exact), 1.0 - cosine(theirs, exact));
        println!(
            "{name}: cosine {likeness:.5}, {shared} of the best five; off fp32 by {our_error:.5}, Transformers by {their_error:.5}"
        );
        // Two pictures send even Transformers' own bf16 to a cosine of 0.945 from its fp32, with two of the best five.
        assert!(likeness > 0.9 && shared >= 2, "{name}: cosine {likeness}, {shared} of the best five");
        assert!(
            our_error < 2.0 * their_error + 0.005,
            "{name}: off fp32 by {our_error}, Transformers by {their_error}"
        );
    }
}

#[test]
fn hidden_states_point_where_those_of_transformers_point() {
    for name in CASES_WITH_LAYERS {
        let case = Case::read(name);
        let mut runner = load(Dtype::Bfloat16);
        let seen = watch(&mut runner);
        generate(&mut runner, &case.prompt, 0, usize::MAX, 1);
        for layer in 0..runner.config().text.layer_types.len() {
            let ours = &seen.lock().unwrap()[&format!("layer.{layer}")];
            let cosine = cosine(ours, case.golden(&format!("bf16.layer.{layer}")));
            println!("{name}: layer {layer} has cosine {cosine:.6}");
            assert!(cosine > 0.99, "{name}: layer {layer} has cosine {cosine}");
        }
    }
}

#[test]
fn pictures_embed_alike() {
    let mut runner = load(Dtype::Bfloat16);
    let seen = watch(&mut runner);
    let case = Case::read("two_images");
    generate(&mut runner, &case.prompt, 0, usize::MAX, 1);
    for index in 0..2 {
        let ours = &seen.lock().unwrap()[&format!("vision.{index}")];
        assert_eq!(ours.kind(), Kind::BFloat16);
        let cosine = cosine(ours, case.golden(&format!("bf16.vision.{index}")));
        println!("picture {index}: cosine {cosine:.6}");
        assert!(cosine > 0.9995, "picture {index}: cosine {cosine}");
    }
}

pub fn cosine(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.flatten(0, -1).to_kind(Kind::Double), b.flatten(0, -1).to_kind(Kind::Double));
    (a.dot(&b) / (a.norm() * b.norm())).double_value(&[])
}

pub fn shared_in_top_five(a: &Tensor, b: &Tensor) -> usize {
    let best = |x: &Tensor| integers(&x.to_kind(Kind::Float).topk(5, -1, true, true).1);
    let theirs = best(b);
    best(a).iter().filter(|id| theirs.contains(id)).count()
}
