"""Makes tests/media/fixtures/corpus.safetensors: small pictures in every format and form, and what Transformers makes of them.

Run with torch 2.13, torchvision 0.28, transformers 5.23 and Pillow 13:  python tests/media/make_corpus.py

Each file is a tensor of its bytes. The metadata has a row of JSON for each: its group (a row of the printed table), the size
and digest of the pixels that `transformers.image_utils.load_image` gives, and the digest of the `pixel_values` of these
pixels. (The one transparent colour of a GIF, or of a PNG in RGB or grey, the processor would make white.) A lossy file has
its expected pixels beside it, as a PNG named `<file>=`.
"""

import hashlib
import io
import json
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps
from safetensors.numpy import save_file
from transformers import AutoImageProcessor
from transformers.image_utils import load_image

from make_fixtures import FOLDER, PREPROCESSOR, smooth

SIZES = [(1, 1), (1, 2), (3, 5), (17, 31), (64, 48), (1, 150), (150, 1), (2, 97), (121, 9)]  # (height, width)
ORIENTATION = 0x0112

corpus = {}


def add(name, file):
    if isinstance(file, tuple):
        picture, options = file
        buffer = io.BytesIO()
        picture.save(buffer, **options)
        file = buffer.getvalue()
    assert name not in corpus, name
    corpus[name] = file


def photo(height=24, width=38):
    return Image.fromarray(smooth(height, width))


def with_alpha(picture):
    height, width = picture.height, picture.width
    alpha = Image.fromarray((np.add.outer(np.arange(height), np.arange(width)) * 9 % 256).astype(np.uint8))
    picture = picture.copy()
    picture.putalpha(alpha)
    return picture


def flat(height=24, width=38, levels=16):
    """A picture of few colours, without their order being that of their brightness."""
    return photo(height, width).quantize(levels, dither=0)


def turned(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


# PNG


def png(samples, depth, colour, interlaced=False, chunks=(), filters=(0, 1, 2, 3, 4)):
    """A PNG of `samples`, [height, width, channels]; rows take turns with the filters."""
    height, width, channels = samples.shape
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    data = b""
    for top, left, rows, columns in passes:
        part = samples[top::rows, left::columns]
        if part.size == 0:
            continue
        previous = None
        for y, row in enumerate(part):
            line = packed(row.reshape(-1), depth)
            previous = np.zeros_like(line) if previous is None else previous
            kind = filters[y % len(filters)]
            data += bytes([kind]) + filtered(kind, line, previous, max(1, channels * depth // 8)).tobytes()
            previous = line
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(data, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part)) for kind, part in parts
    )


def packed(samples, depth):
    if depth == 16:
        return np.frombuffer(samples.astype(">u2").tobytes(), np.uint8)
    if depth == 8:
        return samples.astype(np.uint8)
    bits = ((samples[:, None] >> np.arange(depth - 1, -1, -1)) & 1).astype(np.uint8)
    return np.packbits(bits.reshape(-1))


def filtered(kind, line, previous, step):
    line, previous = line.astype(int), previous.astype(int)
    left = np.concatenate([np.zeros(step, int), line[:-step]])[: len(line)]
    corner = np.concatenate([np.zeros(step, int), previous[:-step]])[: len(line)]
    distances = np.abs(np.stack([previous - corner, left - corner, left + previous - 2 * corner]))
    nearest = np.where((distances[0] <= distances[1]) & (distances[0] <= distances[2]), left,
                       np.where(distances[1] <= distances[2], previous, corner))
    return ((line - [0 * line, left, previous, (left + previous) // 2, nearest][kind]) % 256).astype(np.uint8)


def add_png():
    rgb, height, width = smooth(24, 38), 24, 38
    grey = np.asarray(photo().convert("L"))[..., None]
    alpha = np.asarray(with_alpha(photo()))[..., 3:]
    indices = np.asarray(flat())[..., None]
    palette = bytes(flat().getpalette()[:48])
    forms = {
        "rgb": (rgb, 8, 2, ()), "rgba": (np.concatenate([rgb, alpha], -1), 8, 6, ()),
        "grey": (grey, 8, 0, ()), "grey-alpha": (np.concatenate([grey, alpha], -1), 8, 4, ()),
        "rgb-16": (rgb.astype(int) * 256 + 200, 16, 2, ()),
        "rgba-16": (np.concatenate([rgb, alpha], -1).astype(int) * 256 + 99, 16, 6, ()),
        "grey-16": (grey.astype(int) * 256 + 77, 16, 0, ()),
        "grey-alpha-16": (np.concatenate([grey, alpha], -1).astype(int) * 256 + 77, 16, 4, ()),
        "grey-1": (grey >> 7, 1, 0, ()), "grey-2": (grey >> 6, 2, 0, ()), "grey-4": (grey >> 4, 4, 0, ()),
        "palette-1": (indices & 1, 1, 3, [(b"PLTE", palette[:6])]), "palette-2": (indices & 3, 2, 3, [(b"PLTE", palette[:12])]),
        "palette-4": (indices, 4, 3, [(b"PLTE", palette)]), "palette-8": (indices, 8, 3, [(b"PLTE", palette)]),
        "palette-trns": (indices, 8, 3, [(b"PLTE", palette), (b"tRNS", bytes([0, 128, 255, 0]))]),
        "rgb-trns": (rgb, 8, 2, [(b"tRNS", struct.pack(">HHH", *map(int, rgb[3, 3])))]),
        "grey-trns": (grey, 8, 0, [(b"tRNS", struct.pack(">H", int(grey[3, 3, 0])))]),
        "grey-4-trns": (grey >> 4, 4, 0, [(b"tRNS", struct.pack(">H", 7))]),
        "rgb-gamma": (rgb, 8, 2, [(b"gAMA", struct.pack(">I", 100_000))]),
    }
    for name, (samples, depth, colour, chunks) in forms.items():
        add(f"png/{name}", png(samples, depth, colour, False, chunks))
        add(f"png/{name}-interlaced", png(samples, depth, colour, True, chunks))
    for orientation in range(1, 9):
        add(f"png/turned-{orientation}", (photo(), {"format": "PNG", "exif": turned(orientation)}))
    frames = [photo(), ImageOps.invert(photo())]
    add("png/animated", (frames[0], {"format": "PNG", "save_all": True, "append_images": frames[1:]}))
    add("png/animated-hidden", (frames[0], {"format": "PNG", "save_all": True, "append_images": frames[1:], "default_image": True}))
    for size in SIZES:
        add("png/size-%dx%d" % size, png(smooth(*size), 8, 2))
        add("png/size-%dx%d-interlaced" % size, png(smooth(*size), 8, 2, True))


# JPEG


def add_jpeg():
    def save(name, picture, **options):
        add(f"jpeg/{name}", (picture, {"format": "JPEG", "quality": 90, **options}))

    for name, subsampling in [("444", 0), ("422", 1), ("420", 2)]:
        save(name, photo(), subsampling=subsampling)
        save(f"{name}-progressive", photo(), subsampling=subsampling, progressive=True)
        save(f"{name}-restart", photo(50, 70), subsampling=subsampling, restart_marker_blocks=2)
        save(f"{name}-quality-30", photo(50, 70), subsampling=subsampling, quality=30)
        save(f"{name}-quality-100", photo(), subsampling=subsampling, quality=100)
    save("440", photo().transpose(Image.Transpose.ROTATE_90), subsampling=1)
    save("optimised", photo(), optimize=True)
    save("rgb", photo(), keep_rgb=True)
    save("grey", photo().convert("L"))
    save("grey-progressive", photo().convert("L"), progressive=True)
    save("cmyk", photo().convert("CMYK"))
    save("cmyk-420", photo(50, 70).convert("CMYK"), subsampling=2)
    adobe = corpus["jpeg/cmyk"].index(b"Adobe")
    ycck = bytearray(corpus["jpeg/cmyk"])
    ycck[adobe + 11] = 2
    add("jpeg/ycck", bytes(ycck))
    save("trailing", photo(), subsampling=0)
    corpus["jpeg/trailing"] += bytes(100)
    for orientation in range(1, 9):
        save(f"turned-{orientation}", photo(), subsampling=0, exif=turned(orientation))
    for size in SIZES:
        for name, subsampling in [("444", 0), ("420", 2)]:
            save("size-%dx%d-%s" % (*size, name), photo(*size), subsampling=subsampling)


# WebP


def add_webp():
    def save(name, picture, **options):
        add(f"webp/{name}", (picture, {"format": "WEBP", **options}))

    for quality in [20, 80, 100]:
        save(f"lossy-{quality}", photo(50, 70), quality=quality)
        save(f"lossy-alpha-{quality}", with_alpha(photo(50, 70)), quality=quality, exact=True)
    save("lossless", photo(), lossless=True)
    save("lossless-noise", Image.fromarray((smooth(24, 38).astype(int) * 37 % 256).astype(np.uint8)), lossless=True)
    save("lossless-flat", flat(levels=4).convert("RGB"), lossless=True)
    save("lossless-alpha", with_alpha(photo()), lossless=True, exact=True)
    frames = [photo(), ImageOps.invert(photo())]
    save("lossless-animated", frames[0], lossless=True, save_all=True, append_images=frames[1:])
    save("lossy-animated", frames[0], save_all=True, append_images=frames[1:])
    for orientation in range(1, 9):
        save(f"lossless-turned-{orientation}", photo(), lossless=True, exif=turned(orientation))
    for size in SIZES:
        save("lossless-size-%dx%d" % size, photo(*size), lossless=True)
        save("lossy-size-%dx%d" % size, photo(*size), quality=80)


# GIF


def add_gif():
    for levels in [2, 4, 16, 200]:
        add(f"gif/levels-{levels}", (flat(levels=levels), {"format": "GIF", "interlace": 0}))
        add(f"gif/levels-{levels}-interlaced", (flat(levels=levels), {"format": "GIF", "interlace": 1}))
    add("gif/grey", (photo().convert("L"), {"format": "GIF"}))
    add("gif/transparent", (flat(), {"format": "GIF", "transparency": 3}))
    frames = [flat(), ImageOps.invert(photo()).quantize(16)]
    for disposal in range(4):
        options = {"format": "GIF", "save_all": True, "append_images": frames[1:], "duration": 50, "disposal": disposal}
        add(f"gif/animated-disposal-{disposal}", (frames[0], options))
    old = bytearray(corpus["gif/levels-16"])
    old[:6] = b"GIF87a"
    add("gif/old", bytes(old))
    for name, background in [("background-0", 0), ("background-5", 5)]:
        inset = bytearray(corpus["gif/levels-16"])
        inset[6:10] = struct.pack("<HH", 48, 30)  # the screen is larger than its frame
        inset[11] = background
        add(f"gif/inset-{name}", bytes(inset))
    outside = bytearray(corpus["gif/levels-16"])
    outside[6:10] = struct.pack("<HH", 20, 10)  # and here smaller
    add("gif/outside", bytes(outside))
    for size in SIZES:
        add("gif/size-%dx%d" % size, (photo(*size).quantize(64), {"format": "GIF"}))


# BMP


def bmp(width, height, bits, data, compression=0, palette=b"", masks=b"", header_len=40, top_down=False):
    header = struct.pack("<IiiHHIIiiII", header_len, width, -height if top_down else height, 1, bits, compression, len(data), 2835, 2835, len(palette) // 4, 0)
    if header_len > 40:
        header += masks.ljust(16, b"\0") + b"BGRs" + bytes(header_len - 60)
        masks = b""
    start = 14 + len(header) + len(masks) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + masks + palette + data


def bmp_rows(samples, bits, top_down=False):
    """[height, row bytes] -> rows padded to four bytes, the lowest first."""
    rows = [packed(row.reshape(-1), bits).tobytes() if bits <= 8 else row.tobytes() for row in samples]
    return b"".join(row + bytes(-len(row) % 4) for row in (rows if top_down else rows[::-1]))


def rle8(indices):
    data = b""
    for row in indices[::-1]:
        x = 0
        while x < len(row):
            run = 1
            while x + run < len(row) and row[x + run] == row[x] and run < 255:
                run += 1
            if run > 1 or x + 3 > len(row):
                data += bytes([run, row[x]])
                x += run
            else:
                literal = row[x : x + 3].tobytes()
                data += bytes([0, len(literal)]) + literal + bytes(len(literal) % 2)
                x += 3
        data += b"\0\0"
    return data + b"\0\1"


def rle4(indices):
    data = b""
    for row in indices[::-1]:
        for x in range(0, len(row) - 1, 2):
            data += bytes([2, row[x] << 4 | row[x + 1]])
        if len(row) % 2:
            data += bytes([1, row[-1] << 4])
        data += b"\0\0"
    return data + b"\0\1"


def add_bmp():
    rgb, indices = smooth(24, 38), np.asarray(flat())
    palette = b"".join(bytes([*flat().getpalette()[3 * i : 3 * i + 3][::-1], 0]) for i in range(16))
    bgr = rgb[..., ::-1]
    bgra = np.concatenate([bgr, np.asarray(with_alpha(photo()))[..., 3:]], -1)
    add("bmp/24", bmp(38, 24, 24, bmp_rows(bgr, 24)))
    add("bmp/24-top-down", bmp(38, 24, 24, bmp_rows(bgr, 24, True), top_down=True))
    add("bmp/32", bmp(38, 24, 32, bmp_rows(bgra, 32)))
    add("bmp/32-masks", bmp(38, 24, 32, bmp_rows(bgra, 32), 3, masks=struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)))
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    add("bmp/32-v4", bmp(38, 24, 32, bmp_rows(bgra, 32), 3, masks=masks, header_len=108))
    add("bmp/32-v5", bmp(38, 24, 32, bmp_rows(bgra, 32), 3, masks=masks, header_len=124))
    five = (rgb.astype(np.uint16) >> 3)
    add("bmp/16-555", bmp(38, 24, 16, bmp_rows((five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2]).astype("<u2"), 16)))
    six = (rgb[..., 1].astype(np.uint16) >> 2)
    samples = (five[..., 0] << 11 | six << 5 | five[..., 2]).astype("<u2")
    add("bmp/16-565", bmp(38, 24, 16, bmp_rows(samples, 16), 3, masks=struct.pack("<III", 0xF800, 0x7E0, 0x1F)))
    add("bmp/8", bmp(38, 24, 8, bmp_rows(indices, 8), palette=palette))
    add("bmp/8-grey", (photo().convert("L"), {"format": "BMP"}))
    add("bmp/8-rle", bmp(38, 24, 8, rle8(indices), 1, palette))
    add("bmp/4", bmp(38, 24, 4, bmp_rows(indices, 4), palette=palette))
    add("bmp/4-rle", bmp(38, 24, 4, rle4(indices), 2, palette))
    add("bmp/1", bmp(38, 24, 1, bmp_rows(indices & 1, 1), palette=palette[:8]))
    add("bmp/1-black-and-white", (photo().convert("1"), {"format": "BMP"}))
    for size in SIZES:
        add("bmp/size-%dx%d" % size, (photo(*size), {"format": "BMP"}))
        add("bmp/size-%dx%d-palette" % size, (photo(*size).quantize(16), {"format": "BMP"}))


# TIFF


def tiff(samples, bits, photometric, order="<", rows_per_strip=None, tile=None, planar=1, extra=(), palette=None, predictor=1, deflate=False):
    """A TIFF of `samples`, [height, width, channels], in strips or tiles."""
    height, width, channels = samples.shape
    kind = np.dtype(np.uint16 if bits == 16 else np.uint8).newbyteorder(order)

    def block(part):
        if predictor == 2:
            part = np.concatenate([part[:, :1], part[:, 1:].astype(int) - part[:, :-1]], 1) % (1 << bits)
        if bits < 8:
            data = b"".join(packed(row.reshape(-1), bits).tobytes() for row in part)
        else:
            data = np.ascontiguousarray(part).astype(kind).tobytes()
        return zlib.compress(data, 9) if deflate else data

    planes = [samples[..., channel : channel + 1] for channel in range(channels)] if planar == 2 else [samples]
    if tile:
        padded = [np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)), mode="edge") for plane in planes]
        blocks = [block(plane[y : y + tile, x : x + tile]) for plane in padded for y in range(0, height, tile) for x in range(0, width, tile)]
    else:
        step = rows_per_strip or height
        blocks = [block(plane[y : y + step]) for plane in planes for y in range(0, height, step)]
    tags = {256: ("I", [width]), 257: ("I", [height]), 258: ("H", [bits] * channels), 259: ("H", [8 if deflate else 1]), 262: ("H", [photometric]),
            277: ("H", [channels]), 284: ("H", [planar])}
    if predictor != 1:
        tags[317] = ("H", [predictor])
    if extra:
        tags[338] = ("H", list(extra))
    if palette is not None:
        tags[320] = ("H", palette)
    data, offsets = b"", []
    for part in blocks:
        offsets.append(8 + len(data))
        data += part + bytes(len(part) % 2)
    counts = [len(part) for part in blocks]
    if tile:
        tags |= {322: ("I", [tile]), 323: ("I", [tile]), 324: ("I", offsets), 325: ("I", counts)}
    else:
        tags |= {273: ("I", offsets), 278: ("I", [rows_per_strip or height]), 279: ("I", counts)}
    directory_at, long = 8 + len(data), b""
    long_at = directory_at + 2 + 12 * len(tags) + 4
    directory = struct.pack(order + "H", len(tags))
    for tag, (letter, values) in sorted(tags.items()):
        value = struct.pack(f"{order}{len(values)}{letter}", *values)
        if len(value) > 4:
            place, long = struct.pack(order + "I", long_at + len(long)), long + value
        else:
            place = value.ljust(4, b"\0")
        directory += struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[letter], len(values)) + place
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "I", directory_at) + data + directory + bytes(4) + long


def add_tiff():
    rgb = smooth(24, 38)
    grey = np.asarray(photo().convert("L"))[..., None]
    indices = np.asarray(flat())[..., None]
    colours = np.array(flat().getpalette()[:48]).reshape(16, 3)
    palette = [int(value) * 257 for channel in range(3) for value in colours[:, channel]]
    long_palette = [int(value) * 257 for channel in range(3) for value in np.pad(colours, ((0, 240), (0, 0)))[:, channel]]
    rgba = np.asarray(with_alpha(photo()))
    cmyk = np.asarray(photo().convert("CMYK"))
    for order, name in [("<", ""), (">", "-big-endian")]:
        add(f"tiff/rgb{name}", tiff(rgb, 8, 2, order))
        add(f"tiff/rgb-strips{name}", tiff(rgb, 8, 2, order, rows_per_strip=7))
        add(f"tiff/rgb-tiles{name}", tiff(rgb, 8, 2, order, tile=16))
        add(f"tiff/rgb-deflate{name}", tiff(rgb, 8, 2, order, rows_per_strip=7, deflate=True))
        add(f"tiff/rgb-predicted{name}", tiff(rgb, 8, 2, order, rows_per_strip=7, deflate=True, predictor=2))
        add(f"tiff/rgb-16{name}", tiff(rgb.astype(int) * 256 + 200, 16, 2, order))
        add(f"tiff/grey-16{name}", tiff(grey.astype(int) * 256 + 77, 16, 1, order))
    add("tiff/rgb-planes", tiff(rgb, 8, 2, planar=2))
    add("tiff/rgba", tiff(rgba, 8, 2, extra=[2]))
    add("tiff/rgba-associated", tiff(rgba, 8, 2, extra=[1]))
    add("tiff/grey", tiff(grey, 8, 1))
    add("tiff/grey-inverted", tiff(grey, 8, 0))
    add("tiff/grey-4", tiff(grey >> 4, 4, 1))
    add("tiff/grey-4-inverted", tiff(grey >> 4, 4, 0))
    add("tiff/grey-4-tiles", tiff(grey >> 4, 4, 1, tile=16))
    add("tiff/grey-4-strips-deflate", tiff(grey >> 4, 4, 1, rows_per_strip=5, deflate=True))
    add("tiff/grey-2", tiff(grey >> 6, 2, 1))
    add("tiff/one-bit", tiff(grey >> 7, 1, 1))
    add("tiff/one-bit-inverted", tiff(grey >> 7, 1, 0))
    add("tiff/palette-4", tiff(indices, 4, 3, palette=palette))
    add("tiff/palette-8", tiff(indices, 8, 3, palette=long_palette))
    add("tiff/palette-8-big-endian", tiff(indices, 8, 3, ">", palette=long_palette, rows_per_strip=7))
    add("tiff/palette-8-tiles", tiff(indices, 8, 3, palette=long_palette, tile=16))
    add("tiff/cmyk", tiff(cmyk, 8, 5))
    for compression in ["tiff_lzw", "tiff_adobe_deflate", "packbits"]:
        add(f"tiff/{compression}", (photo(), {"format": "TIFF", "compression": compression}))
        add(f"tiff/{compression}-grey", (photo().convert("L"), {"format": "TIFF", "compression": compression}))
    add("tiff/group-4", (photo().convert("1"), {"format": "TIFF", "compression": "group4"}))
    add("tiff/lossy-jpeg", (photo(48, 64), {"format": "TIFF", "compression": "jpeg", "quality": 90}))
    frames = [photo(), ImageOps.invert(photo())]
    add("tiff/pages", (frames[0], {"format": "TIFF", "save_all": True, "append_images": frames[1:]}))
    for orientation in range(1, 9):
        add(f"tiff/turned-{orientation}", (photo(), {"format": "TIFF", "tiffinfo": {ORIENTATION: orientation}}))
    for size in SIZES:
        add("tiff/size-%dx%d" % size, (photo(*size), {"format": "TIFF"}))


def is_lossy(name):
    return name.startswith("jpeg/") or "/lossy" in name


def expected(file):
    """What Transformers makes of a file; but 16-bit grey, which PIL saturates to white above 255, keeps its high byte."""
    picture = Image.open(io.BytesIO(file))
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    return load_image(picture)


def group(name):
    """The row of the table that a file belongs to."""
    form, _, rest = name.partition("/")
    if "grey-16" in name:
        return f"{form.upper()} (16-bit grey: high byte)"
    return {"webp": f"WebP {rest.split('-')[0]}", "jpeg": "JPEG", "tiff": "TIFF (JPEG inside)" if is_lossy(name) else "TIFF"}.get(form, form.upper())


def main():
    for add_format in [add_png, add_jpeg, add_webp, add_gif, add_bmp, add_tiff]:
        add_format()
    folder = FOLDER / "processor"
    folder.mkdir(exist_ok=True)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    processor = AutoImageProcessor.from_pretrained(folder)
    (folder / "preprocessor_config.json").unlink()
    folder.rmdir()
    tensors, rows = {}, []
    for name, file in corpus.items():
        tensors[name] = np.frombuffer(file, np.uint8)
        picture = expected(file)
        picture = Image.fromarray(np.asarray(picture))
        values = processor(picture, return_tensors="np")["pixel_values"].astype("<f4")
        rows.append({
            "file": name, "group": group(name), "lossy": is_lossy(name), "height": picture.height, "width": picture.width,
            "pixels": hashlib.sha256(picture.tobytes()).hexdigest(), "pixel_values": hashlib.sha256(values.tobytes()).hexdigest(),
        })
        if is_lossy(name):
            pixels = io.BytesIO()
            picture.save(pixels, "PNG", optimize=True)
            tensors[name + "="] = np.frombuffer(pixels.getvalue(), np.uint8)
    path = FOLDER / "corpus.safetensors"
    save_file(tensors, path, metadata={"rows": json.dumps(rows)})
    print(len(rows), "files,", path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
