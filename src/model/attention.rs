//! Gated softmax attention over all tokens before: every fourth layer of the decoder.

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use super::cache::Slots;
use super::config::TextConfig;
use super::kernels::{self, Gate};
use super::layers::{Linear, RmsNorm};
use super::packing::{Asked, Span, pack};
use super::rotary::Rotation;
use super::weights::At;

pub(super) struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: RmsNorm,
    k_norm: RmsNorm,
    num_heads: i64,
    num_kv_heads: i64,
    head_dim: i64,
}

impl Attention {
    pub fn load(at: &At, text: &TextConfig) -> Attention {
        Attention {
            q_proj: Linear::load(&at.at("q_proj")),
            k_proj: Linear::load(&at.at("k_proj")),
            v_proj: Linear::load(&at.at("v_proj")),
            o_proj: Linear::load(&at.at("o_proj")),
            q_norm: RmsNorm::load(&at.at("q_norm"), text.rms_norm_eps),
            k_norm: RmsNorm::load(&at.at("k_norm"), text.rms_norm_eps),
            num_heads: text.num_attention_heads as i64,
            num_kv_heads: text.num_key_value_heads as i64,
            head_dim: text.head_dim as i64,
        }
    }

    /// [tokens, hidden] -> [tokens asked for, hidden], for all `spans` at once; each appends to its own slot's keys and values.
    pub fn forward(
        &self,
        x: &Tensor,
        rotation: &Rotation,
        spans: &[Span],
        asked: Option<&Asked>,
        slots: &mut Slots,
        layer: usize,
    ) -> Tensor {
        let [queries, keys, values] = match asked {
            None => Linear::forward_each([&self.q_proj, &self.k_proj, &self.v_proj], x),
            Some(asked) => {
                let [keys, values] = Linear::forward_each([&self.k_proj, &self.v_proj], x);
                [self.q_proj.forward(&asked.of(x)), keys, values]
            }
        };
        // Query and gate lie side by side in each head.
        let queries_and_gates = queries.view((-1, self.num_heads, 2 * self.head_dim));
        let keys = keys.view((-1, self.num_kv_heads, self.head_dim));
        let values = values.view((-1, self.num_kv_heads, self.head_dim));

        let queries = self.q_norm.forward(&queries_and_gates);
        let queries = match asked {
            None => rotation.rotate(&queries),
            Some(asked) => rotation.only(|angles| asked.of(angles)).rotate(&queries),
        }; // [tokens asked for, heads, head_dim]
        let keys = rotation.rotate(&self.k_norm.forward(&keys)); // [tokens, kv_heads, head_dim]
        let of_queries = asked.map_or(spans, |asked| &asked.spans);
        let attended = spans.iter().zip(of_queries).map(|(span, of_queries)| {
            let store = slots.key_values(span.slot, layer);
            let (keys, values) = store.append(&span.of(&keys), &span.of(&values), span.max_len);
            attend(&of_queries.of(&queries), &keys, &values)
        });
        let attended = pack(attended.collect()); // [tokens asked for, heads * head_dim]
        self.o_proj.forward(&self.gate(&attended, &queries_and_gates))
    }

    /// `attended` [tokens, heads * head_dim] times the sigmoid of the gates, which each head of `queries_and_gates`
    /// [tokens, heads, 2 * head_dim] ends with.
    fn gate(&self, attended: &Tensor, queries_and_gates: &Tensor) -> Tensor {
        let by_head = attended.view((-1, self.num_heads, self.head_dim));
        let gated = kernels::gated(&by_head, queries_and_gates, Gate::Sigmoid).unwrap_or_else(|| {
            let gates = queries_and_gates.narrow(2, self.head_dim, self.head_dim);
            by_head * gates.sigmoid()
        });
        gated.flatten(1, 2)
    }
}

/// Queries of a long prompt are attended to in blocks, so that a mask is never larger than a block of the past.
const QUERY_BLOCK: i64 = 512;

/// Causal attention of `queries` [tokens, heads, head_dim], the last of the sequence whose `keys` and `values` are
/// [kv_heads, length, head_dim] -> [tokens, heads * head_dim].
fn attend(queries: &Tensor, keys: &Tensor, values: &Tensor) -> Tensor {
    let num_tokens = queries.size()[0];
    if num_tokens == 1 {
        return attend_one(queries, keys, values);
    }
    if let Some(attended) = kernels::attend_many(&queries.contiguous(), keys, values, true) {
        return attended;
    }
    let past = keys.size()[1] - num_tokens;
    let blocks = (0..num_tokens).step_by(QUERY_BLOCK as usize).map(|first| {
        let len = QUERY_BLOCK.min(num_tokens - first);
        let visible = past + first + len;
        attend_block(&queries.narrow(0, first, len), &keys.narrow(1, 0, visible), &values.narrow(1, 0, visible))
    });
    pack(blocks.collect()).flatten(1, 2)
}

/// One token sees everything. On a GPU its query heads that share a key head become that head's queries: as numbers the same as
/// repeating the keys, and cheaper.
fn attend_one(queries: &Tensor, keys: &Tensor, values: &Tensor) -> Tensor {
    let (_, heads, head_dim) = queries.size3().expect("Invariant: queries are [tokens, heads, head_dim]");
    if let Some(attended) = kernels::attend_one(&queries.contiguous(), keys, values) {
        return attended;
    }
    let kv_heads = keys.size()[0];
    let queries = queries.reshape([1, kv_heads, heads / kv_heads, head_dim]);
    attention(&queries, &keys.unsqueeze(0), &values.unsqueeze(0), None, false).reshape([1, heads * head_dim])
}

/// Queries [block, heads, head_dim] that are the last of [kv_heads, visible, head_dim], of the same shape.
fn attend_block(queries: &Tensor, keys: &Tensor, values: &Tensor) -> Tensor {
    let (block, heads, head_dim) = queries.size3().expect("Invariant: queries are [tokens, heads, head_dim]");
    let (kv_heads, visible) = (keys.size()[0], keys.size()[1]);
    let group = heads / kv_heads;
    let queries = queries.view((block, kv_heads, group, head_dim)).permute([1, 2, 0, 3]); // [kv_heads, group, block, head_dim]
    let shared = |x: &Tensor| x.unsqueeze(1).expand([kv_heads, group, visible, head_dim], false); // no copy
    let is_start = visible == block;
    let mask = (!is_start).then(|| {
        Tensor::ones([block, visible], (Kind::Bool, queries.device())).tril(visible - block) // [block, visible]
    });
    let attended = attention(&queries, &shared(keys), &shared(values), mask.as_ref(), is_start);
    attended.permute([2, 0, 1, 3]).reshape([block, heads, head_dim])
}

/// softmax(q k^T / sqrt(head_dim)) v over the last two dimensions. The first of the four are heads that know nothing of each
/// other: on a CPU each thread takes some.
pub(super) fn attention(
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    mask: Option<&Tensor>,
    is_causal: bool,
) -> Tensor {
    let attend = |queries: &Tensor, keys: &Tensor, values: &Tensor, mask: Option<&Tensor>| {
        Tensor::scaled_dot_product_attention(queries, keys, values, mask, 0.0, is_causal, None, false)
    };
    if queries.device() != Device::Cpu {
        return attend(queries, keys, values, mask);
    }
    let parts = rayon::current_num_threads() as i64;
    let heads = queries.chunk(parts, 0).into_iter().zip(keys.chunk(parts, 0)).zip(values.chunk(parts, 0));
    let heads: Vec<_> = heads.map(|heads| (heads, mask.map(Tensor::shallow_clone))).collect();
    let attended = heads.into_par_iter().map(|(((q, k), v), mask)| attend(&q, &k, &v, mask.as_ref()));
    Tensor::cat(&attended.collect::<Vec<_>>(), 0)
}
