"""The clients of the JavaScript world, in clients.mjs."""

import os
import subprocess

from conftest import ROOT, SAMPLES


def test_the_javascript_clients_get_what_they_expect(url):
    node = ROOT / "target" / "clients" / "node"
    environment = {**os.environ, "SARDINE_URL": url, "SAMPLES": str(SAMPLES)}
    ran = subprocess.run(["node", "--test", "clients.mjs"], cwd=node, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
