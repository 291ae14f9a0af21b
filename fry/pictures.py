"""Pictures with known contents: scenes of simple shapes, numbers, plain colours, photograph-like textures, clips.

Everything is drawn from a `random.Random`, so a seed fixes a picture. A drawn picture comes with the objects on it;
the questions and answers about them are made in `data.py`.
"""
import io
import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

COLOURS = {
    "red": (220, 30, 30), "green": (30, 160, 50), "blue": (40, 70, 220), "yellow": (240, 220, 40),
    "orange": (245, 140, 20), "purple": (140, 40, 170), "black": (15, 15, 15), "white": (250, 250, 250),
}
SHAPES = ["circle", "square", "triangle", "star", "cross", "heart"]
BACKGROUNDS = [(255, 255, 255), (250, 250, 250), (200, 200, 200), (150, 150, 150), (225, 215, 195), (180, 205, 215),
               (95, 95, 100), (205, 185, 170), (170, 190, 170), (20, 20, 20)]
COLUMNS, ROWS = ["left", "center", "right"], ["top", "middle", "bottom"]

FACTOR, MIN_PIXELS, MAX_PIXELS = 32, 96 * 96, 160 * 160
FONT_FOLDERS = ["/usr/share/fonts/truetype/dejavu", "/usr/share/fonts/truetype/liberation"]
FONT_NAMES = ["DejaVuSans-Bold.ttf", "DejaVuSansCondensed-Bold.ttf", "LiberationSans-Bold.ttf"]
FONTS = [str(p) for folder in FONT_FOLDERS for name in FONT_NAMES if (p := Path(folder) / name).exists()]
_font_cache = {}


@dataclass
class Thing:
    """One shape (or digit) on a picture. Row and column are thirds of the picture; x, y, r are pixels."""
    shape: str
    colour: str
    size: str
    row: int
    col: int
    x: float
    y: float
    r: float

    @property
    def place(self):
        if self.row == 1 and self.col == 1:
            return "center"
        if self.row == 1:
            return COLUMNS[self.col]
        if self.col == 1:
            return ROWS[self.row]
        return f"{ROWS[self.row]} {COLUMNS[self.col]}"


SIDES = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}


def beside(things, t, side):
    """What stands nearest to thing t on one side, in its row or column of thirds; None where nothing does."""
    dr, dc = SIDES[side]
    line = [o for o in things if (o.row == t.row and (o.col - t.col) * dc > 0 if dc else o.col == t.col and (o.row - t.row) * dr > 0)]
    return min(line, key=lambda o: abs(o.col - t.col) + abs(o.row - t.row), default=None)


def names(thing):
    """Shape and colour as numbers, with a number for no thing at all."""
    return [len(SHAPES), len(COLOURS)] if thing is None else [SHAPES.index(thing.shape), list(COLOURS).index(thing.colour)]


def jitter(rng, rgb, by=14):
    return tuple(max(0, min(255, v + rng.randint(-by, by))) for v in rgb)


def contrast(a, b):
    return sum(abs(x - y) for x, y in zip(a, b))


def draw_shape(d, shape, x, y, r, fill):
    if shape == "circle":
        d.ellipse([x - r, y - r, x + r, y + r], fill=fill)
    elif shape == "square":
        q = r * 0.88
        d.rectangle([x - q, y - q, x + q, y + q], fill=fill)
    elif shape == "triangle":
        d.polygon([(x, y - r), (x + r * 0.95, y + r * 0.8), (x - r * 0.95, y + r * 0.8)], fill=fill)
    elif shape == "star":
        tips = [(-math.pi / 2 + k * math.pi / 5, r * (1.1 if k % 2 == 0 else 0.45)) for k in range(10)]
        d.polygon([(x + q * math.cos(a), y + q * math.sin(a)) for a, q in tips], fill=fill)
    elif shape == "cross":
        w = r * 0.33
        d.rectangle([x - r, y - w, x + r, y + w], fill=fill)
        d.rectangle([x - w, y - r, x + w, y + r], fill=fill)
    else:  # heart: two discs over a triangle
        q = r * 0.53
        for side in (-1, 1):
            d.ellipse([x + side * q - q, y - r * 0.85, x + side * q + q, y - r * 0.85 + 2 * q], fill=fill)
        d.polygon([(x - r * 1.0, y - r * 0.12), (x + r * 1.0, y - r * 0.12), (x, y + r)], fill=fill)


def background(rng):
    return jitter(rng, rng.choice(BACKGROUNDS), 10)


def pick_colour(rng, bg):
    name = rng.choice([c for c, v in COLOURS.items() if contrast(v, bg) > 130])
    return name


def lay_out(rng, n, width, height, bg):
    """n things in different ninths of the picture, near the middle of their ninth, never touching."""
    m = min(width, height)
    while True:
        cells = rng.sample([(i, j) for i in range(3) for j in range(3)], n)
        things = []
        for i, j in sorted(cells):
            big = rng.random() < 0.5
            spread = 0.11
            if big:
                r, spread = m * rng.uniform(0.125, 0.16), 0.09
                if n == 1 and rng.random() < 0.5:
                    r, spread = m * rng.uniform(0.16, 0.3), 0.05
            else:
                r = m * rng.uniform(0.07, 0.095)
            x = (j + 0.5) * width / 3 + rng.uniform(-spread, spread) * width
            y = (i + 0.5) * height / 3 + rng.uniform(-spread, spread) * height
            x, y = (max(r * 1.12, min(v, side - r * 1.12)) for v, side in ((x, width), (y, height)))
            things.append(Thing(rng.choice(SHAPES), pick_colour(rng, bg), "large" if big else "small", i, j, x, y, r))
        if all(math.hypot(a.x - b.x, a.y - b.y) > 1.05 * (a.r + b.r) for k, a in enumerate(things) for b in things[:k]):
            return things


def paint(rng, things, width, height, bg):
    """Draws at twice the size and averages down, so that edges are smooth."""
    image = Image.new("RGB", (width * 2, height * 2), bg)
    d = ImageDraw.Draw(image)
    for t in things:
        draw_shape(d, t.shape, t.x * 2, t.y * 2, t.r * 2, jitter(rng, COLOURS[t.colour]))
    return image.resize((width, height), Image.BOX)


def scene(rng, n, width, height):
    bg = background(rng)
    things = lay_out(rng, n, width, height, bg)
    return paint(rng, things, width, height, bg), things


def font(path, size):
    if (path, size) not in _font_cache:
        _font_cache[path, size] = ImageFont.truetype(path, size) if path else ImageFont.load_default(size)
    return _font_cache[path, size]


def number(rng, text, width, height):
    """The digits of `text` in a bold font. Returns the picture, the colour name and one Thing per digit."""
    bg = background(rng)
    colour = pick_colour(rng, bg)
    size = int(rng.uniform(0.8, 1.15) * min(height * 0.55, width * 1.4 / max(len(text), 2)))
    size = max(24, size)
    f = font(rng.choice(FONTS) if FONTS else None, size)
    image = Image.new("RGB", (width, height), bg)
    d = ImageDraw.Draw(image)
    left, top, right, bottom = d.textbbox((0, 0), text, font=f)
    w, h = right - left, bottom - top
    x = rng.uniform(2, max(3, width - w - 2)) - left
    y = rng.uniform(2, max(3, height - h - 2)) - top
    d.text((x, y), text, font=f, fill=jitter(rng, COLOURS[colour]))
    digits = []
    for k, ch in enumerate(text):
        cx = x + d.textlength(text[:k], font=f) + d.textlength(ch, font=f) / 2
        digits.append(Thing(ch, colour, "", 0, 0, cx, y + (top + bottom) / 2, h / 2))
    return image, colour, digits


def plain(rng, width, height):
    colour = rng.choice(list(COLOURS))
    return Image.new("RGB", (width, height), jitter(rng, COLOURS[colour], 12)), colour


def smooth_noise(rng, width, height, cells):
    coarse = np.array([[[rng.randint(0, 255) for _ in range(3)] for _ in range(cells)] for _ in range(cells)], np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.BICUBIC)


def photo(rng, width, height):
    """Something with the texture of a photograph: layered noise, a horizon, blurred blobs, grain."""
    image = smooth_noise(rng, width, height, rng.choice([2, 3, 4, 6]))
    for _ in range(rng.randint(0, 3)):
        image = Image.blend(image, smooth_noise(rng, width, height, rng.choice([3, 5, 9, 16, 30])), rng.uniform(0.2, 0.5))
    if rng.random() < 0.4:
        sky = smooth_noise(rng, width, height, 2).crop((0, 0, width, rng.randint(height // 4, height * 3 // 4)))
        image.paste(sky, (0, 0))
    if rng.random() < 0.5:
        layer = image.copy()
        d = ImageDraw.Draw(layer)
        for _ in range(rng.randint(4, 25)):
            x, y, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(2, width / 5)
            d.ellipse([x - r, y - r * rng.uniform(0.3, 2), x + r, y + r], fill=tuple(rng.randint(0, 255) for _ in range(3)))
        image = layer.filter(ImageFilter.GaussianBlur(rng.uniform(1, 5)))
    grain = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(0, 18), (height, width, 1))
    values = np.asarray(image, np.float32)
    if rng.random() < 0.25:
        values = values.mean(2, keepdims=True).repeat(3, 2)
    return Image.fromarray(np.clip(values + grain, 0, 255).astype(np.uint8))


DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


def clip(rng, frames, width, height):
    """A shape moving steadily in one of four directions over `frames` frames."""
    bg = background(rng)
    way = rng.choice(list(DIRECTIONS))
    r = min(width, height) * rng.uniform(0.1, 0.17)
    travel = rng.uniform(0.4, 0.6)
    dx, dy = DIRECTIONS[way]
    lo_x, hi_x, lo_y, hi_y = r * 1.2, width - r * 1.2, r * 1.2, height - r * 1.2
    if dx:
        span = (hi_x - lo_x) * travel
        x0 = rng.uniform(lo_x, hi_x - span) + (span if dx < 0 else 0)
        y0 = rng.uniform(lo_y, hi_y)
    else:
        span = (hi_y - lo_y) * travel
        y0 = rng.uniform(lo_y, hi_y - span) + (span if dy < 0 else 0)
        x0 = rng.uniform(lo_x, hi_x)
    shape, colour = rng.choice(SHAPES), pick_colour(rng, bg)
    rgb = jitter(rng, COLOURS[colour])
    images = []
    for k in range(frames):
        s = span * k / (frames - 1)
        image = Image.new("RGB", (width * 2, height * 2), bg)
        draw_shape(ImageDraw.Draw(image), shape, (x0 + dx * s) * 2, (y0 + dy * s) * 2, r * 2, rgb)
        images.append(image.resize((width, height), Image.BOX))
    return images, way, shape, colour


def encode(image, kind, quality=90):
    """PNG or JPEG bytes."""
    buffer = io.BytesIO()
    image.save(buffer, kind.upper(), **({"quality": quality} if kind == "jpeg" else {}))
    return buffer.getvalue()


def through_jpeg(rng, image):
    return Image.open(io.BytesIO(encode(image, "jpeg", rng.randint(70, 95)))).convert("RGB")


def fit(width, height, low=MIN_PIXELS, high=MAX_PIXELS):
    """The size the image processor resizes to: multiples of 32 within the pixel bounds (round half to even)."""
    w, h = round(width / FACTOR) * FACTOR, round(height / FACTOR) * FACTOR
    if w * h > high:
        beta = math.sqrt(width * height / high)
        w, h = (max(FACTOR, math.floor(v / beta / FACTOR) * FACTOR) for v in (width, height))
    elif w * h < low:
        beta = math.sqrt(low / (width * height))
        w, h = (math.ceil(v * beta / FACTOR) * FACTOR for v in (width, height))
    return w, h


def canvas(rng, width, height):
    """A size to draw at that the processor turns into width x height: mostly the same, sometimes larger or smaller."""
    if rng.random() < 0.5:
        return width, height
    for _ in range(20):
        scale = rng.uniform(1.0, 3.0)
        w, h = (int(v * scale * rng.uniform(0.92, 1.08)) for v in (width, height))
        if fit(w, h) == (width, height):
            return w, h
    return width, height


def patches(images):
    """Patch vectors of one frame (given once) or two frames: [rows*cols, 768 or 1536], in merge-block order.

    One still frame stands for a duplicated pair; the trainer sums the two halves of the patch projection instead.
    """
    frames = [np.asarray(i, np.float32) / 127.5 - 1 for i in images]
    h, w, _ = frames[0].shape
    a = np.stack(frames)  # [T, H, W, 3]
    a = a.reshape(len(frames), h // 32, 2, 16, w // 32, 2, 16, 3)
    a = a.transpose(1, 4, 2, 5, 7, 0, 3, 6)  # [H/32, W/32, 2, 2, 3, T, 16, 16]
    return a.reshape(h // 16 * (w // 16), -1)


GRIDS = [(w, h) for w in range(3, 8) for h in range(3, 8) if 9 <= w * h <= 25 and max(w, h) <= 2 * min(w, h)]
