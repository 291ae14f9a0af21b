"""Checks rendered manifests (files of YAML documents) against their schemas, strictly: a field that the schema does not
know is an error. Then what schemas cannot say: that names, labels, ports and times agree with each other.

    validate.py [--crds FOLDER] rendered.yaml...

Kubernetes' own kinds: PyPI's kubernetes-validate. KEDA's and the Prometheus operator's: the models of PyPI's cloudcoil.
Any kind whose CustomResourceDefinition is in FOLDER: that. A kind without a schema is reported, and no error.
"""

import argparse
import copy
import pathlib
import re
import sys
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor

Document = dict[str, Any]
Kind = tuple[str, str]


def strict(schema: Any) -> Any:
    """The schema, with every field refused that it does not name."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(part) for key, part in schema.items()}
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and not is_open:
        schema["additionalProperties"] = False
    if schema.pop("x-kubernetes-int-or-string", False):
        schema.pop("type", None)
    return schema


def packaged() -> dict[Kind, Document]:
    return {
        ("keda.sh/v1alpha1", "ScaledObject"): strict(ScaledObject.model_json_schema()),
        ("monitoring.coreos.com/v1", "ServiceMonitor"): strict(ServiceMonitor.model_json_schema()),
    }


def definitions(folder: pathlib.Path) -> dict[Kind, Document]:
    """The schemas of the CustomResourceDefinitions in a folder."""
    found = {}
    for path in sorted(folder.rglob("*.yaml")):
        for definition in yaml.safe_load_all(path.read_text()):
            if not definition or definition.get("kind") != "CustomResourceDefinition":
                continue
            spec = definition["spec"]
            for version in spec["versions"]:
                schema = copy.deepcopy(version["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"type": "object", "additionalProperties": True}
                found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = strict(schema)
    return found


def kind_of(document: Document) -> Kind:
    return document["apiVersion"], document["kind"]


def is_custom(document: Document) -> bool:
    group = document["apiVersion"].rpartition("/")[0]
    return "." in group and not group.endswith(".k8s.io") or group in ("gateway.networking.k8s.io", "inference.networking.k8s.io")


def schema_errors(document: Document, schemas: dict[Kind, Document], version: str) -> list[str]:
    if not is_custom(document):
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            return [f"{'.'.join(map(str, error.path))}: {error.message}"]
        return []
    validator = jsonschema.Draft202012Validator(schemas[kind_of(document)])
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(document)]


def disagreements(documents: list[Document]) -> list[str]:
    """What does not fit together in the manifests of one overlay."""
    by_kind = {document["kind"]: document for document in documents}
    deployment, service = by_kind["Deployment"], by_kind["Service"]
    pod = deployment["spec"]["template"]
    [container] = pod["spec"]["containers"]
    labels = pod["metadata"]["labels"]
    environment = {variable["name"]: variable.get("value") for variable in container["env"]}
    port = int(environment["PORT"])
    pre_stop = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    needed = pre_stop + int(environment["SARDINE_SHUTDOWN_GRACE_S"]) + 2
    claims = {volume["persistentVolumeClaim"]["claimName"] for volume in pod["spec"]["volumes"] if "persistentVolumeClaim" in volume}
    ports = {entry["name"]: entry["containerPort"] for entry in container["ports"]}
    scaled = by_kind["ScaledObject"]["spec"]
    checks = {
        "the Service selects the pods": service["spec"]["selector"].items() <= labels.items(),
        "the Service's port is the container's": service["spec"]["ports"][0]["targetPort"] in ports,
        "the container listens where its port says": list(ports.values()) == [port],
        "no Service variables reach the server": pod["spec"]["enableServiceLinks"] is False,
        "the budget selects the pods": by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"].items() <= labels.items(),
        "the claim is the mounted one": claims == {by_kind["PersistentVolumeClaim"]["metadata"]["name"]},
        "the monitor selects the Service": by_kind["ServiceMonitor"]["spec"]["selector"]["matchLabels"].items()
        <= service["metadata"]["labels"].items(),
        "the monitor's port is the Service's": by_kind["ServiceMonitor"]["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"],
        "KEDA scales the Deployment": scaled["scaleTargetRef"]["name"] == deployment["metadata"]["name"],
        "KEDA alone sets the replicas": "replicas" not in deployment["spec"],
        "KEDA's query names the namespace and the Service": set(re.findall(r'(?:namespace|service)="([^"]+)"', scaled["triggers"][0]["metadata"]["query"]))
        == {service["metadata"]["namespace"], service["metadata"]["name"]},
        "a pod is given time to finish its answers": pod["spec"]["terminationGracePeriodSeconds"] > needed,
    }
    if pool := by_kind.get("InferencePool"):
        checks["the pool selects the pods"] = pool["spec"]["selector"]["matchLabels"].items() <= labels.items()
        checks["the pool's port is the container's"] = [target["number"] for target in pool["spec"]["targetPorts"]] == [port]
        backend = by_kind["HTTPRoute"]["spec"]["rules"][0]["backendRefs"][0]
        checks["the route leads to the pool"] = (backend["kind"], backend["name"]) == ("InferencePool", pool["metadata"]["name"])
    return [f"not so: {check}" for check, holds in checks.items() if not holds]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crds", type=pathlib.Path)
    parser.add_argument("--version", default=kubernetes_validate.latest_version(), help="of Kubernetes")
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    options = parser.parse_args()
    schemas = packaged() | (definitions(options.crds) if options.crds else {})
    failed = False
    for path in options.files:
        documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
        for document in documents:
            if is_custom(document) and kind_of(document) not in schemas:
                print(f"?     {path.stem}: {document['kind']}: no schema for {document['apiVersion']}; give its definition with --crds")
                continue
            errors = schema_errors(document, schemas, options.version)
            print(f"{'FAIL' if errors else 'ok  '}  {path.stem}: {document['kind']}", *errors, sep="\n        " if errors else "")
            failed |= bool(errors)
        errors = disagreements(documents)
        print(f"{'FAIL' if errors else 'ok  '}  {path.stem}: fits together", *errors, sep="\n        " if errors else "")
        failed |= bool(errors)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
