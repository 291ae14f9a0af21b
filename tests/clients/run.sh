#!/bin/sh
# The clients that people use, driven against a live server with the embedded model. Everything is installed into
# target/clients; arguments go to pytest (-k openai, say).
set -eu
cd "$(dirname "$0")/../.."
home=target/clients
mkdir -p "$home/node"

[ -x "$home/python/bin/python" ] || python3 -m venv "$home/python"
if ! cmp -s tests/clients/requirements.txt "$home/requirements.txt"; then
    "$home/python/bin/pip" install --quiet --requirement tests/clients/requirements.txt
    cp tests/clients/requirements.txt "$home/requirements.txt"
fi
if ! cmp -s tests/clients/package.json "$home/node/package.json"; then
    cp tests/clients/package.json "$home/node/package.json.new"
    (cd "$home/node" && mv package.json.new package.json && npm install --silent || { rm package.json; exit 1; })
fi
# Node looks for packages beside the script.
cp tests/clients/*.mjs "$home/node/"

exec "$home/python/bin/python" -m pytest -p no:cacheprovider --quiet tests/clients "$@"
