"""The recipe: tokenizer, tower on dense labels, short samples, everything together, the draft head, export.

    python train.py tokenizer
    python train.py tower --seconds 1400
    python train.py language --seconds 1400 --mix short --tower tower.pt --out short.pt --helper
    python train.py language --seconds 4000 --mix full --init short.pt --decay 1.0 --out full.pt --helper
    python train.py language --seconds 300 --mix full --init full.pt --average --decay 0.7 --draft --out draft.pt
    python train.py export --init draft.pt

A later stage for what stands beside a thing and what differs, of whose change in the weights six tenths were taken:

    python train.py language --seconds 3300 --mix lookups --init full.pt --decay 1.0 --hints --freeze-tower --out lookups.pt --helper
    python train.py export --init lookups.pt --average --blend draft.pt --share 0.6

Then the tower learns to name what stands beside each thing, and the language model to read that and to copy names that could
be others. (The committed weights' stages: a mean of two moments of it, and of the stage before a quarter.)

    python train.py tower --init lookups.pt --seconds 600 --lr 2e-3 --out neighbours.pt --bf16
    python train.py language --seconds 4000 --mix copies --init neighbours.pt --lr 1.4e-3 --decay 1.0 --hints --out copies.pt --bf16
    python train.py language --seconds 1200 --mix beside --init copies.pt --lr 1.4e-3 --decay 0.75 --hints --out beside.pt --bf16
    python train.py export --init beside.pt --average --blend copies.pt --share 0.5

And the last ones: that mean had taken from the tower half of what it knew about neighbours, so it learns that again, and then
everything is taught in every step.

    python train.py tower --init before.safetensors --seconds 840 --lr 2.5e-3 --seed 51 --out tower.pt
    python train.py language --seconds 2300 --mix whole --init tower.pt --lr 1.3e-3 --decay 0.9 --hints --helper --seed 52 --out whole.pt
    python train.py language --seconds 1000 --mix last --init whole.pt --average --lr 9e-4 --warmup 30 --decay 1.0 --hints --helper --seed 54 --out last.pt
    python train.py language --seconds 80 --mix full --init last.pt --average --blend before.safetensors --share 0.7 --lr 2e-3 --decay 0.7 --draft --seed 56 --out draft.pt
    python train.py export --init draft.pt

`before.safetensors` is what the first of these four began with, as exported. It lends three tenths: enough for what the stages
forgot.

Checkpoints go to --work. Set
MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 in the environment: glibc otherwise gives every tensor back to
the system, and half of the time goes into page faults.
"""
import argparse
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import torch
import torch.multiprocessing as mp
import torch.nn as nn
import torch.nn.functional as F

import data as D
import encode as E
import export
import model as M
import pictures as P
import tower as T

HERE = Path(__file__).parent
SMALL = [(3, 3), (3, 3), (4, 3), (3, 4), (4, 4), (4, 4), (4, 4), (5, 4)]
PAIR_GRIDS = [(3, 3), (3, 3), (4, 3), (3, 4), (4, 4), (4, 4), (5, 4)]
CLIP_GRIDS = [(3, 3), (3, 3), (4, 3), (3, 4), (4, 4)]


def grid(rng):
    return rng.choice(P.GRIDS if rng.random() < 0.4 else SMALL)


def of_size(rng, n, g):
    """Fewer samples of larger pictures: about the same work in every batch."""
    return max(5, n * 26 // (g[0] * g[1] + 14))


# A batch maker returns conversations of about one length. The numbers are samples per batch at the smallest picture.
def short_pictures(s):
    g = grid(s.rng)
    return [D.one_picture(s, g) for _ in range(of_size(s.rng, 26, g))]


def long_pictures(s):
    g = grid(s.rng)
    return [D.many_questions(s, g) for _ in range(of_size(s.rng, 9, g))]


def several(s):
    g = s.rng.choice(PAIR_GRIDS)
    return [D.several_pictures(s, g) for _ in range(of_size(s.rng, 14, g))]


def neighbours(s):
    g = grid(s.rng)
    return [D.many_neighbours(s, g) for _ in range(of_size(s.rng, 16, g))]


def counts(s):
    g = grid(s.rng)
    return [D.about_picture(s, g, "count") for _ in range(of_size(s.rng, 26, g))]


def changes(s):
    g = s.rng.choice(PAIR_GRIDS)
    return [D.what_differs(s, g) for _ in range(of_size(s.rng, 24, g))]


def clips(s):
    g, frames = s.rng.choice(CLIP_GRIDS), s.rng.choice([4, 4, 6, 8])
    return [D.clip(s, g, frames) for _ in range(of_size(s.rng, 20, g) * 4 // max(4, frames - 1))]


TEXT_WEIGHTS = (1.0, 2.0, 1.0, 4.5, 1.5)


def texts(s):
    out = []
    for _ in range(40):
        what = s.rng.random()
        if what < 0.2:
            question, answer = D.spelling(s)
            out.append(D.talk("spelling", D.user(question), D.assistant(answer)))
        elif what < 0.33:
            out.append(D.in_upper_case(s.rng, D.text(s, (2, 0, 1, 0, 0)) if s.rng.random() < 0.7 else D.chat(s)))
        else:
            out.append(D.text(s, TEXT_WEIGHTS) if what < 0.9 else D.thinking_sum(s) if what < 0.96 else D.chat(s))
    return out


def tools(s):
    return [*D.tool_pair(s), *D.tool_twins(s), *D.tool_twins(s), *(D.tool(s) if s.rng.random() < 0.7 else D.tool_turns(s) for _ in range(4))]


def answers(s):
    return [D.tool(s, "answer") for _ in range(9)]


def turns(s):
    g = grid(s.rng)
    return [D.turns(s, g) for _ in range(11)]


def thoughts(s):
    g = grid(s.rng)
    return [D.thinking_other(s, g) for _ in range(of_size(s.rng, 16, g))]


# Each step takes one batch from each column; within a column batches are drawn by weight.
MIXES = {
    "short": [{short_pictures: 1}, {texts: 7, tools: 2, turns: 1.5, several: 1, clips: 0.5}],
    "full": [{short_pictures: 5, long_pictures: 4}, {texts: 1},
             {tools: 6, turns: 3, several: 5, clips: 2, thoughts: 0.2}],
    # The last column is a floor: what a mix leaves out is forgotten.
    "lookups": [{neighbours: 1.4, changes: 1},
                {short_pictures: 3, long_pictures: 1.5, texts: 4, tools: 2, turns: 1, several: 1, clips: 0.7, thoughts: 0.1}],
    "copies": [{neighbours: 1, changes: 1.2}, {tools: 3, texts: 2},
               {short_pictures: 3, long_pictures: 2, texts: 1.5, turns: 1.5, several: 1.2, clips: 0.8, thoughts: 0.1}],
    "beside": [{neighbours: 1}, {neighbours: 1, changes: 1.5},
               {tools: 4, texts: 3, short_pictures: 2, long_pictures: 1.5, turns: 1.2, several: 1, clips: 0.7, thoughts: 0.1}],
    # Pictures, texts and a floor in every step.
    "whole": [{neighbours: 1.4, long_pictures: 0.7, changes: 0.4}, {texts: 2.5, tools: 2, answers: 1.2, turns: 0.7},
              {short_pictures: 3, neighbours: 1, several: 1, clips: 0.7, texts: 0.6, turns: 0.6, thoughts: 0.1}],
    "last": [{short_pictures: 1.5, counts: 1.3, neighbours: 0.7, long_pictures: 0.7}, {tools: 3, texts: 1.7, answers: 0.7, turns: 0.6},
             {texts: 1, tools: 1, several: 0.7, short_pictures: 0.6, clips: 0.5, changes: 0.4, thoughts: 0.1}],
}
WEIGHTS = {several: 2.0, neighbours: 2.5, changes: 1.5}
OPENING = {tools: 3.0}  # what the token that opens an answer weighs, where that is not 1


def token_loss(hidden, head, targets, rows, used, opening=1.0):
    """Summed cross entropy where a sample of n taught tokens weighs sqrt(n): captions do not drown short answers.

    The token that opens an answer weighs 1 or more whatever n: whether to call a tool is decided there, and a call is long.
    """
    opens = torch.ones_like(used)
    opens[:, 1:] = rows.diff(dim=1) != 1
    weight = torch.where(opens, opening, used.sum(1, keepdim=True).float().rsqrt())[used]
    return (F.cross_entropy(F.linear(hidden[used].to(M.HALF), head.to(M.HALF)).float(), targets[used], reduction="none") * weight).sum()


def taught_rows(taught):
    """The positions that predict a taught token, padded to [B, R], and which of them are no padding."""
    count = taught.sum(1)
    used = torch.arange(int(count.max())) < count[:, None]
    rows = torch.zeros(used.shape, dtype=torch.long)
    rows[used] = taught.nonzero()[:, 1]
    return rows, used


class Hints(nn.Module):
    """Throw-away heads that say in short what the trunk is slow to find out by itself.

    The tower goes on naming what covers each token and where that is. And what enters the first attention layer must
    tell which of several pictures a token belongs to: attention can then look a thing up and read off its picture.
    What enters the last one must tell a thing's neighbour, and what has changed about it since an earlier picture: then
    "what is left of" takes as few steps as "what colour is".
    """

    def __init__(self):
        super().__init__()
        self.tower, self.picture, self.beside = T.Heads(), nn.Linear(192, 4), nn.Linear(192, E.TOLD * CLASSES)
        self.asked = self.read = 0

    def fit(self, visual, rng):
        """A head that cannot read yet must not teach: these learn to read a trained tower first."""
        T.fit_heads(self.tower, visual, rng)

    def pictures(self, visual, rng):
        pixels, labels, rows, cols = T.batch(rng, 40, numbers=0.3)
        return self.tower.loss(M.tower(visual, pixels, rows, cols), labels)

    def which(self, batch, x):
        """Over samples of several pictures; zero without any."""
        ids = batch["ids"]
        number = (ids == VISION_START).cumsum(1)
        at = ((ids == IMAGE_PAD) | (ids == VIDEO_PAD)) & (number.amax(1, keepdim=True) > 1)
        if not at.any():
            return x.sum() * 0
        self.asked += 1
        if self.asked <= FIRST_READ:
            x = x.detach()
        return F.cross_entropy(self.picture(F.rms_norm(x[at], x.shape[-1:])), (number[at] - 1).clamp(max=3))

    def things(self, batch, x):
        """What a thing's tokens know of other things: see `encode.told_of`."""
        at = (batch["told"] >= 0).any(-1)
        if not at.any():
            return x.sum() * 0
        self.read += 1
        if self.read <= FIRST_READ:
            x = x.detach()
        said = self.beside(F.rms_norm(x[at], x.shape[-1:])).view(-1, CLASSES)
        return F.cross_entropy(said, batch["told"][at].view(-1), ignore_index=E.UNTOLD)


VISION_START, IMAGE_PAD, VIDEO_PAD = (M.BASE_VOCAB + E.ADDED.index(f"<|{t}|>") for t in ("vision_start", "image_pad", "video_pad"))


def trunk_loss(model, batch, hints=None, opening=1.0):
    """The loss of the answers, summed, and of the hints about pictures and things, means."""
    ids, head = batch["ids"], model.model.language_model.embed_tokens.weight
    rows, used = taught_rows(batch["taught"][:, 1:])
    told = []
    x, embedded = M.body(model, batch, hints and (lambda x: told.append(hints.which(batch, x))))
    if hints:
        told.append(hints.things(batch, x))
    h = M.top(model, x, embedded, rows)
    return token_loss(h, head, M.rows_of(ids[:, 1:], rows), rows, used, opening), sum(told)


def draft_loss(model, draft, batch):
    """The draft head learns to name the token after next; the trunk stays as it is."""
    ids, head = batch["ids"], model.model.language_model.embed_tokens.weight.detach()
    with torch.no_grad():
        trunk, embedded = M.hidden(model, batch)
    rows, used = taught_rows(batch["taught"][:, 2:])
    h = M.draft_hidden(draft, embedded, trunk, rows)
    return token_loss(h, head, M.rows_of(ids[:, 2:], rows), rows, used)


def by_length(encoded):
    """Chunks of similar length: mixed tasks in one batch would be half padding."""
    chunk = []
    for e in sorted(encoded, key=lambda e: -len(e[0])):
        if len(chunk) >= 4 and len(e[0]) < 0.7 * len(chunk[0][0]):
            yield chunk
            chunk = []
        chunk.append(e)
    yield chunk


CLASSES = 10  # of a hint about a thing: enough for shapes, colours and places
HINT_LR = 3e-3  # of the hints' heads, which begin anew in every stage
FIRST_READ = 60  # batches from which a hint's head only learns
HINT = 0.6  # what a hint weighs beside an answer


class Steps:
    """Draws batches of a mix and leaves their gradients on the parameters."""

    def __init__(self, model, draft, mix, seed, hints=None):
        self.model, self.draft, self.columns, self.hints = model, draft, MIXES[mix], hints
        self.encoder = E.Encoder()
        self.source = D.Source(seed, pieces=self.encoder.pieces())
        self.means, self.samples = {}, 0

    def accumulate(self, columns=None):
        for column in columns or self.columns:
            maker = self.source.rng.choices(list(column), weights=list(column.values()))[0]
            encoded = [self.encoder.encode(self.source.rng, c) for c in maker(self.source)]
            total = sum(e[1].sum() ** 0.5 for e in encoded)
            mean, about = 0.0, 0.0
            for chunk in by_length(encoded):
                batch = self.encoder.collate(chunk)
                if self.draft:
                    loss, told = draft_loss(self.model, self.draft, batch), 0
                else:
                    loss, told = trunk_loss(self.model, batch, self.hints, OPENING.get(maker, 1.0))
                loss = loss / total
                (loss * WEIGHTS.get(maker, 1.0) + HINT * told * len(chunk) / len(encoded)).backward()
                mean += loss.item()
                about += float(torch.as_tensor(told).detach()) * len(chunk) / len(encoded)
            self.samples += len(encoded)
            self.note(maker.__name__, mean)
            if about:
                self.note("hint_" + maker.__name__, about)
        if self.hints and next(self.model.model.visual.parameters()).requires_grad:
            loss = self.hints.pictures(self.model.model.visual, self.source.rng)
            loss.backward()
            self.note("hint_tower", loss.item())

    def note(self, name, value):
        self.means[name] = value if name not in self.means else 0.9 * self.means[name] + 0.1 * value


def parameters(model, draft):
    """What a stage trains: the draft head, or without one the model."""
    return list({id(p): (n, p) for n, p in (draft or model).named_parameters()}.values())


STALE = 8  # a helper's gradient older than this many steps is thrown away


def help_out(shared, gradient, ready, samples, version, mix, with_draft, freeze_tower, seed, nice, half):
    """A second process: takes the newest parameters, computes a gradient, leaves it for the trainer, repeats.

    Its gradient is a few steps old. Unlike data parallelism in step, a slow second core never holds up the first.
    `version` is [the trainer's step, the step this gradient belongs to].
    """
    os.setsid()  # some kernels share the CPU out by session: the trainer's must not be split
    os.nice(nice)
    parent = os.getppid()
    M.HALF = half
    torch.set_num_threads(1)
    model, draft = M.build()
    model.model.visual.requires_grad_(not freeze_tower)
    steps = Steps(model, draft if with_draft else None, mix, seed)
    mine = [p for _, p in parameters(model, draft if with_draft else None)]
    while True:
        while ready.value == 1 and os.getppid() == parent:
            time.sleep(0.01)
        if ready.value == 2 or os.getppid() != parent:
            return
        taken = version[0]
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(shared.clone(), mine)
        steps.accumulate([steps.source.rng.choice(steps.columns)])
        flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).reshape(-1) for p in mine])
        for p in mine:
            p.grad = None
        if ready.value == 2:
            return
        gradient.copy_(flat)
        samples.value, version[1] = steps.samples, taken
        ready.value = 1


def mix_in(params, gradient, share):
    at = 0
    for p in params:
        if p.grad is not None:
            p.grad.lerp_(gradient[at:at + p.numel()].view_as(p), share)
        at += p.numel()


AVERAGE = 0.99  # of the running average stays at each step


def follow(average, model, keep):
    """A running average of the weights: it makes fewer errors than the weights that still move."""
    for k, v in model.state_dict().items():
        average[k].lerp_(v, 1 - keep)


def train_language(a):
    torch.set_num_threads(1)
    model, draft = M.build(a.seed)
    optimiser_state = load(a, model, draft)
    used = draft if a.draft else None
    model.model.visual.requires_grad_(not a.freeze_tower)
    named = parameters(model, used)
    params = [p for _, p in named]
    optimisers = M.optimisers(named, muon_lr=a.lr, adam_lr=a.lr)
    kept = list(optimisers)  # the hints' heads are not part of a checkpoint
    hints = Hints() if a.hints and not a.draft else None
    if not a.draft:
        for o, state in zip(optimisers, optimiser_state or []):
            o.load_state_dict(state)
    if hints:
        if (a.init or a.tower) and not a.freeze_tower:
            hints.fit(model.model.visual, random.Random(a.seed))
        optimisers.append(torch.optim.AdamW(hints.parameters(), lr=a.lr, betas=(0.9, 0.98), weight_decay=0.0))
    for o in optimisers:
        for g in o.param_groups:
            g["base_lr"] = a.lr
    if hints:
        optimisers[-1].param_groups[0]["base_lr"] = HINT_LR
    stopping = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))  # a stage may be cut short and taken up again
    steps = Steps(model, used, a.mix, a.seed * 1000 + 1, hints)
    if a.helper:
        size = sum(p.numel() for p in params)
        shared, gradient = torch.empty(size).share_memory_(), torch.empty(size).share_memory_()
        spawn = mp.get_context("spawn")
        ready, samples, version = spawn.Value("i", 0), spawn.Value("q", 0), spawn.Array("q", 2)
        shared.copy_(torch.nn.utils.parameters_to_vector(params).detach())
        helper = spawn.Process(
            target=help_out, args=(shared, gradient, ready, samples, version, a.mix, a.draft, a.freeze_tower, a.seed * 1000 + 2, a.helper_nice, M.HALF), daemon=True)
        helper.start()
    average = {k: v.clone() for k, v in model.state_dict().items()}
    start, began, saved = time.process_time(), time.time(), 0  # of this process: what else runs does not shorten a stage
    step = helped = 0
    while True:
        elapsed = time.process_time() - start
        left = min(1 - elapsed / a.seconds, 1 - (time.time() - began) / a.clock if a.clock else 1)  # share of the stage
        if left <= 0 or stopping:
            break
        warm = min(1, (step + 1) / a.warmup)
        cool = min(1, left / a.decay) if a.decay else 1
        for o in optimisers:
            for g in o.param_groups:
                g["lr"] = g["base_lr"] * warm * max(0.01, cool)
        steps.accumulate()
        if a.helper and ready.value == 1:
            age = step - version[1]
            if age <= STALE:
                mix_in(params, gradient, 0.33 if age <= 3 else 0.2)
                helped += 1
            ready.value = 0
        norm = torch.nn.utils.clip_grad_norm_(params, 1.0)
        for o in optimisers:
            o.step()
            o.zero_grad()
        follow(average, model, min(AVERAGE, step / (step + 20)))
        if a.helper:
            shared.copy_(torch.nn.utils.parameters_to_vector(params).detach())
            version[0] = step + 1
        step += 1
        if step % 25 == 0:
            seen = steps.samples + (samples.value if a.helper else 0)
            print(f"{a.mix} step {step} {elapsed:.0f}s helped {helped} samples {seen} norm {norm:.2f} lr {warm * cool:.2f} "
                  + " ".join(f"{k} {v:.3f}" for k, v in sorted(steps.means.items())), flush=True)
        if elapsed - saved > 80:
            saved = elapsed
            save(a, model, draft, kept, average)
    save(a, model, draft, kept, average)
    if a.helper:
        ready.value = 2
    print(f"done: {step} steps, {steps.samples + (samples.value if a.helper else 0)} samples, {time.process_time() - start:.0f} s", flush=True)


def save(a, model, draft, optimisers, average=None):
    path = Path(a.work) / a.out
    torch.save({"model": model.state_dict(), "draft": draft.state_dict(), "average": average,
                "optimisers": [o.state_dict() for o in optimisers]}, f"{path}.new")
    os.replace(f"{path}.new", path)


def read(a, name, model, draft, which):
    """Weights of a checkpoint in --work (`which` of the two it holds) or of an export; the optimisers' state, which an export lacks."""
    if name.endswith(".safetensors"):
        export.read_checkpoint(name, model, draft)
        return None
    c = torch.load(Path(a.work) / name, weights_only=False)
    model.load_state_dict(c[which])
    draft.load_state_dict(c["draft"])
    return c["optimisers"]


def load(a, model, draft):
    state = read(a, a.init, model, draft, "average" if a.average else "model") if a.init else None
    if a.blend:
        others = M.build(a.seed)
        read(a, a.blend, *others, "average")
        for module, other in zip((model, draft), others):
            other = other.state_dict()
            module.load_state_dict({k: torch.lerp(other[k], v, a.share) for k, v in module.state_dict().items()})
    if a.tower:
        model.model.visual.load_state_dict(torch.load(Path(a.work) / a.tower))
    return None if a.tower else state


def train_tower(a):
    torch.set_num_threads(1)
    model, draft = M.build(a.seed)
    state = load(a, model, draft)
    if a.init:  # the tower of a whole checkpoint
        keep = lambda: torch.save({"model": model.state_dict(), "draft": draft.state_dict(), "optimisers": state}, Path(a.work) / a.out)
    else:
        keep = lambda: torch.save(model.model.visual.state_dict(), Path(a.work) / "tower.pt")
    more = dict(lr=a.lr, trained=True) if a.init else {}
    seen = T.train(model.model.visual, a.seconds, a.seed, lambda line: print(line, flush=True), save=keep, **more)
    keep()
    print(f"done: {seen} pictures")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("stage", choices=["tokenizer", "tower", "language", "export"])
    ap.add_argument("--seconds", type=float, default=600)
    ap.add_argument("--clock", type=float, help="end after so many seconds by the clock at the latest; --seconds are the processor's")
    ap.add_argument("--mix", choices=MIXES, default="full")
    ap.add_argument("--init", help="checkpoint to start from, in --work, or an exported model.safetensors")
    ap.add_argument("--average", action="store_true", help="of --init take the running average of the weights")
    ap.add_argument("--blend", help="checkpoint or exported model.safetensors to mix with --init, weight by weight: what both learnt stays, what one forgot comes back")
    ap.add_argument("--share", type=float, default=0.6, help="share of --init in it")
    ap.add_argument("--tower", help="pre-trained tower to put in, in --work")
    ap.add_argument("--out", default="language.pt")
    ap.add_argument("--work", default="work")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--lr", type=float, default=2e-3)
    ap.add_argument("--warmup", type=int, default=60)
    ap.add_argument("--decay", type=float, default=0.0, help="share of the time over which the learning rate falls to zero")
    ap.add_argument("--draft", action="store_true", help="train the draft head only, on the finished trunk")
    ap.add_argument("--freeze-tower", action="store_true")
    ap.add_argument("--hints", action="store_true", help="throw-away heads teach the tower and the first layers besides")
    ap.add_argument("--helper", action="store_true", help="a second process adds gradients whenever it has one")
    ap.add_argument("--helper-nice", type=int, default=10)
    ap.add_argument("--bf16", action="store_true", help="products in bf16: twice as fast where the CPU has bf16 instructions, slow elsewhere")
    a = ap.parse_args()
    M.HALF = torch.bfloat16 if a.bf16 else torch.float32
    Path(a.work).mkdir(exist_ok=True)
    if a.stage == "tokenizer":
        E.write_tokenizer(HERE)
    elif a.stage == "tower":
        train_tower(a)
    elif a.stage == "language":
        train_language(a)
    else:
        model, draft = M.build(a.seed)
        if a.init or a.tower:
            load(a, model, draft)
        export.write_checkpoint(HERE, model, draft)


if __name__ == "__main__":
    main()
