//! The gated delta rule's two forms against each other, against Transformers, and against the rule written out plainly.

use std::collections::HashMap;

use sardine::model::delta_rule::{DeltaInputs, HeadShape, chunked, gated_delta_rule, one_each, recurrent};
use tch::{Device, Kind, Tensor};

use crate::fixtures::{difference, folder, read_tensors};

const LENGTHS: [i64; 6] = [1, 3, 63, 64, 65, 130];
const TOLERANCE: f64 = 1e-4;

struct Golden(HashMap<String, Tensor>);

impl Golden {
    fn read() -> Golden {
        Golden(read_tensors(&folder().join("fixtures/delta_rule.safetensors")))
    }

    fn get(&self, tokens: i64, name: &str) -> &Tensor {
        &self.0[&format!("T{tokens}.{name}")]
    }

    fn inputs(&self, tokens: i64) -> DeltaInputs {
        let get = |name| self.get(tokens, name);
        inputs([get("q"), get("k"), get("v"), get("beta"), get("g")])
    }
}

/// Of q, k and v [tokens, heads, dim] each, and of beta and decay.
fn inputs([q, k, v, beta, decay]: [&Tensor; 5]) -> DeltaInputs {
    let mixed = Tensor::cat(&[q, k, v].map(|x| x.flatten(1, 2)), 1);
    let shape = HeadShape { num_heads: v.size()[1], key_dim: k.size()[2], value_dim: v.size()[2] };
    DeltaInputs::new(mixed, beta.shallow_clone(), decay.shallow_clone(), shape)
}

#[test]
fn every_form_computes_what_transformers_computes() {
    let golden = Golden::read();
    type Form = fn(&DeltaInputs, &mut Tensor) -> Tensor;
    let forms: [(&str, Form); 3] = [("recurrent", recurrent), ("chunked", chunked), ("chosen", gated_delta_rule)];
    for tokens in LENGTHS {
        for (name, form) in forms {
            let mut state = golden.get(tokens, "state").copy();
            let out = form(&golden.inputs(tokens), &mut state);
            let worst =
                difference(&out, golden.get(tokens, "out")).max(difference(&state, golden.get(tokens, "last_state")));
            assert!(worst < TOLERANCE, "{name} over {tokens} tokens differs by {worst}");
        }
    }
}

#[test]
fn the_rule_written_out_plainly_agrees() {
    let golden = Golden::read();
    for tokens in LENGTHS {
        let (out, state) = plainly(&golden, tokens);
        let worst =
            difference(&out, golden.get(tokens, "out")).max(difference(&state, golden.get(tokens, "last_state")));
        assert!(worst < TOLERANCE, "{tokens} tokens differ by {worst}");
    }
}

#[test]
fn a_state_can_be_continued_by_either_form() {
    let golden = Golden::read();
    let inputs = golden.inputs(130);
    for cut in [1, 5, 64, 77, 129] {
        let mut state = golden.get(130, "state").copy();
        let first = chunked(&inputs.narrow(0, cut), &mut state);
        let second = recurrent(&inputs.narrow(cut, 130 - cut), &mut state);
        let worst = difference(&Tensor::cat(&[first, second], 0), golden.get(130, "out"));
        assert!(worst < TOLERANCE, "cut at {cut}: differs by {worst}");
    }
}

#[test]
fn sequences_together_get_the_bits_that_they_get_alone() {
    const MOST: i64 = 8;
    let random = |shape: &[i64]| Tensor::rand(shape, (Kind::Float, Device::Cpu));
    // The test checkpoint's sizes, the trained miniature's, and those of the 4B model.
    for (key_heads, heads, key_dim, value_dim) in [(2, 4, 16, 24), (2, 4, 32, 32), (16, 32, 128, 128)] {
        let (q, k) = (random(&[MOST, key_heads, key_dim]), random(&[MOST, key_heads, key_dim]));
        let (v, beta) = (random(&[MOST, heads, value_dim]), random(&[MOST, heads]));
        let inputs = inputs([&q, &k, &v, &beta, &-random(&[MOST, heads])]);
        let begin = random(&[MOST, heads, key_dim, value_dim]);
        let each = |form: fn(&DeltaInputs, &mut Tensor) -> Tensor| {
            let states = begin.copy();
            let of = |sequence| form(&inputs.narrow(sequence, 1), &mut states.narrow(0, sequence, 1));
            (Tensor::cat(&(0..MOST).map(of).collect::<Vec<_>>(), 0), states)
        };
        let (outputs, alone) = each(one_each);
        let (plain_outputs, plain_states) = each(|inputs, states| recurrent(inputs, &mut states.get(0)));
        let worst = difference(&outputs, &plain_outputs).max(difference(&alone, &plain_states));
        assert!(worst < 1e-5, "{heads} heads differ by {worst} from the plain form");
        for count in 1..=MOST {
            let mut states = begin.narrow(0, 0, count).copy();
            let together = one_each(&inputs.narrow(0, count), &mut states);
            assert!(together.equal(&outputs.narrow(0, 0, count)), "{count} of {heads} heads: what is read");
            assert!(states.equal(&alone.narrow(0, 0, count)), "{count} of {heads} heads: what is kept");
        }
    }
}

/// The rule as the paper writes it, value head by value head, in f64: the slow reference of the fast forms.
fn plainly(golden: &Golden, tokens: i64) -> (Tensor, Tensor) {
    let get = |name| golden.get(tokens, name).to_kind(Kind::Double);
    let (q, k, v, beta, decay) = (get("q"), get("k"), get("v"), get("beta"), get("g"));
    let (heads, key_heads, key_dim) = (v.size()[1], q.size()[1], q.size()[2] as f64);
    let unit = |x: Tensor| &x / (x.square().sum(Kind::Double) + 1e-6).sqrt();
    let (mut outputs, mut states) = (Vec::new(), Vec::new());
    for head in 0..heads {
        let key_head = head / (heads / key_heads);
        let mut state = get("state").get(head); // [key_dim, value_dim]
        for token in 0..tokens {
            let at = |x: &Tensor, head| x.get(token).get(head);
            let (q, k) = (unit(at(&q, key_head)) / key_dim.sqrt(), unit(at(&k, key_head)));
            state *= at(&decay, head).exp();
            let correction = (at(&v, head) - state.tr().mv(&k)) * at(&beta, head);
            state += k.outer(&correction);
            outputs.push(state.tr().mv(&q));
        }
        states.push(state);
    }
    let value_dim = v.size()[2];
    let outputs = Tensor::stack(&outputs, 0).view((heads, tokens, value_dim)).transpose(0, 1);
    (outputs, Tensor::stack(&states, 0))
}
