//! The gated delta rule: how a state matrix is decayed, corrected and read, token by token or in chunks.
//!
//! Yang, Kautz, Hatamizadeh, "Gated Delta Networks" (2024), and the chunked form of Yang et al., "Parallelizing Linear
//! Transformers with the Delta Rule" (2024). Everything here is computed in fp32.

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use super::delta_inputs::Heads;
pub use super::delta_inputs::{DeltaInputs, HeadShape};
use super::kernels;

/// Up to so many tokens the recurrent form is the faster one.
const FEW_TOKENS: i64 = 4;
/// Tokens of a chunk, as in Transformers.
const CHUNK: i64 = 64;
/// Chunks that are prepared together: more would not stay in the CPU's caches.
const CHUNKS_AT_ONCE: i64 = 4;

/// Runs the rule over a sequence's tokens, from `state` [heads, key_dim, value_dim], which it leaves as it is after the last
/// of them. Returns [tokens, heads, value_dim], as all forms do rounded to the type of what they read.
pub fn gated_delta_rule(inputs: &DeltaInputs, state: &mut Tensor) -> Tensor {
    if inputs.num_tokens() > FEW_TOKENS {
        let chunks = kernels::delta_chunks(&inputs.mixed, &inputs.beta, &inputs.decay, state);
        return chunks.unwrap_or_else(|| chunked(inputs, state));
    }
    let mut states = state.unsqueeze(0);
    let outputs = (0..inputs.num_tokens()).map(|token| one_each(&inputs.narrow(token, 1), &mut states));
    Tensor::cat(&outputs.collect::<Vec<_>>(), 0)
}

/// Token by token: the plain form, and the reference of the others.
pub fn recurrent(inputs: &DeltaInputs, state: &mut Tensor) -> Tensor {
    let mut states = state.unsqueeze(0);
    let outputs = (0..inputs.num_tokens()).map(|token| advance(&inputs.narrow(token, 1), &mut states));
    Tensor::cat(&outputs.collect::<Vec<_>>(), 0)
}

/// One token of each of some sequences, whose `states` [sequences, heads, key_dim, value_dim] lie one after the other. Returns
/// [sequences, heads, value_dim]. What a sequence gets does not depend on the others: each head is a matrix of its own.
pub fn one_each(inputs: &DeltaInputs, states: &mut Tensor) -> Tensor {
    let step = kernels::delta_step(&inputs.mixed, &inputs.beta, &inputs.decay, states);
    step.unwrap_or_else(|| advance(inputs, states))
}

/// The rule itself, for one token of each sequence:
/// ```text
/// S = S * exp(decay);  S += k (beta * (v - S^T k))^T;  o = S^T q
/// ```
fn advance(inputs: &DeltaInputs, states: &mut Tensor) -> Tensor {
    let heads = inputs.by_head();
    let row = |x: &Tensor| x.flatten(0, 1).unsqueeze(1); // [matrices, 1, dim]
    let (q, k, v) = (row(&heads.q), row(&heads.k), row(&heads.v));
    let each = |x: &Tensor| x.reshape([-1, 1, 1]);
    let mut state = states.view((-1, k.size()[2], v.size()[2])); // [matrices, key_dim, value_dim]

    let _ = state.g_mul_(&each(&heads.decay.exp()));
    let correction = (v - k.bmm(&state)) * each(&heads.beta); // [matrices, 1, value_dim]
    let _ = state.baddbmm_(&k.transpose(1, 2), &correction);
    q.bmm(&state).view_as(&heads.v).to_kind(inputs.mixed.kind())
}

/// In chunks: within a chunk the corrections are solved for at once, between chunks the state is carried.
pub fn chunked(inputs: &DeltaInputs, state: &mut Tensor) -> Tensor {
    let heads = inputs.by_head();
    if state.device() != Device::Cpu {
        return all_chunks(&heads, state).to_kind(inputs.mixed.kind());
    }
    // Heads know nothing of each other: each thread takes some.
    let parts = heads.share(state, rayon::current_num_threads() as i64);
    let outputs = parts.into_par_iter().map(|(heads, mut state)| all_chunks(&heads, &mut state));
    Tensor::cat(&outputs.collect::<Vec<_>>(), 1).to_kind(inputs.mixed.kind())
}

fn all_chunks(heads: &Heads, state: &mut Tensor) -> Tensor {
    let num_tokens = heads.num_tokens();
    let mut outputs = Vec::new();
    let mut first = 0;
    while first < num_tokens {
        let left = num_tokens - first;
        // What is left over at the end is a smaller chunk of its own: nothing is padded.
        let (chunk, chunks) = if left < CHUNK { (left, 1) } else { (CHUNK, (left / CHUNK).min(CHUNKS_AT_ONCE)) };
        outputs.push(chunks_of(&heads.narrow(first, chunk * chunks), chunk, state));
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
fn chunks_of(inputs: &Heads, chunk: i64, state: &mut Tensor) -> Tensor {
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
