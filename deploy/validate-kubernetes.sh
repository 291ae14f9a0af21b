#!/bin/bash
# Renders the Kubernetes overlays and checks them against their schemas: `deploy/validate-kubernetes.sh [folder of CRDs]`. Needs kubectl
# or kustomize, and Python; what it installs goes to target/kubernetes. Other arguments of validate.py may follow the folder.
set -euo pipefail
cd "$(dirname "$0")/.."
home=target/kubernetes
mkdir -p "$home"

[ -x "$home/python/bin/python" ] || python3 -m venv "$home/python"
"$home/python/bin/pip" install --quiet 'kubernetes-validate>=1.35' 'cloudcoil-models-keda>=2.16' 'cloudcoil-models-prometheus-operator>=0.80'

for overlay in cpu gpu gateway; do
    if command -v kustomize >/dev/null; then
        kustomize build "deploy/kubernetes/$overlay" >"$home/$overlay.yaml"
    else
        kubectl kustomize "deploy/kubernetes/$overlay" >"$home/$overlay.yaml"
    fi
done
crds=()
if [ $# -gt 0 ]; then crds=(--crds "$1") && shift; fi
"$home/python/bin/python" deploy/kubernetes/validate.py "${crds[@]}" "$@" "$home"/{cpu,gpu,gateway}.yaml
