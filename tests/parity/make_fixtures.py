#!/usr/bin/env python3
"""Makes the parity suite's checkpoint and its goldens, both committed beside this file.

    python make_fixtures.py            # writes checkpoint/ and fixtures/

Made with torch 2.13.0, transformers 5.23.0, safetensors 0.8 and tokenizers 0.23; everything is seeded, so that a run
with these versions gives the same bytes.

checkpoint/  A random Qwen3.5 of about half a million parameters in the exact Hugging Face layout: every ratio that the
             layers depend on is kept (grouped queries, two value heads a key head, key and value widths that differ,
             partial rotary, an uneven mRoPE section), MTP tensors and two shards with an index included.
fixtures/    <case>.safetensors: what Transformers computes for one prompt.
               ids [tokens], positions [3, tokens], rope_delta [1]
               patches.{i} u8 [patches, 3 * 16 * 16], grid.{i} [height, width], placeholders.{i} [start, end]
               {fp32,bf16}.logits [vocab]            after the last token of the prompt
               {fp32,bf16}.vision.{i} [tokens, hidden]
               {fp32,bf16}.layer.{i} [tokens, hidden]  the short cases only
               fp32.greedy [24], fp32.margin [1]     the continuation, and its closest call between two tokens
             delta_rule.safetensors: the gated delta rule alone, T{n}.{q,k,v,g,beta,state,out,last_state}.
"""
import hashlib, json, math, os, shutil, warnings
warnings.filterwarnings("ignore")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

HERE = os.path.dirname(os.path.abspath(__file__))
CHECKPOINT, FIXTURES = os.path.join(HERE, "checkpoint"), os.path.join(HERE, "fixtures")
SEED = 20261124
NEW_TOKENS = 24

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
           "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
           "<|image_pad|>", "<|video_pad|>"]
PLAIN = ["<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
         "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
ADDED = {text: 256 + i for i, text in enumerate(SPECIAL + PLAIN)}
VOCAB = 320
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
TEMPLATE = """{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.content is string %}{{- message.content }}
{%- else %}
{%- for part in message.content %}
{%- if part.type == 'text' %}{{- part.text }}
{%- else %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- endif %}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

CONFIG = {
    "architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5", "tie_word_embeddings": True,
    "image_token_id": ADDED["<|image_pad|>"], "video_token_id": ADDED["<|video_pad|>"],
    "vision_start_token_id": ADDED["<|vision_start|>"], "vision_end_token_id": ADDED["<|vision_end|>"],
    "text_config": {
        "model_type": "qwen3_5_text", "dtype": "bfloat16", "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
        "hidden_act": "silu", "rms_norm_eps": 1e-06, "attention_bias": False, "attention_dropout": 0.0,
        "attn_output_gate": True, "full_attention_interval": 4,
        "layer_types": ["full_attention" if i % 4 == 3 else "linear_attention" for i in range(8)],
        "linear_conv_kernel_dim": 4, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "linear_key_head_dim": 16, "linear_value_head_dim": 24, "mamba_ssm_dtype": "float32",
        "max_position_embeddings": 4096, "mtp_num_hidden_layers": 1, "mtp_use_dedicated_embeddings": False,
        "eos_token_id": ADDED["<|endoftext|>"], "tie_word_embeddings": True, "use_cache": True, "vocab_size": VOCAB,
        "rope_parameters": {"mrope_interleaved": True, "mrope_section": [2, 1, 1], "rope_type": "default",
                            "rope_theta": 10000000, "partial_rotary_factor": 0.25},
    },
    "vision_config": {
        "model_type": "qwen3_5", "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2,
        "in_channels": 3, "patch_size": 16, "temporal_patch_size": 2, "spatial_merge_size": 2,
        "num_position_embeddings": 64, "out_hidden_size": 64, "hidden_act": "gelu_pytorch_tanh",
        "deepstack_visual_indexes": [],
    },
}
PREPROCESSOR = {"size": {"longest_edge": 1048576, "shortest_edge": 1024}, "patch_size": 16, "temporal_patch_size": 2,
                "merge_size": 2, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
                "processor_class": "Qwen3VLProcessor", "image_processor_type": "Qwen2VLImageProcessorFast"}


def tokenizer():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tok = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT), "isolated"),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    from tokenizers import AddedToken
    tok.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in SPECIAL])
    tok.add_tokens([AddedToken(text, normalized=False, special=False) for text in PLAIN])
    assert all(tok.token_to_id(text) == i for text, i in ADDED.items())
    return tok


def draw(name, shape):
    """One tensor, from the seed and its name alone. Scaled by fan-in, so that every branch adds about as much as the
    residual carries and greedy decoding has healthy margins."""
    g = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(f"{SEED}:{name}".encode()).digest()[:7], "little"))
    normal = lambda std, mean=0.0: torch.empty(shape).normal_(mean, std, generator=g)
    if name.endswith("A_log"):
        return torch.empty(shape).uniform_(0.5, 16.0, generator=g).log()
    if name.endswith("dt_bias"):
        step = torch.exp(torch.empty(shape).uniform_(math.log(0.001), math.log(0.1), generator=g))
        return step + torch.log(-torch.expm1(-step))
    if name.endswith("linear_attn.norm.weight"):
        return normal(0.1, 1.0)
    if name in ("model.language_model.norm.weight", "mtp.norm.weight"):
        return normal(0.1, 2.0)                       # spreads the logits
    if name.startswith("model.visual") and "norm" in name:
        return normal(0.1, 1.0) if name.endswith("weight") else normal(0.05)
    if "norm" in name:
        return normal(0.1)                            # zero-centred
    if name.endswith("bias"):
        return normal(0.05)
    if "pos_embed" in name:
        return normal(0.3)
    if name.endswith("conv1d.weight"):
        return normal(0.4)
    return normal(1.0 / math.sqrt(math.prod(shape[1:])))


def mtp_shapes(c):
    h, i, d = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    q, kv, layer = c["num_attention_heads"] * d, c["num_key_value_heads"] * d, "mtp.layers.0."
    return {"mtp.fc.weight": (h, 2 * h), "mtp.pre_fc_norm_embedding.weight": (h,), "mtp.pre_fc_norm_hidden.weight": (h,),
            "mtp.norm.weight": (h,), layer + "input_layernorm.weight": (h,), layer + "post_attention_layernorm.weight": (h,),
            layer + "self_attn.q_proj.weight": (2 * q, h), layer + "self_attn.k_proj.weight": (kv, h),
            layer + "self_attn.v_proj.weight": (kv, h), layer + "self_attn.o_proj.weight": (h, q),
            layer + "self_attn.q_norm.weight": (d,), layer + "self_attn.k_norm.weight": (d,),
            layer + "mlp.gate_proj.weight": (i, h), layer + "mlp.up_proj.weight": (i, h), layer + "mlp.down_proj.weight": (h, i)}


def write_checkpoint():
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration
    shutil.rmtree(CHECKPOINT, ignore_errors=True)
    os.makedirs(CHECKPOINT)
    put = lambda name, value: open(os.path.join(CHECKPOINT, name), "w", encoding="utf-8").write(
        value if isinstance(value, str) else json.dumps(value, indent=2) + "\n")
    put("config.json", CONFIG)
    put("preprocessor_config.json", PREPROCESSOR)
    put("generation_config.json", {"do_sample": False, "eos_token_id": [ADDED["<|im_end|>"], ADDED["<|endoftext|>"]],
                                   "pad_token_id": ADDED["<|endoftext|>"]})
    put("chat_template.jinja", TEMPLATE)
    put("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>",
                                  "pad_token": "<|endoftext|>", "model_max_length": 4096, "clean_up_tokenization_spaces": False})
    tokenizer().save(os.path.join(CHECKPOINT, "tokenizer.json"))
    with torch.device("meta"):
        model = Qwen3_5ForConditionalGeneration(Qwen3_5Config(**json.loads(json.dumps(CONFIG))))
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items() if k != "lm_head.weight"}
    shapes |= mtp_shapes(CONFIG["text_config"])
    names = sorted(shapes)
    halves = [names[:len(names) // 2], names[len(names) // 2:]]
    where = {}
    for i, half in enumerate(halves):
        shard = f"model-{i + 1:05d}-of-{len(halves):05d}.safetensors"
        save_file({k: draw(k, shapes[k]).to(torch.bfloat16) for k in half}, os.path.join(CHECKPOINT, shard), {"format": "pt"})
        where |= {k: shard for k in half}
    put("model.safetensors.index.json", {"metadata": {"total_size": sum(2 * math.prod(s) for s in shapes.values())},
                                         "weight_map": where})


def picture(height, width, seed):
    """Colour gradients, a rectangle and noise, of a size that needs no resizing."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (height + width)], -1)
    pixels[height // 4:height // 2, width // 4:width // 2] = rng.integers(0, 256, 3)
    return Image.fromarray((pixels + rng.normal(0, 20, pixels.shape)).clip(0, 255).astype(np.uint8))


LONG = ("The recurrent state of a gated delta network is decayed, corrected and read once for every token. A prompt of "
        "several chunks has to give the same answer in one piece, in many pieces, and token by token. ") * 5


def cases():
    chat = lambda text: f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    return {
        "text": dict(text=chat("What do sardines eat?")),
        "one_token": dict(text="H"),
        "tokens_63": dict(text=LONG[:63]), "tokens_64": dict(text=LONG[:64]), "tokens_65": dict(text=LONG[:65]),
        "long": dict(text=chat(LONG[:700])),
        "one_image": dict(text=chat(image + "Describe it."), images=[(64, 96, 1)]),
        "two_images": dict(text=chat("Compare " + image + " with " + image + "."), images=[(96, 96, 2), (64, 128, 3)]),
    }


def inputs(tok, processor, case):
    pictures = [picture(*spec) for spec in case.get("images", [])]
    seen = processor(images=pictures, return_tensors="pt") if pictures else {}
    pad, text = "<|image_pad|>", case["text"]
    for grid in (seen["image_grid_thw"].tolist() if pictures else []):
        text = text.replace(pad, "<placeholder>" * (math.prod(grid) // 4), 1)
    ids = torch.tensor([tok.encode(text.replace("<placeholder>", pad), add_special_tokens=False).ids])
    x = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": (ids == ADDED[pad]).int()}
    return x | {k: seen[k] for k in ("pixel_values", "image_grid_thw") if k in seen}


def describe(model, x):
    """The prompt as the fixture stores it: ids, positions and pictures."""
    positions, delta = model.model.get_rope_index(
        x["input_ids"], mm_token_type_ids=x["mm_token_type_ids"], image_grid_thw=x.get("image_grid_thw"),
        attention_mask=x["attention_mask"])
    out = {"ids": x["input_ids"][0], "positions": positions[:, 0], "rope_delta": delta.reshape(1)}
    if "pixel_values" in x:
        starts = [i for i in range(1, len(out["ids"])) if out["ids"][i] == ADDED["<|image_pad|>"] != out["ids"][i - 1]]
        patches = x["pixel_values"].split(x["image_grid_thw"].prod(-1).tolist())
        for i, (rows, (_, height, width), start) in enumerate(zip(patches, x["image_grid_thw"].tolist(), starts)):
            frames = rows.view(-1, 3, 2, 256)
            assert torch.equal(frames[:, :, 0], frames[:, :, 1])      # a still image is its own second frame
            levels = (frames[:, :, 0] * 127.5 + 127.5).round()
            assert torch.equal((levels - 127.5) / 127.5, frames[:, :, 0])
            out[f"patches.{i}"] = levels.reshape(-1, 768).to(torch.uint8)
            out[f"grid.{i}"] = torch.tensor([height, width])
            out[f"placeholders.{i}"] = torch.tensor([start, start + height * width // 4])
    return out


def compute(model, x, dtype, with_layers):
    """Logits, hidden states and picture embeddings of one prompt; in fp32 the greedy continuation too."""
    out, hooks = {}, []
    if with_layers:
        for i, layer in enumerate(model.model.language_model.layers):
            hooks.append(layer.register_forward_hook(lambda _m, _a, o, i=i: out.__setitem__(f"{dtype}.layer.{i}", o[0].clone())))
    model.model.rope_deltas = None
    logits = model(**x).logits[0, -1]
    for hook in hooks:
        hook.remove()
    out[f"{dtype}.logits"] = logits
    if "pixel_values" in x:
        seen = model.model.get_image_features(x["pixel_values"], x["image_grid_thw"], return_dict=True).pooler_output
        out |= {f"{dtype}.vision.{i}": rows for i, rows in enumerate(seen)}
    if dtype == "fp32":
        model.model.rope_deltas = None
        answer = model.generate(**x, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None, pad_token_id=0,
                                return_dict_in_generate=True, output_logits=True)
        best = torch.stack(answer.logits, 1)[0].topk(2, -1).values
        out["fp32.greedy"] = answer.sequences[0, x["input_ids"].shape[1]:]
        out["fp32.margin"] = (best[:, 0] - best[:, 1]).min().reshape(1)
    return out


def write_delta_rule():
    import transformers.models.qwen3_5.modeling_qwen3_5 as m
    out = {}
    for tokens in (1, 3, 63, 64, 65, 130):
        g = torch.Generator().manual_seed(tokens)
        normal = lambda *shape: torch.randn(*shape, generator=g)
        q, k, v = normal(1, tokens, 2, 8), normal(1, tokens, 2, 8), normal(1, tokens, 4, 12)
        beta, decay = normal(1, tokens, 4).sigmoid(), -torch.nn.functional.softplus(normal(1, tokens, 4))
        state = normal(1, 4, 8, 12) if tokens != 63 else torch.zeros(1, 4, 8, 12)
        o, last = m.torch_chunk_gated_delta_rule(q, k, v, g=decay, beta=beta, initial_state=state, output_final_state=True,
                                                 use_qk_l2norm_in_kernel=True)
        named = dict(q=q, k=k, v=v, beta=beta, g=decay, state=state, out=o, last_state=last)
        out |= {f"T{tokens}.{name}": value[0] for name, value in named.items()}
    save(out, "delta_rule")


def save(tensors, name):
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, os.path.join(FIXTURES, name + ".safetensors"))


def main():
    from transformers import AutoModelForImageTextToText, Qwen2VLImageProcessor
    write_checkpoint()
    shutil.rmtree(FIXTURES, ignore_errors=True)
    os.makedirs(FIXTURES)
    write_delta_rule()
    tok, processor = tokenizer(), Qwen2VLImageProcessor.from_pretrained(CHECKPOINT)
    load = lambda dtype: AutoModelForImageTextToText.from_pretrained(CHECKPOINT, dtype=dtype).eval()
    models = {"fp32": load(torch.float32), "bf16": load(torch.bfloat16)}
    for name, case in cases().items():
        x = inputs(tok, processor, case)
        out = describe(models["fp32"], x)
        for dtype, model in models.items():
            out |= compute(model, x, dtype, with_layers=name in ("text", "one_image"))
        save(out, name)
        margin = out["fp32.margin"].item()
        print(f"{name:12s} {len(out['ids']):4d} tokens, closest greedy call {margin:.4f}: {out['fp32.greedy'].tolist()[:10]}")
        assert margin > 0.005, "too close to call: change SEED"
    size = sum(os.path.getsize(os.path.join(d, f)) for d in (CHECKPOINT, FIXTURES) for f in os.listdir(d))
    print(f"{size / 1e6:.2f} MB in all")


if __name__ == "__main__":
    with torch.no_grad():
        main()
