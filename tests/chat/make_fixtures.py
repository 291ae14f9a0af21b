"""Writes the chat fixtures with Transformers 5.23: python tests/chat/make_fixtures.py [REAL_CHECKPOINT]

fixtures/fry.json holds texts, token ids and positions by the project's own template and tokenizer. With the path of a
checkpoint of the real family, fixtures/real.json holds digests of the same by its files, which are not part of the project.
"""

import hashlib
import json
import sys
from pathlib import Path

import jinja2
import torch
from transformers import AutoConfig, AutoProcessor, AutoTokenizer
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5Model
from transformers.video_utils import VideoMetadata

from conversations import CONVERSATIONS, PICTURES, TEXTS, VIDEOS

HERE = Path(__file__).parent


def parse_arguments(messages):
    """Tool calls as the template wants them: OpenAI's strings of JSON become objects."""
    messages = json.loads(json.dumps(messages))
    for message in messages:
        for call in message.get("tool_calls") or []:
            function = call.get("function", call)
            if isinstance(function.get("arguments"), str):
                function["arguments"] = json.loads(function["arguments"])
    return messages


def render(tokenizer, conversation):
    return tokenizer.apply_chat_template(
        parse_arguments(conversation["messages"]),
        tools=conversation["tools"] or None,
        add_generation_prompt=conversation["ending"] == "generation_prompt",
        continue_final_message=conversation["ending"] == "continue",
        tokenize=False,
        **conversation["variables"],
    )


def outcome(tokenizer, conversation):
    """The rendering, or why it is refused: None where Transformers fails in words of its own."""
    try:
        text = render(tokenizer, conversation)
    except Exception as error:
        is_for_clients = type(error) is jinja2.TemplateError or "continue_final_message" in str(error)
        return {"error": str(error) if is_for_clients else None}
    return {"text": text, "ids": tokenizer(text)["input_ids"]}


def place_pictures(tokenizer, text, grids, pad="<|image_pad|>"):
    parts = text.split(pad)
    assert len(parts) == len(grids) + 1
    expanded = parts[0] + "".join(pad * (h * w // 4) + part for (h, w), part in zip(grids, parts[1:]))
    return tokenizer(expanded)["input_ids"]


def positions(model, tokenizer, ids, grids):
    image = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    ids = torch.tensor([ids])
    found, delta = model.get_rope_index(
        ids, (ids == image).int(), image_grid_thw=torch.tensor([(1, h, w) for h, w in grids])
    )
    return found[:, 0].T.tolist(), int(delta)


VIDEO_PLACE = "<|vision_start|><|video_pad|><|vision_end|>"


def place_videos(processor, text, videos, place):
    """`text` with the frames of `videos` in the places of videos. Transformers 4.57 had all of VIDEO_PLACE for `place`."""
    parts = text.split(place)
    assert len(parts) == len(videos) + 1
    for index, (grid, indices, fps) in enumerate(videos):
        metadata = VideoMetadata(total_num_frames=indices[-1] + 1, fps=fps, frames_indices=list(indices))
        inputs = {"video_grid_thw": torch.tensor([grid]), "video_metadata": [metadata]}
        parts[index] += processor.replace_video_token(inputs, video_idx=0)
    return "".join(parts)


def positions_with_videos(model, tokenizer, ids, grids, videos):
    image, video = (tokenizer.convert_tokens_to_ids(pad) for pad in ("<|image_pad|>", "<|video_pad|>"))
    ids = torch.tensor([ids])
    found, delta = model.get_rope_index(
        ids, (ids == image).int() + 2 * (ids == video).int(),
        image_grid_thw=torch.tensor([(1, h, w) for h, w in grids]) if grids else None,
        video_grid_thw=torch.tensor([grid for grid, _, _ in videos]),
    )
    return found[:, 0].T.tolist(), int(delta)


def digest(values):
    return hashlib.sha256(json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


def collect(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.device("meta"):
        model = Qwen3_5Model(AutoConfig.from_pretrained(folder))
    rendered, pictures, texts = [], [], []
    for name, conversation in CONVERSATIONS.items():
        rendered.append({"name": name, "conversation": conversation, **outcome(tokenizer, conversation)})
    for name, (conversation, grids) in PICTURES.items():
        ids = place_pictures(tokenizer, render(tokenizer, conversation), grids)
        places, delta = positions(model, tokenizer, ids, grids)
        case = {"name": name, "conversation": conversation, "grids": grids, "ids": ids}
        pictures.append({**case, "positions": places, "rope_delta": delta})
    videos = []
    processor = AutoProcessor.from_pretrained(folder)
    for name, (conversation, grids, clips) in VIDEOS.items():
        text = render(tokenizer, conversation)
        case = {"name": name, "conversation": conversation, "grids": grids, "clips": clips}
        for key, place in (("inside", "<|video_pad|>"), ("instead", VIDEO_PLACE)):
            ids = place_pictures(tokenizer, place_videos(processor, text, clips, place), grids)
            places, delta = positions_with_videos(model, tokenizer, ids, grids, clips)
            case[key] = {"ids": ids, "positions": places, "rope_delta": delta}
        videos.append(case)
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        decoded = tokenizer.decode(ids), tokenizer.decode(ids, skip_special_tokens=True)
        texts.append({"text": text, "ids": ids, "decoded": decoded[0], "decoded_without_special": decoded[1]})
    return {"rendered": rendered, "pictures": pictures, "videos": videos, "texts": texts}


def digested(found):
    """The fixtures without a word of the template: only digests of what it renders."""
    rendered = []
    for case in found["rendered"]:
        hidden = {key: digest(case[key]) for key in ("text", "ids", "error") if case.get(key) is not None}
        rendered.append({**case, **hidden})
    pictures = [{**case, "ids": digest(case["ids"]), "positions": digest(case["positions"])} for case in found["pictures"]]
    hidden = lambda prompt: {**prompt, "ids": digest(prompt["ids"]), "positions": digest(prompt["positions"])}
    videos = [{**case, "inside": hidden(case["inside"]), "instead": hidden(case["instead"])} for case in found["videos"]]
    return {"rendered": rendered, "pictures": pictures, "videos": videos, "texts": found["texts"]}


def write(name, found):
    lines = lambda cases: "[\n" + ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases) + "\n]"
    text = "{\n" + ",\n".join(f'"{key}": {lines(cases)}' for key, cases in found.items()) + "\n}\n"
    (HERE / "fixtures" / name).write_text(text)


if __name__ == "__main__":
    write("fry.json", collect(HERE.parents[1] / "fry"))
    if len(sys.argv) > 1:
        write("real.json", digested(collect(sys.argv[1])))
