"""deploy/endpoint.py and huggingface_hub's own client, against a fake of the endpoint API on this machine. What the fake
starts is the real server, as the image would: with the endpoint's environment, and behind a proxy that wants the token.

    pip install pytest huggingface_hub && make build && pytest deploy/test_endpoint.py        (SARDINE: another binary)
"""

import base64
import http.client
import http.server
import json
import os
import pathlib
import socket
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator

import huggingface_hub
import pytest

import endpoint as script

ROOT = pathlib.Path(__file__).resolve().parents[1]
SARDINE = pathlib.Path(os.environ.get("SARDINE", ROOT / "target/release/sardine"))
TOKEN = "hf_a_token_of_this_test"
TIME = "2026-01-01T00:00:00.000Z"


class Platform(http.server.ThreadingHTTPServer):
    """The API that creates endpoints, and the proxy before the one that it runs."""

    daemon_threads = True

    def __init__(self, log: pathlib.Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.log = log
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.payload: dict = {}
        self.calls: list[str] = []
        self.health: list[int] = []
        self.exits: list[int] = []
        self.process: subprocess.Popen | None = None
        self.port = 0

    def run(self) -> None:
        """What a host does with the image: ENTRYPOINT and ENV of the Dockerfile, and the endpoint's environment over them."""
        self.stop()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        # Every container has a port 80 of its own; here it is a free one.
        image = {"SARDINE_HOST": "127.0.0.1", "PORT": str(self.port), "SARDINE_THREADS": "1"}
        keep = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        environment = keep | image | self.payload["model"]["env"]
        with open(self.log, "a") as out:
            self.process = subprocess.Popen([SARDINE, "serve"], env=environment, stdout=out, stderr=subprocess.STDOUT)

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.exits.append(self.process.wait(timeout=60))
            self.process = None

    def status(self) -> dict:
        """The endpoint as the API shows it: `running` says that the container has started, not that it is ready."""
        model = self.payload["model"]
        state = {"state": "running" if self.calls.count("GET") > 1 else "initializing", "createdAt": TIME, "updatedAt": TIME}
        if state["state"] == "running":
            state["url"] = self.url
        return self.payload | {"status": state, "healthRoute": model["image"]["custom"]["healthRoute"]}


class Handler(http.server.BaseHTTPRequestHandler):
    server: Platform
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def api(self, body: bytes) -> None:
        platform = self.server
        platform.calls.append(self.command)
        if self.command == "POST":
            platform.payload = json.loads(body)
            platform.run()
        elif self.command == "PUT":
            for part, change in json.loads(body).items():
                platform.payload[part] |= change
            platform.run()
        elif self.command == "DELETE":
            platform.stop()
        self.answer(200, json.dumps(platform.status()).encode())

    def proxy(self, body: bytes) -> None:
        platform = self.server
        backend = http.client.HTTPConnection("127.0.0.1", platform.port, timeout=60)
        try:
            backend.request(self.command, self.path, body, dict(self.headers.items()))
            reply = backend.getresponse()
            status, kind, answer = reply.status, reply.headers["content-type"], reply.read()
        except ConnectionError:
            status, kind, answer = 503, "text/plain", b"the replica is starting"
        if self.path == "/health":
            platform.health.append(status)
        self.answer(status, answer, kind)

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, b'{"error": "no token"}')
        elif urllib.parse.urlparse(self.path).path.startswith("/v2/"):
            self.api(body)
        else:
            self.proxy(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def platform(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    platform = Platform(tmp_path / "server.log")
    monkeypatch.setattr(huggingface_hub.constants, "INFERENCE_ENDPOINTS_ENDPOINT", f"{platform.url}/v2")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    threading.Thread(target=platform.serve_forever, daemon=True).start()
    yield platform
    platform.stop()
    platform.shutdown()


ARGUMENTS = ["--namespace", "me", "--env", "SARDINE_DEVICE=cpu"]


def test_the_client_sends_what_endpoint_json_says(platform: Platform) -> None:
    assert script.main(["create", *ARGUMENTS]) == 0
    wanted = json.loads((ROOT / "deploy/endpoint.json").read_text())
    wanted["model"]["env"]["SARDINE_DEVICE"] = "cpu"
    assert platform.payload == wanted


def test_an_endpoint_lives_from_create_to_delete(platform: Platform) -> None:
    assert script.main(["create", *ARGUMENTS]) == 0
    assert platform.health[-1] == 200 and platform.calls[0] == "POST"

    endpoint = huggingface_hub.get_inference_endpoint("sardine", namespace="me")
    assert endpoint.wait(timeout=60).status == "running"

    picture = base64.b64encode((ROOT / "fry/samples/describe-one.png").read_bytes()).decode()
    parts = [{"type": "image", "image": picture}, {"type": "text", "text": "Describe this image."}]
    request = {"inputs": [{"role": "user", "content": parts}], "parameters": {"max_new_tokens": 64}}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    reply = huggingface_hub.get_session().post(endpoint.url, json=request, headers=headers)
    assert (reply.status_code, reply.json()) == (200, [{"generated_text": "A small blue star at the bottom left."}])

    chat = endpoint.client.chat_completion([{"role": "user", "content": "What is 17 + 25?"}], max_tokens=64)
    assert "42" in chat.choices[0].message.content

    assert script.main(["update", *ARGUMENTS, "--env", "SARDINE_SERVED_MODEL_NAME=second"]) == 0
    assert endpoint.client.chat_completion([{"role": "user", "content": "Hi"}], max_tokens=8).model == "second"

    assert script.main(["delete", *ARGUMENTS]) == 0
    assert platform.exits == [0, 0], platform.log.read_text()


def test_an_endpoint_that_never_becomes_ready_is_not_called_ready(platform: Platform) -> None:
    """The API says `running` as soon as the container has started; only the health route says that it can answer."""
    with pytest.raises(huggingface_hub.errors.InferenceEndpointTimeoutError):
        script.main(["create", *ARGUMENTS, "--env", "SARDINE_MODEL=/nowhere", "--timeout", "4"])
    assert set(platform.health) == {503}
