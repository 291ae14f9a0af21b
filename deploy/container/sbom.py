"""Writes the image's bill of materials (CycloneDX 1.5) to standard output: the crates that are compiled into the binary or
run to build it, from `cargo metadata`, and the wheels that libtorch comes from, from their .dist-info folders.
Debian's packages are not in it: scanners read those from the image's own package database.

    python3 sbom.py metadata.json .libtorch
"""

import email.parser
import json
import pathlib
import sys
from typing import Any

Component = dict[str, Any]


def component(name: str, version: str, purl: str, licence: str | None, scope: str) -> Component:
    found: Component = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, "scope": scope}
    if licence and (" " not in licence or " OR " in licence or " AND " in licence or " WITH " in licence):
        found["licenses"] = [{"expression": licence}]
    elif licence:
        found["licenses"] = [{"license": {"name": licence}}]
    return found


def reached(metadata: dict[str, Any], root: str, kinds: set[str | None]) -> set[str]:
    """The packages that are used from `root` on, over dependencies of these kinds."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    found, waiting = {root}, [root]
    while waiting:
        for dependency in nodes[waiting.pop()]["deps"]:
            used = any(kind["kind"] in kinds for kind in dependency["dep_kinds"])
            if used and dependency["pkg"] not in found:
                found.add(dependency["pkg"])
                waiting.append(dependency["pkg"])
    return found


def crates(metadata: dict[str, Any]) -> tuple[Component, list[Component]]:
    """The program and its crates. Tests' are left out; what only runs while building is `excluded`."""
    root = metadata["resolve"]["root"]
    packages = {package["id"]: package for package in metadata["packages"]}
    linked = reached(metadata, root, {None})

    def of(identity: str) -> Component:
        package = packages[identity]
        purl = f"pkg:cargo/{package['name']}@{package['version']}"
        is_macro = any("proc-macro" in target["kind"] for target in package["targets"])
        scope = "required" if identity in linked and not is_macro else "excluded"
        # Cargo's old "MIT/Apache-2.0" means OR.
        licence = (package["license"] or "").replace("/", " OR ")
        return component(package["name"], package["version"], purl, licence, scope)

    everything = sorted(reached(metadata, root, {None, "build"}) - {root})
    return {**of(root), "type": "application"}, [of(identity) for identity in everything]


def wheels(folder: pathlib.Path) -> list[Component]:
    found = []
    for path in sorted(folder.glob("*.dist-info/METADATA")):
        fields = email.parser.Parser().parsestr(path.read_text())
        name, version = fields["Name"], fields["Version"]
        licence = fields["License-Expression"] or fields["License"]
        found.append(component(name, version, f"pkg:pypi/{name}@{version}", licence, "required"))
    return found


def main() -> None:
    metadata = json.loads(pathlib.Path(sys.argv[1]).read_text())
    program, libraries = crates(metadata)
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": program},
        "components": libraries + wheels(pathlib.Path(sys.argv[2])),
    }
    json.dump(bill, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
