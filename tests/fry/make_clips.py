"""Makes tests/fry/clips: short films of a moving shape, as fry knows them, in MP4 and WebM: python tests/fry/make_clips.py

Needs Pillow, numpy and ffmpeg on PATH. The film `red-star-right.mp4` shows a red star that moves to the right.
"""

import pathlib
import random
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "fry"))

import pictures as P

CODECS = {"mp4": ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "18"), "webm": ("-c:v", "libvpx-vp9", "-crf", "20", "-b:v", "0")}
FRAMES, RATE = 6, 2


def main():
    folder = HERE / "clips"
    folder.mkdir(exist_ok=True)
    wanted = {"right": "mp4", "left": "webm", "up": "mp4", "down": "mp4"}
    for seed in range(1000):
        frames, way, shape, colour = P.clip(random.Random(seed), FRAMES, 128, 128)
        suffix = wanted.pop(way, None)
        if suffix is None:
            continue
        pixels = b"".join(frame.tobytes() for frame in frames)
        subprocess.run(["ffmpeg", "-nostdin", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "128x128", "-r", str(RATE),
                        "-i", "pipe:0", *CODECS[suffix], folder / f"{colour}-{shape}-{way}.{suffix}"], input=pixels, check=True)
        if not wanted:
            return


if __name__ == "__main__":
    main()
