//! The gated delta rule: how a state matrix is decayed, corrected and read, token by token or in chunks.
//!
//! Yang, Kautz, Hatamizadeh, "Gated Delta Networks" (2024), and the chunked form of Yang et al., "Parallelizing Linear
//! Transformers with the Delta Rule" (2024). Everything here is fp32.

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use super::elementwise::{by_rows, elementwise};
use super::kernels;

/// What the rule reads for each token.
pub struct DeltaInputs {
    q: Tensor,     // [tokens, heads, key_dim], of length 1 / sqrt(key_dim)
    k: Tensor,     // [tokens, heads, key_dim], of length 1
    v: Tensor,     // [tokens, heads, value_dim]
    beta: Tensor,  // [tokens, heads]: how much of the correction is written
    decay: Tensor, // [tokens, heads]: logarithm of what the state is multiplied by
}

impl DeltaInputs {
    /// From q and k [tokens, key_heads, key_dim], v [tokens, heads, value_dim], beta and decay [tokens, heads]: normalised,
    /// in fp32, each key head repeated for the value heads of its group.
    pub fn new(q: &Tensor, k: &Tensor, v: &Tensor, beta: &Tensor, decay: &Tensor) -> DeltaInputs {
        let heads = v.size()[1];
        let key_dim = q.size()[2] as f64;
        DeltaInputs {
            q: by_rows([q], |[q]| repeat_heads(&(unit_length(q) * key_dim.powf(-0.5)), heads)),
            k: by_rows([k], |[k]| repeat_heads(&unit_length(k), heads)),
            v: by_rows([v], |[v]| v.to_kind(Kind::Float)),
            beta: beta.to_kind(Kind::Float),
            decay: decay.to_kind(Kind::Float),
        }
    }

    pub fn narrow(&self, first: i64, len: i64) -> DeltaInputs {
        let part = |x: &Tensor| x.narrow(0, first, len);
        DeltaInputs {
            q: part(&self.q),
            k: part(&self.k),
            v: part(&self.v),
            beta: part(&self.beta),
            decay: part(&self.decay),
        }
    }

    /// Cuts the heads into so many parts, at most, and `state` [heads, key_dim, value_dim] with them.
    fn share_heads(&self, state: &Tensor, parts: i64) -> Vec<(DeltaInputs, Tensor)> {
        let DeltaInputs { q, k, v, beta, decay } = self;
        let [q, k, v, beta, decay] = [q, k, v, beta, decay].map(|x| x.chunk(parts, 1));
        let inputs = q.into_iter().zip(k).zip(v).zip(beta).zip(decay);
        let inputs = inputs.map(|((((q, k), v), beta), decay)| DeltaInputs { q, k, v, beta, decay });
        inputs.zip(state.chunk(parts, 0)).collect()
    }

    fn num_tokens(&self) -> i64 {
        self.q.size()[0]
    }
}

/// `x / |x|` over the last dimension, with Transformers' epsilon inside the root.
fn unit_length(x: &Tensor) -> Tensor {
    let x = x.to_kind(Kind::Float);
    let inverse = (x.square().sum_dim_intlist(-1, true, Kind::Float) + 1e-6).rsqrt();
    x * inverse
}

/// Value heads 2i and 2i+1 share key head i (for two a key head): grouped, not tiled.
fn repeat_heads(x: &Tensor, heads: i64) -> Tensor {
    let (tokens, key_heads, dim) = x.size3().expect("Invariant: keys are [tokens, heads, dim]");
    if key_heads == heads {
        return x.shallow_clone();
    }
    x.unsqueeze(2).expand([tokens, key_heads, heads / key_heads, dim], false).reshape([tokens, heads, dim])
}

/// Up to so many tokens the recurrent form is the faster one.
const FEW_TOKENS: i64 = 4;
/// Tokens of a chunk, as in Transformers.
const CHUNK: i64 = 64;
/// Chunks that are prepared together: more would not stay in the CPU's caches.
const CHUNKS_AT_ONCE: i64 = 4;

/// Runs the rule over a sequence's tokens, from `state` [heads, key_dim, value_dim], which it leaves as it is after the last
/// of them. Returns [tokens, heads, value_dim].
pub fn gated_delta_rule(inputs: &DeltaInputs, state: &mut Tensor) -> Tensor {
    if inputs.num_tokens() <= FEW_TOKENS {
        let mut state = state.unsqueeze(0);
        let outputs = (0..inputs.num_tokens()).map(|token| one_each(&inputs.narrow(token, 1), &mut state));
        return Tensor::cat(&outputs.collect::<Vec<_>>(), 0);
    }
    if state.device() != Device::Cpu {
        return chunked(inputs, state);
    }
    // Heads know nothing of each other: each thread takes some.
    let parts = inputs.share_heads(state, rayon::current_num_threads() as i64);
    let outputs = parts.into_par_iter().map(|(inputs, mut state)| chunked(&inputs, &mut state));
    Tensor::cat(&outputs.collect::<Vec<_>>(), 1)
}

/// Token by token: the plain form, and the reference of the others.
pub fn recurrent(inputs: &DeltaInputs, state: &mut Tensor) -> Tensor {
    let mut state = state.unsqueeze(0);
    let outputs = (0..inputs.num_tokens()).map(|token| advance(&inputs.narrow(token, 1), &mut state));
    Tensor::cat(&outputs.collect::<Vec<_>>(), 0)
}

/// One token of each of some sequences, whose `states` [sequences, heads, key_dim, value_dim] lie one after the other. Returns
/// [sequences, heads, value_dim]. What a sequence gets does not depend on the others: each head is a matrix of its own.
pub fn one_each(inputs: &DeltaInputs, states: &mut Tensor) -> Tensor {
    let DeltaInputs { q, k, v, beta, decay } = inputs;
    kernels::delta_step([q, k, v, beta, decay], states).unwrap_or_else(|| advance(inputs, states))
}

/// The rule itself, for one token of each sequence:
/// ```text
/// S = S * exp(decay);  S += k (beta * (v - S^T k))^T;  o = S^T q
/// ```
fn advance(inputs: &DeltaInputs, states: &mut Tensor) -> Tensor {
    let row = |x: &Tensor| x.flatten(0, 1).unsqueeze(1); // [matrices, 1, dim]
    let (q, k, v) = (row(&inputs.q), row(&inputs.k), row(&inputs.v));
    let each = |x: &Tensor| x.reshape([-1, 1, 1]);
    let mut state = states.view((-1, k.size()[2], v.size()[2])); // [matrices, key_dim, value_dim]

    let _ = state.g_mul_(&each(&elementwise(&inputs.decay, Tensor::exp)));
    let correction = (v - k.bmm(&state)) * each(&inputs.beta); // [matrices, 1, value_dim]
    let _ = state.baddbmm_(&k.transpose(1, 2), &correction);
    q.bmm(&state).view_as(&inputs.v)
}

/// In chunks: within a chunk the corrections are solved for at once, between chunks the state is carried.
pub fn chunked(inputs: &DeltaInputs, state: &mut Tensor) -> Tensor {
    let num_tokens = inputs.num_tokens();
    let mut outputs = Vec::new();
    let mut first = 0;
    while first < num_tokens {
        let left = num_tokens - first;
        // What is left over at the end is a smaller chunk of its own: nothing is padded.
        let (chunk, chunks) = if left < CHUNK { (left, 1) } else { (CHUNK, (left / CHUNK).min(CHUNKS_AT_ONCE)) };
        outputs.push(chunks_of(&inputs.narrow(first, chunk * chunks), chunk, state));
        first += chunk * chunks;
    }
    Tensor::cat(&outputs, 0)
}

/// The rule over tokens that make whole chunks of `chunk`.
///
/// With G the decay summed up within a chunk and D_ij = exp(G_i - G_j) for j <= i:
/// ```text
/// A = (beta K K^T) o D, of which I + tril(A, -1) counts;  P = (Q K^T) o D
/// U = A^-1 (beta V);  W = A^-1 (beta K exp(G))
/// V' = U - W S;  O = (Q exp(G)) S + P V';  S = S exp(G_last) + (K exp(G_last - G))^T V'
/// ```
fn chunks_of(inputs: &DeltaInputs, chunk: i64, state: &mut Tensor) -> Tensor {
    let (tokens, heads, value_dim) = inputs.v.size3().expect("Invariant: values are [tokens, heads, value_dim]");
    let chunks = tokens / chunk;
    let by_chunk = |x: &Tensor| x.transpose(0, 1).reshape([heads, chunks, chunk, -1]); // [heads, chunks, chunk, dim]
    let (q, k, v, beta) = (by_chunk(&inputs.q), by_chunk(&inputs.k), by_chunk(&inputs.v), by_chunk(&inputs.beta));
    let decay = by_chunk(&inputs.decay).cumsum(2, Kind::Float); // G: [heads, chunks, chunk, 1]
    let last = decay.narrow(2, chunk - 1, 1);

    // Above the diagonal the difference is positive and its exponential would overflow.
    let above = Tensor::ones([chunk, chunk], (Kind::Bool, q.device())).triu(1);
    let between = (&decay - decay.transpose(2, 3)).masked_fill(&above, f64::NEG_INFINITY).exp(); // D
    let keys = k.transpose(2, 3);
    let written = &k * &beta;
    let within = written.matmul(&keys) * &between; // A
    let read = q.matmul(&keys) * &between; // P
    let grown = decay.exp();
    let right = Tensor::cat(&[v * &beta, written * &grown], 3);
    let solved = within.linalg_solve_triangular(&right, false, true, true); // the diagonal counts as ones
    let (corrections, by_state) = (solved.narrow(3, 0, value_dim), solved.narrow(3, value_dim, k.size()[3])); // U, W

    let reads = q * grown;
    let writes = (k * (&last - &decay).exp()).transpose(2, 3);
    let carried = last.exp();
    let outputs = (0..chunks).map(|i| {
        let at = |x: &Tensor| x.select(1, i);
        let values = at(&corrections).baddbmm(&at(&by_state), state, 1, -1); // V': [heads, chunk, value_dim]
        let output = at(&reads).bmm(state) + at(&read).bmm(&values);
        let _ = state.g_mul_(&at(&carried));
        let _ = state.baddbmm_(&at(&writes), &values);
        output.transpose(0, 1) // [chunk, heads, value_dim]
    });
    Tensor::cat(&outputs.collect::<Vec<_>>(), 0)
}
