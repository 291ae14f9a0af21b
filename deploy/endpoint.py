#!/usr/bin/env python3
"""Runs sardine on a Hugging Face Inference Endpoint, as deploy/endpoint.json describes it. Needs `pip install huggingface_hub`
and a token (HF_TOKEN, or `hf auth login`).

    deploy/endpoint.py create --repository org/checkpoint --image registry/sardine:cuda     # creates, waits, smoke-tests
    deploy/endpoint.py update --image registry/sardine:cuda-2                                # the same for a new image
    deploy/endpoint.py smoke | status | delete
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

from huggingface_hub import HfApi, InferenceEndpoint, get_token

HERE = pathlib.Path(__file__).resolve().parent


def described(options: argparse.Namespace) -> dict[str, Any]:
    """endpoint.json with what the command line says instead."""
    wanted = json.loads(options.file.read_text())
    model = wanted["model"]
    wanted["name"] = options.name or wanted["name"]
    model["repository"] = options.repository or model["repository"]
    model["image"]["custom"]["url"] = options.image or model["image"]["custom"]["url"]
    model["env"] |= dict(pair.split("=", 1) for pair in options.env)
    return wanted


def compute(wanted: dict[str, Any]) -> dict[str, Any]:
    """The machine and the scaling, in the client's words."""
    compute, scaling = wanted["compute"], wanted["compute"]["scaling"]
    [(metric, threshold)] = scaling["measure"].items()
    return {
        "accelerator": compute["accelerator"],
        "instance_type": compute["instanceType"],
        "instance_size": compute["instanceSize"],
        "min_replica": scaling["minReplica"],
        "max_replica": scaling["maxReplica"],
        "scale_to_zero_timeout": scaling["scaleToZeroTimeout"],
        "scaling_metric": metric,
        "scaling_threshold": threshold,
    }


def model(wanted: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint and the container, in the client's words."""
    names = ("repository", "revision", "framework", "task", "env")
    return {name: wanted["model"][name] for name in names} | {"custom_image": wanted["model"]["image"]}


def create(api: HfApi, wanted: dict[str, Any], namespace: str | None) -> InferenceEndpoint:
    provider = wanted["provider"]
    return api.create_inference_endpoint(
        wanted["name"],
        type=wanted["type"],
        vendor=provider["vendor"],
        region=provider["region"],
        namespace=namespace,
        **compute(wanted),
        **model(wanted),
    )


def update(api: HfApi, wanted: dict[str, Any], namespace: str | None) -> InferenceEndpoint:
    return api.update_inference_endpoint(wanted["name"], namespace=namespace, **compute(wanted), **model(wanted))


def is_well(endpoint: InferenceEndpoint) -> bool:
    """Whether the endpoint answers what its users will ask."""
    environment = os.environ | {"API_KEY": get_token() or ""}
    return subprocess.run([HERE / "smoke.sh", endpoint.url], env=environment).returncode == 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["create", "update", "status", "smoke", "delete"])
    parser.add_argument("--file", type=pathlib.Path, default=HERE / "endpoint.json")
    parser.add_argument("--name")
    parser.add_argument("--namespace", help="user or organisation; default: the token's")
    parser.add_argument("--repository", help="the checkpoint on the hub")
    parser.add_argument("--image", help="where the platform pulls sardine's image from")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="a setting of the server; may be repeated")
    parser.add_argument("--timeout", type=int, default=1800, help="seconds to wait until the endpoint is ready")
    options = parser.parse_args(arguments)

    api, wanted = HfApi(), described(options)
    if options.action == "create":
        endpoint = create(api, wanted, options.namespace)
    elif options.action == "update":
        endpoint = update(api, wanted, options.namespace)
    else:
        endpoint = api.get_inference_endpoint(wanted["name"], namespace=options.namespace)
    print(f"{endpoint.name}: {endpoint.status}", flush=True)

    if options.action == "delete":
        endpoint.delete()
        print(f"{endpoint.name}: deleted")
    if options.action in ("create", "update"):
        endpoint.wait(timeout=options.timeout, refresh_every=2)
        print(f"{endpoint.name}: {endpoint.status} at {endpoint.url}", flush=True)
    if options.action in ("create", "update", "smoke"):
        return 0 if is_well(endpoint) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
