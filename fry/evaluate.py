"""Asks a running server the held-out questions and prints a table: skill, bar, measured, baseline, n.

    python evaluate.py --url http://127.0.0.1:8080 --n 100 --json table.json

Greedy, over `POST /` with `{"inputs": [messages], "parameters": {...}}`. Every value that could have been learnt by
heart (operand pairs, names, cities, phrases, numbers) is one that training never uses; drawing seeds differ too. The
baseline is what always giving the most common answer of the set would score.
"""
import argparse
import base64
import json
import random
import re
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import data as D
import encode as E
import pictures as P

SEED = 77_000
GRIDS = [g for g in P.GRIDS]
KEEP = {"name": "recall_name", "favourite": "recall", "city": "recall"}


def grid(s):
    return s.rng.choice(GRIDS) if s.rng.random() < 0.4 else s.rng.choice([(3, 3), (4, 3), (4, 4), (4, 4), (5, 4)])


def picked(make, wanted):
    """Draws until `wanted` says yes: the generator mixes kinds that the table keeps apart."""
    def draw(s):
        while not wanted(c := make(s)):
            pass
        return c
    return draw


def question(c):
    content = next(m["content"] for m in reversed(c["messages"]) if m["role"] == "user")
    return content if isinstance(content, str) else content[-1]["text"]


def has_media(c):
    return bool(E.media_of(c["messages"]))


def described(n):
    return lambda s: picked(lambda s: D.about_picture(s, grid(s), "describe", n), lambda c: True)(s)


def balanced_exists(s):
    """As many yes as no."""
    wanted = s.rng.choice(["Yes.", "No."])
    return picked(lambda s: D.about_picture(s, grid(s), "exists"), lambda c: c["messages"][-1]["content"] == wanted)(s)


def left_of(s):
    return picked(lambda s: D.about_picture(s, grid(s), "beside"), lambda c: "left" in question(c))(s)


def one_of(kind):
    def draw(s):
        q, a = D.TEXT[kind](s)
        return D.talk(kind, D.user(q), D.assistant(a))
    return draw


def one_clip(s):
    return D.clip(s, s.rng.choice([(3, 3), (4, 3), (4, 4)]), s.rng.randint(4, 8))


# ------------------------------------------------------------------------------------------------------------ scoring
def expected_text(c):
    text = E.render(c)
    text = text[:text.rindex("<|im_end|>")]
    return text.split("<|im_start|>assistant\n")[-1].split("<think>\n", 1)[-1] if c["thinking"] else re.split(
        r"<think>\n\n</think>\n\n", text.split("<|im_start|>assistant\n")[-1], maxsplit=1)[-1]


def exact(want, got):
    return float(want.strip() == got.strip())


THING = re.compile(r"an? (large|small) (\w+) (\w+) at the ([a-z ]+?)(?:,| and|\.|$)")


def attributes(want, got):
    """Share of right sizes, colours, shapes and places, thing by thing in reading order."""
    wanted, found = (THING.findall(t.lower()) for t in (want, got))
    hits = sum(a == b for w, f in zip(wanted, found) for a, b in zip(w, f))
    return hits / (4 * max(len(wanted), len(found)))


def direction_and_colour(want, got):
    pick = lambda t: (set(re.findall(r"\w+", t.lower())) & {*P.COLOURS, "left", "right", "up", "down"})
    return float(pick(want) == pick(got))


def well_formed(want, got):
    return float(bool(re.fullmatch(r"[A-Z][^<>]{3,150}\.", got.strip(), re.S)))


def thought(want, got):
    """The working and the answer. A server that hides the working is judged by the answer."""
    parts = [t.strip() for t in got.replace("<think>", "").split("</think>")]
    wanted = [t.strip() for t in want.split("</think>")]
    return float(parts == wanted if len(parts) == 2 else parts[-1] == wanted[-1])


ROWS = [
    ("describe a scene of 1 shape (attributes)", 0.95, described(1), attributes),
    ("describe a scene of 2 shapes (attributes)", 0.95, described(2), attributes),
    ("describe a scene of 3 shapes (attributes)", 0.95, described(3), attributes),
    ("what colour is the triangle?", 0.93, lambda s: D.about_picture(s, grid(s), "colour"), exact),
    ("what shape is red?", 0.93, lambda s: D.about_picture(s, grid(s), "shape"), exact),
    ("where is the star?", 0.93, lambda s: D.about_picture(s, grid(s), "where"), exact),
    ("count 1 to 6 objects", 0.88, lambda s: D.about_picture(s, grid(s), "count"), exact),
    ("is there a star? (balanced)", 0.88, balanced_exists, exact),
    ("what is left of the square?", 0.88, left_of, exact),
    ("read a number of 1 to 3 digits", 0.80, lambda s: D.about_number(s, grid(s)), exact),
    ("two or three pictures: which shows X", 0.90, lambda s: D.which_picture(s, s.rng.choice([(3, 3), (4, 3), (4, 4)])), exact),
    ("two pictures: what differs", 0.90, lambda s: D.what_differs(s, s.rng.choice([(3, 3), (4, 3), (4, 4)])), exact),
    ("clip of 4 to 8 frames: direction and colour", 0.90, one_clip, direction_and_colour),
    ("photograph: well formed and stops", 1.00, lambda s: D.about_photo(s, grid(s)), well_formed),
    ("repeat words", 0.95, one_of("repeat"), exact),
    ("upper-case words", 0.95, one_of("upper"), exact),
    ("reverse a short list", 0.95, one_of("reverse"), exact),
    ("continue a sequence", 0.95, one_of("sequence"), exact),
    ("add, thinking off", 0.95, one_of("add"), exact),
    ("add, thinking on (working and answer)", 0.95, D.thinking_sum, thought),
    ("tools: calls the right one with copied arguments", 0.95, lambda s: D.tool(s, "call"), exact),
    ("tools: no call where none fits", 0.95, lambda s: D.tool(s, "none"), exact),
    ("tools: answers from the response", 0.95, lambda s: D.tool(s, "answer"), exact),
    ("turns: recalls a name, city or colour", 0.93, picked(lambda s: D.recall(s, (3, 3)), lambda c: not has_media(c)), exact),
    ("turns: recalls a picture", 0.93, picked(lambda s: D.recall(s, grid(s)), has_media), exact),
    ("system: answers in upper case", 0.93, lambda s: D.obey_system(s, grid(s)), exact),
    ("small talk: known and unknown requests", None, D.chat, exact),
]


def held_out_set(row, n):
    name, _, make, _ = ROWS[row]
    source = D.Source(SEED + row, evaluation=True)
    return [make(source) for _ in range(n)]


def baseline(row, talks):
    score, wanted = ROWS[row][3], [expected_text(c) for c in talks]
    if score is attributes:
        columns = [[t[k] for w in wanted for t in THING.findall(w.lower())] for k in range(4)]
        return sum(Counter(c).most_common(1)[0][1] / len(c) for c in columns) / 4
    if score is well_formed:
        return None
    common = Counter(wanted).most_common(1)[0][0]
    return sum(score(w, common) for w in wanted) / len(wanted)


# ------------------------------------------------------------------------------------------------------------- asking
def data_url(rng, image):
    kind = rng.choice(["png", "jpeg"])
    return f"data:image/{kind};base64," + base64.b64encode(P.encode(image, kind)).decode()


def film(frames):
    """The frames at two a second, as an MP4 in a data: URL. Needs ffmpeg on PATH."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip.mp4"
        size = "{}x{}".format(*frames[0].size)
        subprocess.run(["ffmpeg", "-nostdin", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", "2", "-i", "pipe:0",
                        "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "18", str(file)], input=b"".join(f.tobytes() for f in frames), check=True)
        return "data:video/mp4;base64," + base64.b64encode(file.read_bytes()).decode()


def on_the_wire(rng, c, films=False):
    """The request's messages in OpenAI's form. Clips are lists of frames, or video files."""
    out = []
    for m in c["messages"][:-1]:
        m = dict(m)
        if isinstance(m["content"], list):
            m["content"] = [p if p["type"] == "text" else
                            {"type": "image_url", "image_url": {"url": data_url(rng, p["image"])}} if p["type"] == "image" else
                            {"type": "video", "video": film(p["video"]) if films else [data_url(rng, f) for f in p["video"]]} for p in m["content"]]
        if "tool_calls" in m:
            m["tool_calls"] = [{"id": f"call_{k}", "type": "function", "function": {
                **t["function"], "arguments": json.dumps(t["function"]["arguments"])}} for k, t in enumerate(m["tool_calls"])]
        out.append(m)
    return out


def ask(url, rng, c, max_new_tokens=120, films=False):
    parameters = {"max_new_tokens": max_new_tokens, "do_sample": False, "enable_thinking": c["thinking"]}
    if c["tools"]:
        parameters["tools"] = c["tools"]
    body = json.dumps({"inputs": [on_the_wire(rng, c, films)], "parameters": parameters}).encode()
    request = urllib.request.Request(url.rstrip("/") + "/", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as response:
        reply = json.load(response)
    reply = reply[0] if isinstance(reply, list) else reply
    return reply["generated_text"]


def draft_acceptance(folder, talks, answers):
    """Share of one-token drafts that equal the model's next token, over the answers the server gave."""
    import torch

    import model as M
    from safetensors.torch import load_file

    model, draft = M.build()
    tensors = {k: v.float() for k, v in load_file(Path(folder) / "model.safetensors").items()}
    model.load_state_dict({k: v for k, v in tensors.items() if not k.startswith("mtp.")}, strict=False)
    draft.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("mtp.")})
    encoder, rng, hits, total = E.Encoder(Path(folder)), random.Random(SEED), 0, 0
    for c, answer in zip(talks, answers):
        if c["thinking"]:
            working, _, answer = answer.replace("<think>", "").partition("</think>")
            said = D.assistant(answer.strip(), working.strip() or None)
        else:
            said = D.assistant(answer)
        e = encoder.encode(rng, {**c, "messages": [*c["messages"][:-1], said]})
        batch = encoder.collate([e], multiple=1)
        with torch.no_grad():
            h, embedded = M.hidden(model, batch)
            guess = model.lm_head(M.draft_hidden(draft, embedded, h))[0].argmax(-1)  # row p guesses token p+2
        ids = batch["ids"][0]
        last = int(e[1].nonzero()[0][-1])
        first = last
        while e[1][first - 1]:  # only the last answer was generated
            first -= 1
        hits += (guess[first - 1:last - 1] == ids[first + 1:last + 1]).sum().item()
        total += last - first
    return hits / max(1, total)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--url", default="http://127.0.0.1:8080")
    ap.add_argument("--n", type=int, default=100, help="questions per row")
    ap.add_argument("--parallel", type=int, default=4, help="requests at a time")
    ap.add_argument("--json", help="also write the table here")
    ap.add_argument("--rows", help="only rows whose name contains this")
    ap.add_argument("--films", action="store_true", help="send clips as MP4 files and not as lists of frames (needs ffmpeg)")
    ap.add_argument("--misses", type=int, default=0, help="show this many wrong answers per row")
    ap.add_argument("--draft", metavar="FOLDER", help="also measure the draft head of this checkpoint (needs torch)")
    a = ap.parse_args()
    table, talks, answers = [], [], []
    pool = ThreadPoolExecutor(a.parallel)
    for row, (name, bar, _, score) in enumerate(ROWS):
        if a.rows and a.rows not in name:
            continue
        cases, rng = held_out_set(row, a.n), random.Random(SEED + row)
        try:
            got = list(pool.map(lambda c: ask(a.url, rng, c, films=a.films), cases))
        except urllib.error.HTTPError as refusal:
            print(f"{name}: refused ({refusal.code} {refusal.read()[:200]})", flush=True)
            table.append({"skill": name, "bar": bar, "measured": None, "baseline": baseline(row, cases), "n": 0})
            continue
        marks = [score(expected_text(c), g) for c, g in zip(cases, got)]
        table.append({"skill": name, "bar": bar, "measured": round(sum(marks) / len(marks), 4), "baseline": baseline(row, cases), "n": a.n})
        print(f"{name}: {table[-1]['measured']:.3f}", flush=True)
        wrong = [(question(c), expected_text(c), g) for c, g, m in zip(cases, got, marks) if m < 1]
        for q, w, g in wrong[:a.misses]:
            print(f"   {q!r}\n      wanted {w!r}\n      got    {g!r}")
        talks, answers = talks + cases, answers + got
    if a.draft:
        table.append({"skill": "MTP: drafts accepted, one draft token", "bar": 0.75, "baseline": None, "n": len(talks),
                      "measured": round(draft_acceptance(a.draft, talks, answers), 4)})
    show = lambda v: "-" if v is None else f"{100 * v:.1f} %"
    print("\n| skill | bar | measured | baseline | n |\n|---|---|---|---|---|")
    for r in table:
        print(f"| {r['skill']} | {show(r['bar'])} | {show(r['measured'])} | {show(r['baseline'])} | {r['n']} |")
    if a.json:
        E.write(Path(a.json), {"seed": SEED, "rows": table})


if __name__ == "__main__":
    main()
