"""Makes tests/media/fixtures: small pictures, and what PIL, torchvision and Transformers make of them.

Run with torch 2.13, torchvision 0.28, transformers 5.23 and Pillow 13:  python tests/media/make_fixtures.py
"""

import hashlib
import json
import pathlib
import random
import struct
import tempfile
import zlib

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional as tvf
from transformers import AutoImageProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

FOLDER = pathlib.Path(__file__).parent / "fixtures"
PREPROCESSOR = {
    "size": {"longest_edge": 16777216, "shortest_edge": 65536},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "image_processor_type": "Qwen2VLImageProcessorFast",
}


def pattern(height, width):
    """The same busy picture as `pattern` in main.rs, uint8 [height, width, 3]."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    return ((x * 7 + y * 13 + c * 29 + ((x * y) >> 3) * 5 + (x ^ y) * 31) & 255).astype(np.uint8)


def smooth(height, width):
    """A picture like a photograph: soft colours with one edge."""
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    red = 255 * x / width
    green = 255 * y / height
    blue = 127 + 120 * np.sin(x / 5) * np.cos(y / 7)
    picture = np.stack([red, green, blue], -1)
    picture[(x - width // 2) ** 2 + (y - height // 2) ** 2 < 100] = [220, 40, 30]
    return picture.astype(np.uint8)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def save_pictures():
    rgb = Image.fromarray(smooth(36, 50))
    alpha = Image.fromarray((np.add.outer(np.arange(36), np.arange(50)) * 3 % 256).astype(np.uint8))
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    rotated = Image.Exif()
    rotated[0x0112] = 6  # Orientation: turn by 90 degrees to see it upright
    mirrored = Image.Exif()
    mirrored[0x0112] = 5

    rgb.save(FOLDER / "rgb.png")
    rgb.save(FOLDER / "turned.png", exif=rotated)
    rgba.save(FOLDER / "rgba.png")
    rgb.quantize(16).save(FOLDER / "palette.png")
    transparent = rgb.quantize(16)
    transparent.save(FOLDER / "palette-transparent.png", transparency=3)
    rgb.convert("L").save(FOLDER / "grey.png")
    rgba.convert("LA").save(FOLDER / "grey-alpha.png")
    rgb.convert("1").save(FOLDER / "one-bit.png")
    save_16_bit_png(FOLDER / "rgb-16.png")
    write_png(FOLDER / "bomb.png", (60_000, 60_000, 8), b"\0" * 1000)  # claims 10 GB
    grey16 = (np.asarray(rgb.convert("L")).astype(np.uint16) << 8) + 77
    Image.fromarray(grey16).save(FOLDER / "grey-16.png")

    rgb.save(FOLDER / "photo-444.jpg", quality=90, subsampling=0)
    rgb.save(FOLDER / "photo-422.jpg", quality=90, subsampling=1)
    rgb.save(FOLDER / "photo-420.jpg", quality=90, subsampling=2)
    rgb.save(FOLDER / "progressive.jpg", quality=90, subsampling=0, progressive=True)
    rgb.save(FOLDER / "turned.jpg", quality=90, subsampling=0, exif=rotated)
    rgb.save(FOLDER / "mirrored.jpg", quality=90, subsampling=0, exif=mirrored)
    rgb.convert("L").save(FOLDER / "grey.jpg", quality=90)
    rgb.convert("CMYK").save(FOLDER / "cmyk.jpg", quality=90, subsampling=0)

    rgb.save(FOLDER / "lossy.webp", quality=80)
    rgb.save(FOLDER / "lossless.webp", lossless=True)
    rgba.save(FOLDER / "rgba.webp", lossless=True, exact=True)
    rgb.save(FOLDER / "turned.webp", lossless=True, exif=rotated)
    frames = [rgb.quantize(32), ImageOps.invert(rgb).quantize(32)]
    frames[0].save(FOLDER / "animated.gif", save_all=True, append_images=frames[1:], duration=100)
    rgb.save(FOLDER / "rgb.bmp")
    rgb.quantize(16).save(FOLDER / "palette.bmp")
    rgb.save(FOLDER / "rgb.tif")
    rgb.save(FOLDER / "lzw.tif", compression="tiff_lzw")
    rgb.convert("CMYK").save(FOLDER / "cmyk.tif")
    rgb.save(FOLDER / "turned.tif", tiffinfo={0x0112: 6})


def save_16_bit_png(path):
    """PIL does not write 16-bit RGB."""
    samples = (smooth(36, 50).astype(">u2") << 8) + 200
    height, width, _ = samples.shape
    rows = b"".join(b"\0" + samples[y].astype(">u2").tobytes() for y in range(height))
    write_png(path, (width, height, 16), rows)


def write_png(path, size_and_depth, rows):
    """An RGB file with any header over any data."""
    header = struct.pack(">IIBBBBB", *size_and_depth, 2, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")):
            file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))


def decoded():
    """What Transformers' load_image makes of each file."""
    table = []
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in [".json", ".safetensors"] or path.name == "bomb.png":
            continue
        picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        table.append({"file": path.name, "width": picture.width, "height": picture.height, "sha256": sha256(picture.tobytes())})
    return table


def resized():
    pairs = [((1, 1), (256, 256)), ((240, 320), (256, 320)), ((337, 501), (224, 352)), ((337, 501), (512, 768)), ((337, 501), (96, 128)),
             ((64, 64), (64, 96)), ((64, 64), (96, 64)), ((500, 30), (512, 32)), ((7, 1400), (32, 1408)), ((1400, 7), (1408, 32)),
             ((1080, 1920), (1088, 1920)), ((100, 100), (32, 32)), ((33, 33), (32, 32)), ((31, 31), (32, 32)), ((900, 3), (64, 64))]
    numbers = random.Random(1)
    pairs += [((numbers.randint(1, 700), numbers.randint(1, 700)), (32 * numbers.randint(1, 20), 32 * numbers.randint(1, 20))) for _ in range(60)]
    table = []
    for source, target in pairs:
        tensor = torch.from_numpy(pattern(*source)).permute(2, 0, 1).contiguous()
        out = tvf.resize(tensor, list(target), interpolation=tvf.InterpolationMode.BICUBIC, antialias=True)
        table.append({"from": source, "to": target, "sha256": sha256(out.permute(1, 2, 0).contiguous().numpy().tobytes())})
    return table


def sizes():
    numbers = random.Random(2)
    cases = [(1, 1), (240, 320), (1080, 1920), (80, 112), (256, 256), (16, 2000), (10, 2000), (200, 1), (1, 200), (5000, 5000), (8000, 41), (4032, 3024), (48, 48)]
    cases += [(numbers.randint(50, 9000), numbers.randint(50, 9000)) for _ in range(100)]
    return [{"from": (h, w), "to": smart_resize(h, w, factor=32, min_pixels=65536, max_pixels=16777216)} for h, w in cases]


def pixel_values():
    """The whole path of one picture through the checkpoint's own processor."""
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
        processor = AutoImageProcessor.from_pretrained(folder)
    table = []
    for source in [(300, 420), (256, 320)]:
        out = processor(Image.fromarray(pattern(*source)), return_tensors="pt")
        values = out["pixel_values"]
        places = [0, 1, 255, 256, 511, 512, 1535, 1536, 1536 * 5 + 700, values.numel() - 1]
        table.append({
            "from": source,
            "grid": out["image_grid_thw"][0, 1:].tolist(),
            "sha256": sha256(values.numpy().astype("<f4").tobytes()),
            "values": [[place, float(values.flatten()[place])] for place in places],
        })
    return table


def main():
    FOLDER.mkdir(exist_ok=True)
    save_pictures()
    expected = {"decoded": decoded(), "resized": resized(), "sizes": sizes(), "pixel_values": pixel_values()}
    lines = [f' "{key}": [\n  ' + ",\n  ".join(json.dumps(row) for row in rows) + "\n ]" for key, rows in expected.items()]
    (FOLDER / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
