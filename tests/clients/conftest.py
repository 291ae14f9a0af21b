"""Servers to drive, and what fry is known to answer."""

import base64
import contextlib
import http.client
import json
import pathlib
import re
import subprocess
import time
import urllib.request
from types import SimpleNamespace

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "fry" / "samples"


@contextlib.contextmanager
def serving(*flags):
    """The address of a server on a free port, which ends with the block."""
    log = ROOT / "target" / "clients" / "server.log"
    command = [ROOT / "target" / "release" / "sardine", "serve", "--port", "0", *flags]
    with open(log, "w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield address(process, log)
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0, log.read_text()


def address(process, log):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        text = log.read_text()
        found = re.search(r"listening address=(\S+)", text)
        if found and "ready" in text:
            return f"http://{found.group(1)}"
        time.sleep(0.1)
    raise AssertionError(f"the server does not start:\n{log.read_text()}")


@contextlib.contextmanager
def busy(url):
    """Takes the one slot and the one place in the queue of a server, until the block is left."""
    body = {"inputs": "Hi", "stream": True, "parameters": {"max_new_tokens": 3000, "min_new_tokens": 3000}}
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with contextlib.ExitStack() as stack:
        stack.enter_context(urllib.request.urlopen(request))
        waiting = http.client.HTTPConnection(url.removeprefix("http://"))
        stack.callback(waiting.close)
        waiting.request("POST", "/", json.dumps(body), {"content-type": "application/json"})
        deadline = time.monotonic() + 30
        while b"inf_queue_size 1" not in urllib.request.urlopen(f"{url}/metrics").read():
            assert time.monotonic() < deadline, "nobody waits"
            time.sleep(0.02)
        yield


@pytest.fixture(scope="session")
def url():
    with serving() as url:
        yield url


def picture(name):
    """A picture of fry's samples: its path and its `data:` URL."""
    path = SAMPLES / name
    kind = "jpeg" if path.suffix == ".jpg" else "png"
    data = base64.b64encode(path.read_bytes()).decode()
    return SimpleNamespace(path=str(path), bytes=path.read_bytes(), base64=data, url=f"data:image/{kind};base64,{data}")


def sample(name):
    """A request of fry's samples with the answer that fry gives to it."""
    samples = json.loads((SAMPLES / "samples.json").read_text())
    return next(SimpleNamespace(**sample) for sample in samples if sample["name"] == name)


def about(picture, question):
    """A conversation about a picture, in OpenAI's form."""
    parts = [{"type": "image_url", "image_url": {"url": picture.url}}, {"type": "text", "text": question}]
    return [{"role": "user", "content": parts}]


SUM = [{"role": "user", "content": "What is 12 + 30?"}]
# The same as the model's own prompt, for routes without a chat template.
SUM_PROMPT = "<|im_start|>user\nWhat is 12 + 30?<|im_end|>\n<|im_start|>assistant\n"
NO_THOUGHT = "<think>\n\n</think>\n\n"
