"""How long a server takes from exec to its first token, and what it does meanwhile.

    python3 deploy/cold_start.py [--binary target/release/sardine] [--runs 3] [MODEL] [-- FLAGS OF serve]

Starts `sardine serve` anew for every run, asks `/health` every few milliseconds which phase it is in, and sends a prompt of
one word as soon as it is ready. Prints the median of each span in milliseconds. The page cache is as it is found: run it
twice for a warm one.
"""
import argparse
import http.client
import json
import socket
import statistics
import subprocess
import time

SPANS = ["socket", "downloading", "loading", "warming up", "ready", "first token"]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def phase(port):
    """What the server is at: None before its socket answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        reply = connection.getresponse()
        body = reply.read()
    except OSError:
        return None
    finally:
        connection.close()
    return "ready" if reply.status == 200 else json.loads(body)["status"]["phase"]


def first_token(port):
    """Returns when the first token of an answer has come."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    ask = {"model": "any", "prompt": "Hello", "max_tokens": 1, "stream": True}
    connection.request("POST", "/v1/completions", json.dumps(ask), {"content-type": "application/json"})
    reply = connection.getresponse()
    if reply.status != 200:
        raise SystemExit(f"the first request was answered {reply.status}: {reply.read().decode()}")
    reply.readline()
    connection.close()


def run(command):
    """Milliseconds from exec to the end of each span that was seen."""
    port = free_port()
    began = time.monotonic()
    since = lambda: (time.monotonic() - began) * 1e3
    process = subprocess.Popen([*command, "--port", str(port), "--log", "warn"])
    ended, last = {}, None
    try:
        while last != "ready":
            if process.poll() is not None:
                raise SystemExit(f"the server ended with {process.returncode} before it was ready")
            now = phase(port)
            if now != last:
                ended["socket" if last is None else last] = since()
                last = now
            time.sleep(0.002)
        ended["ready"] = since()
        first_token(port)
        ended["first token"] = since()
    finally:
        process.terminate()
        process.wait()
    return ended


def spans(ended):
    """How long each took: they follow one another."""
    seen = [(span, ended[span]) for span in SPANS if span in ended and span != "ready"]
    took = {span: at - before for (span, at), before in zip(seen, [0, *(at for _, at in seen)])}
    return {**took, "exec to ready": ended["ready"], "exec to first token": ended["first token"]}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model", nargs="?", help="a folder or a hub id; without it, what the server takes by itself")
    ap.add_argument("flags", nargs="*", help="after --: more flags of serve")
    ap.add_argument("--binary", default="target/release/sardine")
    ap.add_argument("--runs", type=int, default=3)
    a = ap.parse_args()
    command = [a.binary, "serve", *(["--model", a.model] if a.model else []), *a.flags]
    runs = [spans(run(command)) for _ in range(a.runs)]
    for span in {span: None for r in runs for span in r}:
        times = [r.get(span, 0.0) for r in runs]
        print(f"{span:<20}{statistics.median(times):9.0f} ms   of {', '.join(f'{t:.0f}' for t in times)}")


if __name__ == "__main__":
    main()
