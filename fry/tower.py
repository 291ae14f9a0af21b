"""Stage 1: the vision tower learns alone, from dense labels.

For every merged token (32 x 32 pixels) throw-away heads name what covers it (a shape, a digit, a photograph or
nothing), its colour, its size, in which third of the rows and columns it is and what stands beside it, and one marks
the token that holds a thing's middle. The tower sees the whole picture, the language model only what came before: what
stands beside a thing is found here or not at all. Learnt from captions alone the tower stays at chance for minutes;
learnt like this it can see before the language model has to speak.
"""
import copy
import random
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import model as M
import pictures as P

KINDS = ["nothing", *P.SHAPES, *"0123456789", "photo"]
COLOURS = list(P.COLOURS)
SMALL_GRIDS = [(3, 3), (4, 3), (3, 4), (4, 4), (4, 4), (5, 4), (4, 5), (5, 5)]
SIDES = {"left of": 1.0, "right of": 0.4, "above": 0.3, "below": 0.3}  # what the neighbour on a side weighs in the loss
NAMES = 9  # classes of a neighbour's shape and of its colour: the last of each (6, 8) is that there is none
LARGE_GRIDS = [g for g in P.GRIDS if g[0] * g[1] > 16]
STAY = 0.25  # what a trained tower's distance from what it said before weighs


class Heads(nn.Module):
    def __init__(self, width=192):
        super().__init__()
        self.kind, self.colour = nn.Linear(width, len(KINDS)), nn.Linear(width, len(COLOURS))
        self.size, self.middle = nn.Linear(width, 2), nn.Linear(width, 2)
        self.row, self.col = nn.Linear(width, 3), nn.Linear(width, 3)
        self.beside = nn.Linear(width, len(SIDES) * 2 * NAMES)

    def neighbours(self, h, at):
        """[tokens at `at`, side, shape and colour, classes]"""
        return self.beside(h[at]).view(-1, len(SIDES), 2, NAMES)

    def loss(self, h, labels):
        kind, colour, size, middle, row, col, beside = labels
        at = beside[:, 0, 0] >= 0
        loss = F.cross_entropy(self.kind(h), kind) + 0.3 * F.cross_entropy(self.middle(h), middle)
        loss = loss + 0.5 * F.cross_entropy(self.colour(h), colour) + 0.3 * F.cross_entropy(self.size(h), size)
        loss = loss + 0.5 * (F.cross_entropy(self.row(h), row) + F.cross_entropy(self.col(h), col))
        if at.any():
            said = F.cross_entropy(self.neighbours(h, at).flatten(0, 2), beside[at].flatten(), reduction="none")
            loss = loss + 0.5 * (said.view(-1, len(SIDES), 2).mean((0, 2)) * torch.tensor(list(SIDES.values()))).sum()
        return loss


def token_labels(things, cols, rows, sx, sy):
    """kind, colour, size, middle, row, col and neighbours per merged token; -100 where a label says nothing. sx, sy scale the drawing."""
    kind, colour, size, middle, row, col = (np.full((rows, cols), v, np.int64) for v in (0, -100, -100, 0, -100, -100))
    nearest, beside = np.full((rows, cols), 1e9), np.full((rows, cols, len(SIDES), 2), -100)
    for t in things:
        x, y, r = t.x * sx, t.y * sy, t.r * (sx + sy) / 2
        ci, cj = min(rows - 1, int(y // 32)), min(cols - 1, int(x // 32))
        middle[ci, cj] = 1
        for i in range(rows):
            for j in range(cols):
                dx, dy = abs(x - (j * 32 + 16)), abs(y - (i * 32 + 16))
                if t.shape.isdigit():
                    d, covers = dx + 0.5 * dy, dx <= 16 and dy < r
                else:
                    d, covers = (dx * dx + dy * dy) ** 0.5, False
                    covers = d < r * 0.9 + 8
                    if (i, j) == (ci, cj):
                        d, covers = d * 1e-3 - 1, True
                if covers and d < nearest[i, j]:
                    nearest[i, j] = d
                    kind[i, j], colour[i, j] = KINDS.index(t.shape), COLOURS.index(t.colour)
                    if not t.shape.isdigit():
                        size[i, j], row[i, j], col[i, j] = int(t.size == "large"), t.row, t.col
                        beside[i, j] = [P.names(P.beside(things, t, side)) for side in SIDES]
    return [*(v.ravel() for v in (kind, colour, size, middle, row, col)), beside.reshape(-1, len(SIDES), 2)]


def labelled(rng, cols, rows, numbers=0.42):
    """One picture as patch vectors and its labels. `numbers` is the share of pictures of a number."""
    w, h = P.canvas(rng, cols * 32, rows * 32)
    what = rng.random()
    if what < numbers:
        text = str(rng.randint(0, 999))
        image, _, things = P.number(rng, text, w, h)
    elif what < 0.95:
        image, things = P.scene(rng, rng.choice([1, 2, 3, 4, 5, 6]), w, h)
    else:
        image, things = P.photo(rng, w, h), []
    if rng.random() < 0.3:
        image = P.through_jpeg(rng, image)
    if image.size != (cols * 32, rows * 32):
        image = image.resize((cols * 32, rows * 32), P.Image.BICUBIC)
    labels = token_labels(things, cols, rows, cols * 32 / w, rows * 32 / h)
    if what >= 0.95:
        labels[0][:] = KINDS.index("photo")
    return P.patches([image]), labels


def batch(rng, n, grid=None, numbers=0.42):
    cols, rows = grid or (rng.choice(SMALL_GRIDS) if rng.random() < 0.85 else rng.choice(LARGE_GRIDS))
    n = max(8, n * 16 // (cols * rows))
    pixels, labels = zip(*(labelled(rng, cols, rows, numbers) for _ in range(n)))
    return torch.from_numpy(np.stack(pixels)), [torch.from_numpy(np.concatenate(v)) for v in zip(*labels)], rows * 2, cols * 2


def score(visual, heads, rng, batches):
    """Share of right labels on fresh pictures; of what is left of a thing, shape and colour together, where there is something."""
    right, total = np.zeros(9), np.zeros(9)
    with torch.no_grad():
        for pixels, (kind, colour, size, middle, row, col, beside), rows, cols in batches:
            h = M.tower(visual, pixels, rows, cols)
            k = heads.kind(h).argmax(-1)
            shape, digit = (kind > 0) & (kind <= len(P.SHAPES)), (kind > len(P.SHAPES)) & (kind < len(KINDS) - 1)
            left = (beside[:, 0, 0] >= 0) & (beside[:, 0, 0] < len(P.SHAPES))
            rows_ = [(k == kind)[kind == 0], (k == kind)[shape], (k == kind)[digit],
                     (heads.colour(h).argmax(-1) == colour)[colour >= 0], (heads.size(h).argmax(-1) == size)[size >= 0],
                     (heads.middle(h).argmax(-1) == middle)[middle == 1],
                     (heads.row(h).argmax(-1) == row)[row >= 0], (heads.col(h).argmax(-1) == col)[col >= 0],
                     (heads.neighbours(h, left)[:, 0].argmax(-1) == beside[left][:, 0]).all(1)]
            right += [v.sum().item() for v in rows_]
            total += [v.numel() for v in rows_]
    return dict(zip(["nothing", "shape", "digit", "colour", "size", "middle", "row", "col", "left"], (right / total).round(3).tolist()))


def fit_heads(heads, visual, rng, steps=150):
    """The heads learn to read a trained tower before they may change it."""
    with torch.no_grad():
        seen = [(M.tower(visual, pixels, rows, cols), labels) for pixels, labels, rows, cols in (batch(rng, 64) for _ in range(16))]
    optimiser = torch.optim.Adam(heads.parameters(), lr=3e-3)
    for k in range(steps):
        loss = heads.loss(*seen[k % len(seen)])
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()


def train(visual, seconds, seed, log, batch_size=64, save=None, lr=3e-3, trained=False):
    """A `trained` tower learns on, and is held near what it says: a language model already listens to it."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    heads = Heads()
    before = copy.deepcopy(visual).requires_grad_(False) if trained else None
    if trained:
        fit_heads(heads, visual, rng)
    named = [*((f"visual.{n}", p) for n, p in visual.named_parameters()), *((f"head_{n}", p) for n, p in heads.named_parameters())]
    optimisers = M.optimisers(named, muon_lr=lr, adam_lr=lr)
    held_out = [batch(random.Random(10**6 + k), 64, g) for k, g in enumerate([(3, 3), (4, 4), (4, 4), (5, 4), (5, 5)])]
    start, step, seen, averages = time.process_time(), 0, 0, []
    while (elapsed := time.process_time() - start) < seconds:
        warm, cool = min(1, (step + 1) / 40), min(1, (seconds - elapsed) / (seconds * 0.35))
        for o in optimisers:
            for g in o.param_groups:
                g["lr"] = g["base_lr"] * warm * max(0.02, cool)
        pixels, labels, rows, cols = batch(rng, batch_size, numbers=0.2 if trained else 0.42)
        h = M.tower(visual, pixels, rows, cols)
        loss = heads.loss(h, labels)
        if trained:
            said = M.tower(before, pixels, rows, cols)
            loss = loss + STAY * (h - said).square().mean() / said.square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
        for o in optimisers:
            o.step()
            o.zero_grad()
        step, seen = step + 1, seen + len(pixels)
        averages.append(loss.item())
        if step % 100 == 0:
            log(f"tower step {step} {elapsed:.0f}s loss {np.mean(averages[-100:]):.3f} {seen / elapsed:.0f} pictures/s "
                f"{score(visual, heads, rng, held_out)}")
        if save and step % 500 == 0:
            save()
    return seen
