//! What quantising costs: how far the next token's distribution moves from bf16's, on the trained miniature.

use sardine::chat::{Chat, SpecialText};
use sardine::engine::{ModelRunner, Prompt, Slot, Step, Visuals};
use sardine::model::{Dtype, LoadOptions, Quantization, QwenRunner};
use tch::{Kind, Tensor};

use crate::driving::{generate, watch};
use crate::fixtures::options;
use crate::together::{compare, fry};

const QUESTIONS: [&str; 6] = [
    "What is 12 + 7?",
    "What is 38 + 45?",
    "Write the word table backwards.",
    "Write the word lamp in capital letters.",
    "Count from 3 to 9.",
    "My name is Ada. What is my name?",
];

/// Tokens of each answer.
const ANSWER: usize = 12;

#[test]
fn the_next_token_is_nearly_as_likely_as_in_bf16() {
    // Measured: 0.0004 and 0.029 (Kullback-Leibler divergence, the mean over the answers' tokens).
    for (quantization, most) in [(Quantization::Int8, 0.002), (Quantization::Int4, 0.2)] {
        let (mean, same) = divergence(quantization);
        println!("{quantization:?}: {mean:.5} nats from bf16, {:.1} % of the best tokens are the same", 100.0 * same);
        assert!(mean.is_finite() && mean < most, "{quantization:?}: {mean} nats");
        assert!(mean > 0.0, "{quantization:?}: nothing was quantised");
    }
}

#[test]
fn sharing_steps_changes_no_bit_of_a_quantised_model() {
    for quantization in [Quantization::Int8, Quantization::Int4] {
        for dtype in [Dtype::Float32, Dtype::Bfloat16] {
            let mut runner = load(dtype, Some(quantization));
            for count in [2, 5, 17] {
                let change = compare(&mut runner, count);
                assert_eq!((change.logits, change.same_answers), (0.0, count), "{count} sequences, {quantization:?}");
            }
        }
    }
}

/// The mean divergence of the next token's distribution from bf16's, over bf16's own answers, and how often both would choose
/// the same.
fn divergence(quantization: Quantization) -> (f64, f64) {
    let (mut exact, mut quantized) = (load(Dtype::Bfloat16, None), load(Dtype::Bfloat16, Some(quantization)));
    let (mut sum, mut same, mut count) = (0.0, 0.0, 0.0);
    for question in QUESTIONS {
        let question = prompt(question);
        let answer = generate(&mut exact, &question, 0, usize::MAX, ANSWER);
        exact.run(&Step { released: vec![Slot(0)], rows: Vec::new() });
        for len in 0..answer.len() {
            let prefix = longer(&question, &answer[..len]);
            let [exact, quantized] = [&mut exact, &mut quantized].map(|runner| log_probabilities(runner, &prefix));
            sum += (exact.exp() * (&exact - &quantized)).sum(Kind::Double).double_value(&[]);
            same += f64::from(exact.argmax(-1, false).equal(&quantized.argmax(-1, false)));
            count += 1.0;
        }
    }
    (sum / count, same / count)
}

/// Of the token after `prompt`: [vocabulary].
fn log_probabilities(runner: &mut QwenRunner, prompt: &Prompt) -> Tensor {
    let seen = watch(runner);
    generate(runner, prompt, 0, usize::MAX, 1);
    runner.run(&Step { released: vec![Slot(0)], rows: Vec::new() });
    let logits = seen.lock().unwrap()["logits"].squeeze();
    logits.log_softmax(-1, Kind::Double)
}

fn prompt(question: &str) -> Prompt {
    let chat = Chat::load(&fry(), SpecialText::BecomesToken).unwrap();
    let text = format!("<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n");
    chat.raw_prompt(&text, &Visuals::default(), None).unwrap()
}

fn longer(prompt: &Prompt, more: &[u32]) -> Prompt {
    let mut longer = prompt.clone();
    for id in more {
        longer.positions.push([longer.ids.len() as i64; 3]);
        longer.ids.push(*id);
    }
    longer
}

fn load(dtype: Dtype, quantize: Option<Quantization>) -> QwenRunner {
    let options = LoadOptions { max_batch_size: 20, quantize, ..options(dtype) };
    sardine::model::load(&fry(), &options, &|_, _| {}).unwrap()
}
