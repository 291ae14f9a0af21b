//! What the gated delta rule reads: the convolved channels, and the same head by head.

use tch::{Device, Kind, Tensor};

use super::elementwise::by_rows;

/// The heads of a layer, each with a state of `key_dim` by `value_dim`; neighbours share a key head.
#[derive(Debug, Clone, Copy)]
pub struct HeadShape {
    pub num_heads: i64,
    pub key_dim: i64,
    pub value_dim: i64,
}

/// What the rule reads for each token.
pub struct DeltaInputs {
    pub(super) mixed: Tensor, // [tokens, channels]: queries and keys of all key heads, then values of all heads
    pub(super) beta: Tensor,  // [tokens, heads], fp32: how much of the correction is written
    pub(super) decay: Tensor, // [tokens, heads], fp32: logarithm of what the state is multiplied by
    shape: HeadShape,
    /// Where each operator is a launch: the tokens are cut by head once, not by everyone who reads some of them.
    heads: Option<Heads>,
}

impl DeltaInputs {
    pub fn new(mixed: Tensor, beta: Tensor, decay: Tensor, shape: HeadShape) -> DeltaInputs {
        let mut inputs = DeltaInputs { mixed, beta, decay, shape, heads: None };
        if inputs.mixed.device() != Device::Cpu {
            inputs.heads = Some(inputs.by_head());
        }
        inputs
    }

    pub fn narrow(&self, first: i64, len: i64) -> DeltaInputs {
        let part = |x: &Tensor| x.narrow(0, first, len);
        DeltaInputs {
            mixed: part(&self.mixed),
            beta: part(&self.beta),
            decay: part(&self.decay),
            shape: self.shape,
            heads: self.heads.as_ref().map(|heads| heads.narrow(first, len)),
        }
    }

    pub(super) fn num_tokens(&self) -> i64 {
        self.mixed.size()[0]
    }

    /// Normalised, each key head repeated for the heads of its group.
    pub(super) fn by_head(&self) -> Heads {
        if let Some(heads) = &self.heads {
            return heads.narrow(0, self.num_tokens());
        }
        let HeadShape { num_heads, key_dim, value_dim } = self.shape;
        let values = num_heads * value_dim;
        let keys = (self.mixed.size()[1] - values) / 2;
        let cut = |first: i64, len: i64, dim: i64| self.mixed.narrow(1, first, len).reshape([-1, len / dim, dim]);
        let (q, k, v) = (cut(0, keys, key_dim), cut(keys, keys, key_dim), cut(2 * keys, values, value_dim));
        Heads {
            q: by_rows([&q], |[q]| repeat_heads(&(unit_length(q) * (key_dim as f64).powf(-0.5)), num_heads)),
            k: by_rows([&k], |[k]| repeat_heads(&unit_length(k), num_heads)),
            v: by_rows([&v], |[v]| v.to_kind(Kind::Float)),
            beta: self.beta.shallow_clone(),
            decay: self.decay.shallow_clone(),
        }
    }
}

/// The inputs head by head, all fp32.
pub(super) struct Heads {
    pub q: Tensor,     // [tokens, heads, key_dim], of length 1 / sqrt(key_dim)
    pub k: Tensor,     // [tokens, heads, key_dim], of length 1
    pub v: Tensor,     // [tokens, heads, value_dim]
    pub beta: Tensor,  // [tokens, heads]
    pub decay: Tensor, // [tokens, heads]
}

impl Heads {
    pub fn narrow(&self, first: i64, len: i64) -> Heads {
        let part = |x: &Tensor| x.narrow(0, first, len);
        Heads { q: part(&self.q), k: part(&self.k), v: part(&self.v), beta: part(&self.beta), decay: part(&self.decay) }
    }

    /// Cuts the heads into so many parts, at most, and `state` [heads, key_dim, value_dim] with them.
    pub fn share(&self, state: &Tensor, parts: i64) -> Vec<(Heads, Tensor)> {
        let Heads { q, k, v, beta, decay } = self;
        let [q, k, v, beta, decay] = [q, k, v, beta, decay].map(|x| x.chunk(parts, 1));
        let heads = q.into_iter().zip(k).zip(v).zip(beta).zip(decay);
        let heads = heads.map(|((((q, k), v), beta), decay)| Heads { q, k, v, beta, decay });
        heads.zip(state.chunk(parts, 0)).collect()
    }

    pub fn num_tokens(&self) -> i64 {
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
