"""The miniature's sizes and a fast training forward over Transformers' own modules.

The parameters live in `Qwen3_5ForConditionalGeneration`, so the tensor names are the real ones. Only the forward is
written again, for speed on a CPU: the delta net between its projections is one operation in C (`delta.c`), projections
of one input are one product, and pictures of one size share one batched tower call.
"""
import copy
import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5Config
from transformers.models.qwen3_5.modeling_qwen3_5 import (
    Qwen3_5DecoderLayer, Qwen3_5ForConditionalGeneration, Qwen3_5RMSNorm)

from fast import Delta

NUM_LAYERS, INTERVAL = 8, 4
PADDED_VOCAB = 1536
BASE_VOCAB = 1480  # the 33 added tokens follow, then ids without a token up to PADDED_VOCAB


def config():
    """config.json of the miniature; every ratio of the 4B that matters is kept distinct."""
    first = BASE_VOCAB
    return {
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "model_type": "qwen3_5",
        "image_token_id": first + 12,
        "video_token_id": first + 13,
        "vision_start_token_id": first + 9,
        "vision_end_token_id": first + 10,
        "tie_word_embeddings": True,
        "transformers_version": "4.57.0.dev0",
        "text_config": {
            "model_type": "qwen3_5_text",
            "dtype": "bfloat16",
            "vocab_size": PADDED_VOCAB,
            "hidden_size": 192,
            "intermediate_size": 448,
            "num_hidden_layers": NUM_LAYERS,
            "full_attention_interval": INTERVAL,
            "layer_types": ["full_attention" if (i + 1) % INTERVAL == 0 else "linear_attention" for i in range(NUM_LAYERS)],
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "attn_output_gate": True,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-06,
            "initializer_range": 0.02,
            "max_position_embeddings": 4096,
            "linear_conv_kernel_dim": 4,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 32,
            "linear_value_head_dim": 32,
            "mamba_ssm_dtype": "float32",
            "mlp_only_layers": [],
            "mtp_num_hidden_layers": 1,
            "mtp_use_dedicated_embeddings": False,
            "eos_token_id": first,
            "tie_word_embeddings": True,
            "use_cache": True,
            "rope_parameters": {"mrope_interleaved": True, "mrope_section": [3, 3, 2], "rope_type": "default",
                                "rope_theta": 10000, "partial_rotary_factor": 0.25},
        },
        "vision_config": {
            "model_type": "qwen3_5",
            "depth": 3,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_heads": 4,
            "in_channels": 3,
            "patch_size": 16,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "num_position_embeddings": 144,
            "out_hidden_size": 192,
            "hidden_act": "gelu_pytorch_tanh",
            "deepstack_visual_indexes": [],
            "initializer_range": 0.02,
        },
    }


class DraftHead(nn.Module):
    """The one multi-token-prediction layer; its parameter names are those under `mtp.` in the checkpoint."""

    def __init__(self, text_config):
        super().__init__()
        h = text_config.hidden_size
        c = copy.deepcopy(text_config)
        c.layer_types, c.num_hidden_layers = ["full_attention"], 1
        self.fc = nn.Linear(2 * h, h, bias=False)
        self.pre_fc_norm_embedding = Qwen3_5RMSNorm(h)
        self.pre_fc_norm_hidden = Qwen3_5RMSNorm(h)
        self.norm = Qwen3_5RMSNorm(h)
        self.layers = nn.ModuleList([Qwen3_5DecoderLayer(c, 0)])


def build(seed=0):
    """The model and its draft head in fp32 (a text config that says bfloat16 builds a bf16 language model otherwise)."""
    torch.manual_seed(seed)
    c = Qwen3_5Config(**copy.deepcopy(config()))
    c._attn_implementation = "sdpa"
    model = Qwen3_5ForConditionalGeneration(c).float()
    draft = DraftHead(model.config.text_config).float()
    for name, p in [*model.named_parameters(), *draft.named_parameters()]:
        initialise(name, p.data)
    assert all(p.dtype == torch.float32 for p in [*model.parameters(), *draft.parameters()])
    return model, draft


def initialise(name, p):
    """Fan-in scaling, residual branches smaller; norms, A_log and biases stay as Transformers made them."""
    if "conv1d" in name:
        p.normal_(0, 0.2)
        p[..., -1] += 0.6
    elif "pos_embed" in name:
        p.normal_(0, 0.3)
    elif "dt_bias" in name:
        dt = torch.exp(torch.rand_like(p) * (math.log(0.1) - math.log(0.001)) + math.log(0.001))
        p.copy_(dt + torch.log(-torch.expm1(-dt)))
    elif p.dim() >= 2:
        p.normal_(0, 1 / math.sqrt(math.prod(p.shape[1:])))
        if any(s in name for s in ("o_proj", "out_proj", "down_proj", "attn.proj", "mlp.linear_fc2")):
            p.mul_(0.35)


def rotate_half(x):
    a, b = x.chunk(2, -1)
    return torch.cat((-b, a), -1)


def rms(x, norm):
    return F.rms_norm(x, (x.shape[-1],), 1 + norm.weight, 1e-6)


# ------------------------------------------------------------------------------------------------------ vision tower
_tower_tables = {}


def tower_tables(visual, rows, cols):
    """Taps and weights of the learned position table, and the rotary tables, for one grid in merge-block order."""
    if (rows, cols) not in _tower_tables:
        side = visual.num_grid_per_side
        r = torch.arange(rows).view(rows // 2, 1, 2, 1).expand(rows // 2, cols // 2, 2, 2).reshape(-1)
        c = torch.arange(cols).view(1, cols // 2, 1, 2).expand(rows // 2, cols // 2, 2, 2).reshape(-1)
        taps, weights = [], []
        fr, fc = (v.float() * (side - 1) / max(n - 1, 1) for v, n in ((r, rows), (c, cols)))
        r0, c0 = fr.floor().long(), fc.floor().long()
        for dr in (0, 1):
            for dc in (0, 1):
                taps.append((r0 + dr).clamp(max=side - 1) * side + (c0 + dc).clamp(max=side - 1))
                weights.append((fr - r0 if dr else 1 - fr + r0) * (fc - c0 if dc else 1 - fc + c0))
        cos, sin = visual.rotary_pos_emb(torch.zeros(1), torch.stack([r, c], 1))
        _tower_tables[rows, cols] = torch.stack(taps, 1), torch.stack(weights, 1), cos[:, None], sin[:, None]
    return _tower_tables[rows, cols]


HALF = torch.float32  # of products, or bfloat16 (`--bf16`); the residual stream, norms, softmax and the delta rule are fp32


def linear(x, *modules):
    """Several projections of one input as one product."""
    w = torch.cat([m.weight for m in modules]) if len(modules) > 1 else modules[0].weight
    bias = modules[0].bias
    y = F.linear(x.to(HALF), w.to(HALF), None if bias is None else bias.to(HALF))
    return y.split([m.weight.shape[0] for m in modules], -1) if len(modules) > 1 else y


def norm(x, m):
    return F.layer_norm(x, (x.shape[-1],), m.weight, m.bias, m.eps)


def attend(q, k, v, mask=None, causal=False):
    """Short sequences: plain products beat the fused kernel."""
    s = (q @ k.mT).float() * q.shape[-1] ** -0.5
    if causal:
        mask = torch.ones(s.shape[-2:], dtype=torch.bool).tril()
    if mask is not None:
        s = s.masked_fill(~mask, float("-inf"))
    return s.softmax(-1).to(v.dtype) @ v


def tower(visual, pixels, rows, cols):
    """pixels [N, rows*cols, 768 for stills or 1536 for frame pairs] -> [N * rows*cols/4, hidden]."""
    n, p, width = pixels.shape
    taps, weights, cos, sin = tower_tables(visual, rows, cols)
    w = visual.patch_embed.proj.weight  # [hidden, 3, 2, 16, 16]
    w = (w.sum(2) if width == 768 else w).reshape(w.shape[0], -1)
    x = F.linear(pixels.to(HALF), w.to(HALF)) + (visual.patch_embed.proj.bias + (visual.pos_embed(taps) * weights[:, :, None]).sum(1))
    for b in visual.blocks:
        q, k, v = linear(norm(x, b.norm1), b.attn.qkv).view(n, p, 3, b.attn.num_heads, -1).unbind(2)
        q, k = ((u * cos + rotate_half(u) * sin).to(HALF) for u in (q, k))
        o = attend(*(u.transpose(1, 2) for u in (q, k, v)))
        x = x + linear(o.transpose(1, 2).reshape(n, p, -1), b.attn.proj)
        x = x + linear(F.gelu(linear(norm(x, b.norm2), b.mlp.linear_fc1), approximate="tanh"), b.mlp.linear_fc2)
    m = visual.merger
    x = norm(x.reshape(n * p, -1), m.norm).view(n * p // 4, -1)
    return linear(F.gelu(linear(x, m.linear_fc1)), m.linear_fc2).float()


# --------------------------------------------------------------------------------------------------- language model
def delta_net(m, x):
    mixed, z, ba, a = linear(x, m.in_proj_qkv, m.in_proj_z, m.in_proj_b, m.in_proj_a)
    o = Delta.apply(mixed, m.conv1d.weight[:, 0].T, z, torch.cat([ba, a], -1), m.A_log, m.dt_bias, m.norm.weight)
    return linear(o, m.out_proj)


def rotate(u, cos, sin):
    r = cos.shape[-1]
    return torch.cat([u[..., :r] * cos + rotate_half(u[..., :r]) * sin, u[..., r:]], -1)


def rows_of(x, rows):
    """x [B, T, ...] at rows [B, R]."""
    return x[torch.arange(len(rows))[:, None], rows]


def attention(m, x, cos, sin, rows=None):
    """With `rows` only those positions ask (and are returned); all positions are keys."""
    b, t, _ = x.shape
    d = m.head_dim
    if rows is None:
        q, k, v = linear(x, m.q_proj, m.k_proj, m.v_proj)
    else:
        q, (k, v) = linear(rows_of(x, rows), m.q_proj), linear(x, m.k_proj, m.v_proj)
    q, gate = q.view(b, q.shape[1], -1, 2 * d).chunk(2, -1)
    q, k = rms(q.float(), m.q_norm), rms(k.reshape(b, t, -1, d).float(), m.k_norm)
    q = rotate(q, cos, sin) if rows is None else rotate(q, rows_of(cos, rows), rows_of(sin, rows))
    k, v = rotate(k, cos, sin), v.reshape(b, t, -1, d)
    q, k, v = (u.to(HALF).transpose(1, 2) for u in (q, k, v))
    groups = q.shape[1] // k.shape[1]
    k, v = (u.repeat_interleave(groups, 1) for u in (k, v))
    mask = None if rows is None else torch.arange(t) <= rows[:, None, :, None]
    o = attend(q, k, v, mask, causal=rows is None).transpose(1, 2)
    return linear((o * gate.sigmoid()).reshape(b, o.shape[1], -1), m.o_proj)


def layer(m, x, cos, sin, rows=None):
    n = rms(x, m.input_layernorm).to(HALF)
    mixed = delta_net(m.linear_attn, n) if hasattr(m, "linear_attn") else attention(m.self_attn, n, cos, sin, rows)
    x = (x if rows is None else rows_of(x, rows)) + mixed
    gate, up = linear(rms(x, m.post_attention_layernorm), m.mlp.gate_proj, m.mlp.up_proj)
    return x + linear(F.silu(gate) * up, m.mlp.down_proj)


def embed(model, batch):
    """Token embeddings with the pictures' features put in place of their pads, and the rotary tables."""
    lm = model.model.language_model
    x = lm.embed_tokens(batch["ids"])
    if batch["pictures"]:
        h = x.shape[-1]
        places, features = [], []
        for (rows, cols), pixels, where in batch["pictures"]:
            features.append(tower(model.model.visual, pixels, rows, cols))
            places.append(where)
        x = x.reshape(-1, h).index_put((torch.cat(places),), torch.cat(features)).view(x.shape)
    cos, sin = lm.rotary_emb(x, batch["positions"])
    return x, cos[:, :, None], sin[:, :, None]


def body(model, batch, before_attention=None):
    """Everything under the last layer: [B, T, hidden], and what the last layer and the draft head need besides.

    `before_attention` is shown what enters the first attention layer.
    """
    x, cos, sin = embedded = embed(model, batch)
    for m in model.model.language_model.layers[:-1]:
        if before_attention and hasattr(m, "self_attn"):
            before_attention(x)
        x = layer(m, x, cos, sin)
    return x, embedded


def top(model, x, embedded, rows=None):
    """The last layer, an attention layer, and the final norm; with `rows` [B, R] for those positions only."""
    lm = model.model.language_model
    return rms(layer(lm.layers[-1], x, *embedded[1:], rows), lm.norm)


def hidden(model, batch):
    """The language model's output after the final norm, and what the draft head needs: [B, T, hidden]."""
    x, embedded = body(model, batch)
    return top(model, x, embedded), embedded


def draft_hidden(draft, embedded, trunk, rows=None):
    """Row p sees token p+1 and the trunk's output at p, at position p; it predicts token p+2. [B, T-1 or R, hidden]."""
    x, cos, sin = embedded
    z = torch.cat([rms(x[:, 1:], draft.pre_fc_norm_embedding), rms(trunk[:, :-1], draft.pre_fc_norm_hidden)], -1)
    return rms(layer(draft.layers[0], linear(z, draft.fc).float(), cos[:, :-1], sin[:, :-1], rows), draft.norm)


# --------------------------------------------------------------------------------------------------------- optimiser
class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalised updates.

    Matrices of one shape are orthogonalised together as one batch.
    """

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.02, steps=4):
        super().__init__(list(params), dict(lr=lr, momentum=momentum, weight_decay=weight_decay, steps=steps))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                m = self.state[p].setdefault("momentum", torch.zeros_like(p))
                m.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(m, group["momentum"])
                flip = p.shape[0] > p.shape[1]
                shapes.setdefault(tuple(sorted(p.shape)), []).append((p, update.T if flip else update, flip))
            for (small, large), entries in shapes.items():
                x = torch.stack([u for _, u, _ in entries])
                x = (x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)).to(HALF)
                for _ in range(group["steps"]):
                    a = x @ x.mT
                    x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
                scale = 0.2 * math.sqrt(large)  # the update's rms is that of a typical AdamW step
                for (p, _, flip), u in zip(entries, x):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(u.T if flip else u, alpha=-group["lr"] * scale)


def optimisers(named, muon_lr, adam_lr=2e-3):
    """Muon for the matrices, AdamW for embeddings, biases, norms and convolutions."""
    named = list({id(p): (n, p) for n, p in named}.values())  # tied parameters once
    is_matrix = lambda n, p: p.dim() == 2 and "embed" not in n and "lm_head" not in n and not n.startswith("head_")
    rest = [p for n, p in named if not is_matrix(n, p)]
    found = [torch.optim.AdamW(rest, lr=adam_lr, betas=(0.9, 0.98), weight_decay=0.0)]
    matrices = [p for n, p in named if is_matrix(n, p)]
    if matrices:
        found.append(Muon(matrices, muon_lr))
    for o in found:
        for g in o.param_groups:
            g["base_lr"] = g["lr"]
    return found
