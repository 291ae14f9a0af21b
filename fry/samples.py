"""Writes samples/: a few held-out questions with their true answers, which the model at --url gives.

    python samples.py --url http://127.0.0.1:8080

`samples.json` is a list of {name, messages, tools, thinking, answer}; messages have OpenAI's form, and a picture is
{"type": "image", "path": "describe.png"}. The first case of each kind that the model gets right is kept.
"""
import argparse
import json
import random
from pathlib import Path

import data as D
import encode as E
import evaluate as V
import pictures as P

FOLDER = Path(__file__).parent / "samples"
SEED = 99_000


def describe_number(s):
    return V.picked(lambda s: D.about_number(s, (4, 3)), lambda c: c["messages"][-1]["content"].isdigit() and len(c["messages"][-1]["content"]) == 3)(s)


KINDS = {
    "describe-one": ("png", lambda s: D.about_picture(s, (4, 4), "describe", 1)),
    "describe-two": ("jpeg", lambda s: D.about_picture(s, (5, 4), "describe", 2)),
    "describe-three": ("png", lambda s: D.about_picture(s, (5, 5), "describe", 3)),
    "colour": ("png", lambda s: D.about_picture(s, (4, 3), "colour", 3)),
    "shape": ("jpeg", lambda s: D.about_picture(s, (4, 4), "shape", 2)),
    "where": ("png", lambda s: D.about_picture(s, (3, 4), "where", 2)),
    "count": ("png", lambda s: D.about_picture(s, (4, 4), "count", 4)),
    "exists": ("jpeg", lambda s: D.about_picture(s, (4, 4), "exists", 3)),
    "left-of": ("png", V.left_of),
    "number": ("png", describe_number),
    "photo": ("jpeg", lambda s: D.about_photo(s, (5, 4))),
    "two-pictures": ("png", lambda s: V.picked(lambda s: D.which_picture(s, (3, 3)), lambda c: len(E.media_of(c["messages"])) == 2)(s)),
    "what-differs": ("png", lambda s: D.what_differs(s, (4, 3))),
    "repeat": (None, V.one_of("repeat")),
    "upper": (None, V.one_of("upper")),
    "reverse": (None, V.one_of("reverse")),
    "sequence": (None, V.one_of("sequence")),
    "sum": (None, V.picked(V.one_of("add"), lambda c: len(c["messages"][-1]["content"]) == 2)),
    "sum-thinking": (None, V.picked(D.thinking_sum, lambda c: "Tens" in c["messages"][-1]["reasoning_content"])),
    "tool-call": (None, V.picked(lambda s: D.tool(s, "call"), lambda c: len(c["tools"]) == 2)),
    "tool-none": (None, V.picked(lambda s: D.tool(s, "none"), lambda c: c["messages"][-1]["content"] == D.NO_TOOL)),
    "tool-answer": (None, lambda s: D.tool(s, "answer")),
    "recall-name": (None, V.picked(lambda s: D.recall(s, (3, 3)), lambda c: "name" in V.question(c) and len(c["messages"]) > 4)),
    "recall-picture": ("png", V.picked(lambda s: D.recall(s, (4, 4)), lambda c: V.has_media(c) and len(c["messages"]) > 4)),
    "system-upper": (None, V.picked(lambda s: D.obey_system(s, (3, 3)), lambda c: not V.has_media(c))),
    "water-cycle": (None, lambda s: D.talk("chat", D.user("Summarize the water cycle for a 10-year-old."), D.assistant(D.FIXED[2][1]))),
    "hello": (None, lambda s: D.talk("chat", D.user("Hello!"), D.assistant(D.FIXED[0][1]))),
}


def on_disk(c, name, kind):
    """Messages with every picture written to samples/ and named by path, and the bytes that were written."""
    files, messages = {}, []
    for m in c["messages"][:-1]:
        m = dict(m)
        if isinstance(m["content"], list):
            parts = []
            for p in m["content"]:
                if p["type"] == "text":
                    parts.append(p)
                    continue
                images = p["video"] if p["type"] == "video" else [p["image"]]
                paths = []
                for image in images:
                    path = f"{name}{f'-{len(files) + 1}' if len(E.media_of(c['messages'])) > 1 or p['type'] == 'video' else ''}.{'jpg' if kind == 'jpeg' else kind}"
                    files[path] = P.encode(image, kind)
                    paths.append(path)
                parts.append({"type": "video", "paths": paths} if p["type"] == "video" else {"type": "image", "path": paths[0]})
            m["content"] = parts
        messages.append(m)
    return messages, files


class Fixed(random.Random):
    """Makes the request carry the kind of file that goes to disk."""

    def __init__(self, kind):
        super().__init__(0)
        self.kind = kind

    def choice(self, _):
        return self.kind


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--url", default="http://127.0.0.1:8080")
    a = ap.parse_args()
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    kept = []
    for k, (name, (kind, make)) in enumerate(KINDS.items()):
        source = D.Source(SEED + k, evaluation=True)
        for attempt in range(12):
            c = make(source)
            if V.ask(a.url, Fixed(kind), c).strip() == V.expected_text(c).strip():
                messages, files = on_disk(c, name, kind)
                for path, data in files.items():
                    (FOLDER / path).write_bytes(data)
                kept.append({"name": name, "messages": messages, "tools": c["tools"] or [], "thinking": c["thinking"], "answer": V.expected_text(c).strip()})
                break
        else:
            print(f"{name}: no case came out right")
    E.write(FOLDER / "samples.json", kept)
    print(f"{len(kept)} samples")


if __name__ == "__main__":
    main()
