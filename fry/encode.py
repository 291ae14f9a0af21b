"""Tokenizer, chat template and the way from conversations to training batches."""
import json
from pathlib import Path

import jinja2
import numpy as np
import torch
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import data as D
import pictures as P
from model import BASE_VOCAB

HERE = Path(__file__).parent
ADDED = """<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|>
<|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|> <tool_call>
</tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> <|repo_name|> <|file_sep|> <tool_response>
</tool_response> <think> </think> <|audio_start|> <|audio_end|> <tts_pad> <tts_text_bos> <tts_text_eod>
<tts_text_bos_single> <|audio_pad|>""".split()
NOT_SPECIAL = range(14, 26)  # added, but kept by skip_special_tokens
IN_TOKENIZER_JSON = 26  # the audio tokens are only in tokenizer_config.json, as in the real checkpoint
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
FPS_UNKNOWN = 24  # what the stock processor assumes for a bare list of frames


# ---------------------------------------------------------------------------------------------------------- template
def template():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    env.filters["tojson"] = lambda x, **_: json.dumps(x, ensure_ascii=False)

    def fail(message):
        raise jinja2.exceptions.TemplateError(message)

    env.globals["raise_exception"] = fail
    return env.from_string((HERE / "chat_template.jinja").read_text())


_template = []


def render(conversation, generation_prompt=False, vision_id=False):
    if not _template:
        _template.append(template())
    messages = conversation["messages"]
    return _template[0].render(messages=messages, tools=conversation["tools"], add_generation_prompt=generation_prompt,
                               enable_thinking=conversation["thinking"], add_vision_id=vision_id)


# ------------------------------------------------------------------------------------------------------------- hints
TOLD = 6  # columns of what hints tell of a picture's token: see `told_of`
UNTOLD = -100
CHANGES = ["nothing", "colour", "shape", "place"]


def covered(image, cols, rows):
    """Which thing covers each merged token of a picture; -1 for none."""
    sx, sy = cols * 32 / image.width, rows * 32 / image.height
    out, nearest = np.full((rows, cols), -1), np.full((rows, cols), 1e9)
    y, x = np.mgrid[:rows, :cols] * 32 + 16
    for k, t in enumerate(image.things):
        d = np.hypot(x - t.x * sx, y - t.y * sy)
        middle = min(rows - 1, int(t.y * sy // 32)), min(cols - 1, int(t.x * sx // 32))
        inside = d < t.r * (sx + sy) / 2 * 0.9 + 8
        d[middle], inside[middle] = -1, True
        closer = inside & (d < nearest)
        out[closer], nearest[closer] = k, d[closer]
    return out.ravel()


def told_of(image, cols, rows):
    """Per merged token on a thing: shape and colour of what is left of it; and where an earlier version of the picture
    was shown, shape and colour of what was at this place, where this thing was, and what of it has changed.
    """
    cover, things = covered(image, cols, rows), image.things
    out = np.full((len(cover), TOLD), UNTOLD)
    for at in np.flatnonzero(cover >= 0):
        t = things[cover[at]]
        out[at, :2] = P.names(P.beside(things, t, "left of"))
        if before := getattr(image, "before", None):
            here = next((o for o in before if (o.row, o.col) == (t.row, t.col)), None)
            out[at, 2:4] = P.names(here)
            out[at, 4] = next((o.row * 3 + o.col for o in before if (o.shape, o.colour) == (t.shape, t.colour)), 9)
            out[at, 5] = CHANGES.index("place" if here is None else "colour" if here.colour != t.colour else "shape" if here.shape != t.shape else "nothing")
    return out


# --------------------------------------------------------------------------------------------------------- tokenizer
def corpus(n=6000):
    s = D.Source(7)
    grid = (3, 3)
    for _ in range(n):
        for c in (D.one_picture(s, grid), D.text(s), D.thinking_sum(s), D.chat(s), D.several_pictures(s, grid) if s.rng.random() < 0.2 else D.recall(s, grid)):
            yield render(c)
    for _ in range(n // 2):
        yield render(D.tool(s))
        yield render(D.clip(s, frames=4)).replace("<|video_pad|>", f"<{s.rng.uniform(0, 9):.1f} seconds>")
        yield " ".join([w.upper() for w in D.WORDS + D.CITIES] + [D.caption(D.P.lay_out(s.rng, 2, 96, 96, (128, 128, 128))).upper()])


def train_tokenizer(texts):
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT), "isolated"),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    marks = sorted(ADDED, key=len, reverse=True)

    def pieces():
        for t in texts:
            for m in marks:  # added tokens are matched before the merges, so they must not shape them
                t = t.replace(m, "\0")
            yield from t.split("\0")

    tok.train_from_iterator(pieces(), trainers.BpeTrainer(vocab_size=BASE_VOCAB, show_progress=False, min_frequency=1,
                                                          initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    model = json.loads(tok.to_str())["model"]
    vocab = dict(sorted(model["vocab"].items(), key=lambda kv: kv[1]))
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    assert len(vocab) == BASE_VOCAB, len(vocab)
    return vocab, merges


def added(i, **more):
    return {**more, "content": ADDED[i], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": i not in NOT_SPECIAL}


def write_tokenizer(folder):
    """tokenizer.json, vocab.json, merges.txt and tokenizer_config.json in the real checkpoint's form."""
    vocab, merges = train_tokenizer(corpus())
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    write(folder / "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added(i, id=BASE_VOCAB + i) for i in range(IN_TOKENIZER_JSON)],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}, dict(level)]},
        "post_processor": dict(level), "decoder": dict(level),
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocab, "merges": merges}})
    write(folder / "vocab.json", vocab)
    (folder / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    named = {"audio_bos_token": "<|audio_start|>", "audio_eos_token": "<|audio_end|>", "audio_token": "<|audio_pad|>",
             "image_token": "<|image_pad|>", "video_token": "<|video_pad|>", "vision_bos_token": "<|vision_start|>",
             "vision_eos_token": "<|vision_end|>"}
    write(folder / "tokenizer_config.json", {
        "add_prefix_space": False, "added_tokens_decoder": {str(BASE_VOCAB + i): added(i) for i in range(len(ADDED))},
        "additional_special_tokens": ADDED[1:14], "bos_token": None, "chat_template": (HERE / "chat_template.jinja").read_text(),
        "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "errors": "replace", "model_max_length": 4096,
        "pad_token": "<|endoftext|>", "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
        "add_bos_token": False, "pretokenize_regex": SPLIT, "extra_special_tokens": named})


def write(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# ------------------------------------------------------------------------------------------------------ conversations
def media_of(messages):
    return [p for m in messages if isinstance(m["content"], list) for p in m["content"] if p["type"] in ("image", "video")]


def clip_frames(rng, frames):
    """The frames a server may keep and when it says they were shown: all at 2 per second, or the stock sampling."""
    if rng.random() < 0.5:
        return list(range(len(frames))), 2.0
    n = min(max(int(len(frames) / FPS_UNKNOWN * 2), 4), len(frames))
    return np.linspace(0, len(frames) - 1, n).round().astype(int).tolist(), FPS_UNKNOWN


def clip_text(indices, fps, tokens):
    indices = indices + indices[-1:] * (len(indices) % 2)
    times = [(a + b) / 2 / fps for a, b in zip(indices[::2], indices[1::2])]
    return "".join(f"<{t:.1f} seconds><|vision_start|>{'<|video_pad|>' * tokens}<|vision_end|>" for t in times)


class Encoder:
    def __init__(self, folder=HERE):
        self.tok = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.id = {t: BASE_VOCAB + i for i, t in enumerate(ADDED)}
        self.assistant = self.tokens("assistant\n")
        self.no_thought = [self.id["<think>"], *self.tokens("\n\n"), self.id["</think>"], *self.tokens("\n\n")]
        self.thought = [self.id["<think>"], *self.tokens("\n")]

    def pieces(self):
        """The entries of the vocabulary that are plain letters."""
        words = (w.lstrip("\u0120") for w in self.tok.get_vocab())
        return sorted({w for w in words if w.isascii() and w.isalpha()})

    def tokens(self, text):
        return self.tok.encode(text, add_special_tokens=False).ids

    def encode(self, rng, conversation):
        """ids, which of them are taught, mRoPE positions, the pictures as (rows, cols, patch vectors), and what hints tell."""
        text = render(conversation, vision_id=rng.random() < 0.05)
        pictures, told = [], []
        for part in media_of(conversation["messages"]):
            if part["type"] == "image":
                image = part["image"]
                size = P.fit(*image.size)
                tokens = size[0] // 32, size[1] // 32
                told.append(told_of(image, *tokens) if hasattr(image, "things") else np.full((tokens[0] * tokens[1], TOLD), UNTOLD))
                image = image if image.size == size else image.resize(size, P.Image.BICUBIC)
                pictures.append((size[1] // 16, size[0] // 16, P.patches([image])))
            else:
                frames = part["video"]
                indices, fps = clip_frames(rng, frames)
                w, h = frames[0].size
                text = text.replace("<|video_pad|>", clip_text(indices, fps, w * h // 1024), 1)
                indices = indices + indices[-1:] * (len(indices) % 2)
                for a, b in zip(indices[::2], indices[1::2]):
                    pictures.append((h // 16, w // 16, P.patches([frames[a], frames[b]])))
        ids, sizes = [], iter(pictures)
        for i in self.tokens(text):
            rows, cols, _ = next(sizes) if i == self.id["<|image_pad|>"] else (2, 2, None)
            ids += [i] * (rows * cols // 4)
        ids = np.array(ids)
        hints = np.full((len(ids), TOLD), UNTOLD)
        if told:
            hints[ids == self.id["<|image_pad|>"]] = np.concatenate(told)
        return ids, self.taught(ids, conversation["thinking"]), self.positions(ids, pictures), pictures, hints

    def taught(self, ids, thinking):
        """True on what an assistant says, from after the generation prompt to the end mark."""
        mask, ids = np.zeros(len(ids), bool), ids.tolist()
        start, end, n = self.id["<|im_start|>"], self.id["<|im_end|>"], len(self.assistant)
        for k, i in enumerate(ids):
            if i != start or ids[k + 1:k + 1 + n] != self.assistant:
                continue
            k += 1 + n
            if ids[k] == self.id["<think>"]:
                k += len(self.no_thought) if ids[k:k + len(self.no_thought)] == self.no_thought else len(self.thought)
            mask[k:ids.index(end, k) + 1] = True
        return mask

    def positions(self, ids, pictures):
        """Temporal, row and column positions: a picture's tokens share their start, and text goes on after its longer side."""
        out, current, k = np.empty((3, len(ids)), np.int64), 0, 0
        pads = (ids == self.id["<|image_pad|>"]) | (ids == self.id["<|video_pad|>"])
        left = iter(pictures)
        while k < len(ids):
            if pads[k]:
                rows, cols, _ = next(left)
                rows, cols = rows // 2, cols // 2
                n = rows * cols
                out[:, k:k + n] = current
                out[1, k:k + n] += np.arange(rows).repeat(cols)
                out[2, k:k + n] += np.tile(np.arange(cols), rows)
                current += max(rows, cols)
            else:
                n = 1
                out[:, k] = current
                current += 1
            k += n
        return out

    def collate(self, encoded, multiple=8):
        length = -(-max(len(e[0]) for e in encoded) // multiple) * multiple
        ids = np.full((len(encoded), length), self.id["<|endoftext|>"], np.int64)
        taught = np.zeros((len(encoded), length), bool)
        positions = np.zeros((3, len(encoded), length), np.int64)
        groups = {}
        told = np.full((len(encoded), length, TOLD), UNTOLD)
        for b, (i, t, p, pictures, *hints) in enumerate(encoded):
            if hints:
                told[b, :len(i)] = hints[0]
            ids[b, :len(i)], taught[b, :len(i)], positions[:, b, :len(i)] = i, t, p
            where = np.flatnonzero((i == self.id["<|image_pad|>"]) | (i == self.id["<|video_pad|>"])) + b * length
            for rows, cols, patches in pictures:
                n = rows * cols // 4
                group = groups.setdefault((rows, cols, patches.shape[1]), ([], []))
                group[0].append(patches)
                group[1].append(where[:n])
                where = where[n:]
        pictures = [((rows, cols), torch.from_numpy(np.stack(px)), torch.from_numpy(np.concatenate(at)))
                    for (rows, cols, _), (px, at) in groups.items()]
        return {"ids": torch.from_numpy(ids), "taught": torch.from_numpy(taught), "positions": torch.from_numpy(positions),
                "pictures": pictures, "told": torch.from_numpy(told)}
