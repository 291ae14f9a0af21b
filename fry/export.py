"""Writes the checkpoint in the real layout: configs, and bf16 safetensors with the real tensor names."""
import math

import torch
from safetensors.torch import load_file, save_file

import encode as E
import model as M
import pictures as P

CLIP_PIXELS = {"longest_edge": 98304, "shortest_edge": 36864}  # for a whole clip: 4 to 8 frames of 9 to 24 tokens a pair


def processor(kind, pixels):
    return {"size": pixels, "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2, "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3, "processor_class": "Qwen3VLProcessor", **kind}


def write_checkpoint(folder, model, draft):
    first = M.BASE_VOCAB
    E.write(folder / "config.json", M.config())
    E.write(folder / "generation_config.json", {"bos_token_id": first, "do_sample": False, "eos_token_id": [first + 2, first],
                                                "pad_token_id": first})
    E.write(folder / "preprocessor_config.json", processor(
        {"image_processor_type": "Qwen2VLImageProcessorFast"}, {"longest_edge": P.MAX_PIXELS, "shortest_edge": P.MIN_PIXELS}))
    E.write(folder / "video_preprocessor_config.json", processor({"video_processor_type": "Qwen3VLVideoProcessor"}, CLIP_PIXELS))
    tensors = {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}  # tied to the embedding
    tensors |= {f"mtp.{k}": v for k, v in draft.state_dict().items()}
    tensors = {k: v.detach().to(torch.bfloat16).contiguous().clone() for k, v in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    E.write(folder / "model.safetensors.index.json", {
        "metadata": {"total_parameters": sum(math.prod(v.shape) for v in tensors.values()),
                     "total_size": sum(2 * math.prod(v.shape) for v in tensors.values())},
        "weight_map": {k: "model.safetensors" for k in sorted(tensors)}})
    print(f"{len(tensors)} tensors, {sum(v.numel() for v in tensors.values()):,} parameters")


def read_checkpoint(path, model, draft):
    """What `write_checkpoint` wrote, as fp32 masters to train on from."""
    tensors = {k: v.float() for k, v in load_file(path).items()}
    model.load_state_dict({k: v for k, v in tensors.items() if not k.startswith("mtp.")}, strict=False)  # lm_head is tied
    draft.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("mtp.")})
