"""Makes tests/media/fixtures/video: small clips in several codecs, and what Transformers makes of them.

Run with torch 2.13, torchvision 0.28, transformers 5.23, torchcodec 0.17 (Transformers' own decoder for video files),
qwen-vl-utils 0.0.14 and ffmpeg 5.1 on PATH:  python tests/media/make_video_fixtures.py
"""

import hashlib
import json
import pathlib
import random
import subprocess
import tempfile

import numpy as np
import torch
from PIL import Image, ImageSequence
from qwen_vl_utils.vision_process import calculate_video_frame_range
from transformers import AutoVideoProcessor
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize
from transformers.video_utils import VideoMetadata

FOLDER = pathlib.Path(__file__).parent / "fixtures" / "video"
PROCESSOR = {
    "size": {"longest_edge": 25165824, "shortest_edge": 4096},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "Qwen3VLProcessor",
    "video_processor_type": "Qwen3VLVideoProcessor",
}


def processor():
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "video_preprocessor_config.json").write_text(json.dumps(PROCESSOR))
        return AutoVideoProcessor.from_pretrained(folder)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def timestamps(indices, fps):
    times = Qwen3VLProcessor._calculate_timestamps(None, list(indices), fps, 2)
    return [f"<{time:.1f} seconds>" for time in times]


# ---------------------------------------------------------------------------------------------------------------- clips
def ffmpeg(*arguments):
    subprocess.run(["ffmpeg", "-nostdin", "-loglevel", "error", "-y", *map(str, arguments)], check=True)


def source(width, height, rate=12, seconds=2):
    """A moving picture of odd sizes too, which the source itself does not make."""
    return "-f", "lavfi", "-i", f"testsrc2=size=128x128:rate={rate}:duration={seconds},crop={width}:{height}:8:8:exact=1"


H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-bf", 2, "-crf", 34)
UNEVEN = ("-vf", "select='not(between(n,10,30))*(mod(n,3)+gt(n,50))'", "-fps_mode", "vfr")


def save_clips():
    ffmpeg(*source(96, 64), *H264, FOLDER / "h264.mp4")
    ffmpeg(*source(70, 102), *H264, FOLDER / "h264.mov")
    ffmpeg(*source(96, 64), "-c:v", "libx265", "-x265-params", "log-level=none", "-pix_fmt", "yuv420p", "-crf", 34, FOLDER / "h265.mp4")
    ffmpeg(*source(96, 64), "-c:v", "libvpx-vp9", "-b:v", "30k", FOLDER / "vp9.webm")
    ffmpeg(*source(97, 65), "-c:v", "libvpx-vp9", "-b:v", "30k", FOLDER / "vp9-odd-sizes.webm")
    ffmpeg(*source(96, 64), "-c:v", "libaom-av1", "-cpu-used", 8, "-b:v", "30k", FOLDER / "av1.mp4")
    ffmpeg(*source(97, 65), "-c:v", "libx264", "-pix_fmt", "yuv444p", "-crf", 34, FOLDER / "h264-odd-sizes.mp4")
    ffmpeg(*source(96, 64, 25, 3), *UNEVEN, *H264, FOLDER / "variable-rate.mp4")
    ffmpeg(*source(96, 64, 25, 3), *UNEVEN, "-c:v", "libvpx-vp9", "-b:v", "30k", FOLDER / "variable-rate.webm")
    ffmpeg(*source(96, 64, "30000/1001", 3), *H264, FOLDER / "ntsc.mp4")
    ffmpeg("-i", FOLDER / "h264.mp4", "-c", "copy", "-metadata:s:v", "rotate=90", FOLDER / "turned.mp4")
    ffmpeg("-ss", 0.5, "-i", FOLDER / "h264.mp4", "-c", "copy", FOLDER / "cut-by-edit-list.mp4")
    ffmpeg(*source(48, 32, 5, 1), "-f", "lavfi", "-i", "sine=duration=1", *H264, "-c:a", "aac", "-b:a", "8k", FOLDER / "with-sound.mp4")
    ffmpeg(*source(96, 64, 12, 1), "-c:v", "mpeg4", "-q:v", 20, FOLDER / "mpeg4.avi")
    ffmpeg(*source(48, 32, 5, 1), FOLDER / "animated.gif")
    ffmpeg(*source(48, 32, 5, 1), "-f", "apng", FOLDER / "animated.png")
    with Image.open(FOLDER / "animated.png") as animated:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(animated)]
    # Key frames only: where frames are blended, the Rust decoder's values may lie one below libwebp's.
    frames[0].save(FOLDER / "animated.webp", save_all=True, append_images=frames[1:], duration=200, lossless=True, kmin=0, kmax=1)
    # Those of which parts are read: with a key frame every two seconds, and one that only begins to refresh the picture there.
    for name, codec in (
        ("long.mp4", ("-c:v", "libx264", "-bf", 2, "-g", 10, "-crf", 40)),
        ("long-refreshed.mp4", ("-c:v", "libx264", "-x264-params", "intra-refresh=1:keyint=10", "-crf", 40)),
        ("long.webm", ("-c:v", "libvpx-vp9", "-g", 10, "-b:v", "10k", "-cpu-used", 8)),
    ):
        ffmpeg(*source(48, 32, 5, 24), *codec, "-pix_fmt", "yuv420p", FOLDER / name)
    whole = (FOLDER / "vp9.webm").read_bytes()
    (FOLDER / "truncated.webm").write_bytes(whole[: len(whole) // 2])
    # Those that cannot be read.
    ffmpeg(*source(96, 64, 25, 0.04), *H264, FOLDER / "one-frame.mp4")
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", "-b:a", "8k", FOLDER / "sound-only.mp4")
    whole = (FOLDER / "h264.mp4").read_bytes()
    (FOLDER / "truncated-before-its-index.mp4").write_bytes(whole[: len(whole) // 2])
    with tempfile.TemporaryDirectory() as folder:
        fast = pathlib.Path(folder) / "fast.mp4"
        ffmpeg("-i", FOLDER / "h264.mp4", "-c", "copy", "-movflags", "+faststart", fast)
        (FOLDER / "truncated.mp4").write_bytes(fast.read_bytes()[:4500])


UNREADABLE = {"one-frame.mp4", "sound-only.mp4", "truncated-before-its-index.mp4", "truncated.mp4"}


def files():
    """Transformers' own path from a file to what the model reads, decoded by torchcodec."""
    table, read = [], processor()
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in (".json", ".webp") or path.stem.startswith("long"):
            continue
        for options in ({}, {"fps": 5}, {"num_frames": 7, "fps": None}):
            try:
                out = read(str(path), return_metadata=True, return_tensors="pt", **options)
            except Exception as error:
                assert path.name in UNREADABLE, (path.name, error)
                continue
            table.append(row(path, options, out))
    path = FOLDER / "animated.webp"  # which no ffmpeg before 8 reads: its frames are PIL's
    with Image.open(path) as animated:
        frames = [(np.asarray(frame.convert("RGB")), frame.info["duration"]) for frame in ImageSequence.Iterator(animated)]
    fps = 1000 * len(frames) / sum(duration for _, duration in frames)
    metadata = [VideoMetadata(total_num_frames=len(frames), fps=fps)]
    clip = np.stack([frame for frame, _ in frames])
    table.append(row(path, {}, read([clip], video_metadata=metadata, return_metadata=True, return_tensors="pt")))
    return table


def row(path, options, out):
    metadata, values = out["video_metadata"][0], out["pixel_values_videos"]
    return {
        "file": path.name, "options": {key: value for key, value in options.items() if value}, "num_frames": metadata.total_num_frames, "fps": metadata.fps,
        "indices": [int(index) for index in metadata.frames_indices],
        "times": timestamps(metadata.frames_indices.tolist(), metadata.fps),
        "grid": out["video_grid_thw"][0].tolist(), "sha256": sha256(values.numpy().astype("<f4").tobytes()),
    }


# --------------------------------------------------------------------------------------------------------------- tables
def sampling():
    read, numbers, table = processor(), random.Random(3), []
    cases = [(total, fps, {}) for total in (1, 2, 3, 4, 5, 7, 8, 24, 25, 47, 48, 49, 100, 9001, 30000) for fps in (24.0, 29.97, 12.5, 1.0, None)]
    cases += [(numbers.randint(1, 20000), numbers.choice([1 / 3, 5.0, 23.976023976, 25.0, 30.0, 59.94, 120.0]), {}) for _ in range(60)]
    cases += [(numbers.randint(1, 3000), 25.0, {"fps": numbers.choice([0.1, 0.5, 1, 3.3, 10, 60])}) for _ in range(40)]
    cases += [(numbers.randint(1, 3000), 25.0, {"num_frames": numbers.randint(2, 900)}) for _ in range(40)]
    for total, fps, options in cases:
        metadata = VideoMetadata(total_num_frames=total, fps=fps)
        indices = read.sample_frames(metadata, **options).tolist()
        table.append({"total": total, "fps": fps, "options": options, "indices": sha256(json.dumps(indices, separators=(",", ":")).encode()),
                      "first": indices[:6], "times": timestamps(list(indices), fps or 24)[:200:20]})
    return table


def parts():
    """Which frames of a video are between two moments: qwen-vl-utils', as Transformers has no such option."""
    numbers, table = random.Random(6), []
    cases = [(50, 25.0, 0.5, 1.0), (50, 25.0, None, 1.0), (50, 25.0, 1.0, None), (50, 25.0, 0.0, 9.0), (50, 25.0, 2.0, 3.0), (50, 25.0, 1.0, 1.02), (50, 25.0, 1.0, 1.04)]
    for _ in range(80):
        total, fps = numbers.randint(2, 9000), numbers.choice([5.0, 12.5, 23.976023976, 24.0, 29.97002997, 59.94])
        moments = [numbers.choice([None, round(numbers.uniform(0, 1.2 * total / fps), numbers.choice([0, 1, 2, 9]))]) for _ in range(2)]
        cases.append((total, fps, *moments))
    for total, fps, start, end in cases:
        given = {key: value for key, value in (("video_start", start), ("video_end", end)) if value is not None}
        try:
            first, last, _ = calculate_video_frame_range(given, total, fps)
        except ValueError:
            first = last = None
        table.append({"total": total, "fps": fps, "start": start, "end": end, "first": first, "last": last})
    return table


def sizes():
    numbers, table = random.Random(4), []
    cases = [(2, 240, 320), (4, 1, 1), (4, 16, 16), (5, 80, 112), (8, 20, 2000), (8, 31, 6300), (768, 1080, 1920), (3, 31, 33), (7, 2160, 3840), (6, 6300, 31)]
    cases += [(numbers.randint(2, 768), numbers.randint(20, 2200), numbers.randint(20, 2200)) for _ in range(150)]
    bounds = [(4096, 25165824), (131072, 786432), (36864, 98304)]
    for case, (low, high) in ((case, bound) for case in cases for bound in bounds):
        t, h, w = case
        try:
            to = smart_resize(num_frames=t, height=h, width=w, temporal_factor=2, factor=32, min_pixels=low, max_pixels=high)
        except ValueError:
            to = None
        table.append({"from": case, "area": [low, high], "to": to})
    return table


def capped():
    """Tokens of clips whose frames are bounded by themselves too."""
    read, numbers, table = processor(), random.Random(5), []
    for _ in range(60):
        t, h, w = numbers.randint(2, 768), numbers.randint(100, 2200), numbers.randint(100, 2200)
        for cap in (False, True):
            patches = read.get_num_of_video_patches(t, h, w, {"cap_pixels_per_frame": cap})
            table.append({"from": [t, h, w], "cap": cap, "patches": int(patches)})
    return table


def pattern(frame, height, width):
    """The same busy picture as `moving` in video.rs, uint8 [height, width, 3]."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    x = x + 3 * frame
    return ((x * 7 + y * 13 + c * 29 + ((x * y) >> 3) * 5 + (x ^ y) * 31) & 255).astype(np.uint8)


def frames():
    """Lists of frames that the client sampled: all are shown."""
    read, table = processor(), []
    cases = [(2, 64, 96, {}), (5, 70, 101, {}), (4, 30, 40, {}), (6, 300, 420, {}), (3, 200, 120, {"longest_edge": 3 * 9000, "shortest_edge": 4096}),
             (4, 64, 64, {"longest_edge": 25165824, "shortest_edge": 4 * 40000})]
    for t, h, w, size in cases:
        clip = np.stack([pattern(frame, h, w) for frame in range(t)])
        options = {"size": size} if size else {}
        out = read([clip], do_sample_frames=False, return_tensors="pt", **options)
        values = out["pixel_values_videos"]
        table.append({"from": [t, h, w], "size": size, "grid": out["video_grid_thw"][0].tolist(), "sha256": sha256(values.numpy().astype("<f4").tobytes())})
    return table


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    save_clips()
    tables = {"files": files(), "sampling": sampling(), "parts": parts(), "sizes": sizes(), "capped": capped(), "frames": frames()}
    lines = [f' "{key}": [\n  ' + ",\n  ".join(json.dumps(row) for row in rows) + "\n ]" for key, rows in tables.items()]
    (FOLDER / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
