"""schemathesis on the served document: no 5xx, no undocumented status or body, every route."""

import json
import subprocess
import sys
import urllib.request

import pytest

from conftest import ROOT, serving

# Other names of routes that are tried under their first: their fields are not all gone through once more.
ALIASES = ["/predict", "/invocations", "/predict/v1/chat/completions", "/ping", "/health", "/api-doc/openapi.json"]

COMMAND = [
    *[sys.executable, "-m", "schemathesis.cli", "run", "--seed", "1", "--no-shrink", "--continue-on-failure"],
    *["--request-timeout", "120", "--max-redirects", "0", "--warnings", "off", "--suppress-health-check", "all"],
    # A schema cannot say that a text is a picture, nor that a length fits in the context.
    *["--exclude-checks", "positive_data_acceptance"],
]


@pytest.fixture(scope="module")
def url():
    # A short context, so that whatever is asked is answered soon.
    with serving("--max-model-len", "256", "--allow-remote-images", "false") as url:
        yield url


def run(url, report, *flags):
    """What each operation answered: its statuses, by "METHOD path"."""
    report = ROOT / "target" / "clients" / report
    # From a file: the route that schemathesis itself reads the document from is one that it leaves out.
    document = report.with_suffix(".openapi.json")
    document.write_bytes(urllib.request.urlopen(f"{url}/openapi.json").read())
    command = [*COMMAND, *flags, "--url", url, "--report", "ndjson", "--report-ndjson-path", report, document]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    answers = {}
    for line in report.read_text().splitlines():
        recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder")
        if recorder:
            responses = [sent["response"] for sent in recorder.get("interactions", {}).values()]  # none in a phase that is skipped
            statuses = {response["status_code"] for response in responses if response}
            answers.setdefault(recorder["label"], set()).update(statuses)
    return answers


def operations(url):
    paths = json.load(urllib.request.urlopen(f"{url}/openapi.json"))["paths"]
    return {f"{method.upper()} {path}" for path, item in paths.items() for method in item}


def test_every_route_answers_examples_and_random_requests_as_documented(url):
    answers = run(url, "random.ndjson", "--phases", "examples,fuzzing", "--max-examples", "12")
    assert answers.keys() == operations(url)
    for operation, statuses in answers.items():
        assert any(status < 400 for status in statuses), f"{operation} answered {statuses} only"


def test_every_field_at_its_limits_is_answered_as_documented(url):
    aliases = [flag for path in ALIASES for flag in ("--exclude-path", path)]
    run(url, "limits.ndjson", "--phases", "coverage", *aliases)
