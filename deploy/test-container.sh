#!/bin/bash
# Builds the container and uses it as its users will: `deploy/test-container.sh [cpu] [cuda]` (cpu where nothing is said).
# It starts a Docker engine of its own where none answers (as root; its data in SCRATCH), and ends only that one. Images stay
# with KEEP=1. Where the base images cannot be pulled, ../shared/docker-standin makes stand-ins, if it is there.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- cpu
scratch=${SCRATCH:-$(mktemp -d)}
mkdir -p "$scratch"
# Debian's own client speaks BuildKit without a plugin.
docker=$([ -x /usr/bin/docker ] && echo /usr/bin/docker || echo docker)
export DOCKER_BUILDKIT=1 COMPOSE_DOCKER_CLI_BUILD=1
run_name=sardine-test-$$
engine=

say() { echo "$(date +%T)  $*"; }
fail() { say "FAIL  $*"; exit 1; }

clean_up() {
    "$docker" ps -aq --filter "label=$run_name" | xargs -r "$docker" rm -fv >/dev/null || true
    "$docker" ps -aq --filter "label=com.docker.compose.project=$run_name" | xargs -r "$docker" rm -fv >/dev/null || true
    if [ -z "${KEEP:-}" ]; then "$docker" image rm -f sardine:cpu sardine:cuda >/dev/null 2>&1 || true; fi
    if [ -n "$engine" ]; then kill "$engine"; fi
}
trap clean_up EXIT

start_engine() {
    if "$docker" version >/dev/null 2>&1; then return; fi
    export DOCKER_HOST=unix://$scratch/docker.sock
    say "starting an engine in $scratch"
    setsid dockerd --data-root "$scratch/data" --exec-root "$scratch/exec" -H "$DOCKER_HOST" -p "$scratch/dockerd.pid" \
        >"$scratch/dockerd.log" 2>&1 &
    engine=$!
    for _ in {1..60}; do
        if "$docker" version >/dev/null 2>&1; then return; fi
        sleep 1
    done
    fail "the engine does not start: $(tail -3 "$scratch/dockerd.log")"
}

has_bases() { "$docker" image inspect debian:bookworm-slim rust:1.95-bookworm >/dev/null 2>&1; }

get_bases() {
    if has_bases || { "$docker" pull -q debian:bookworm-slim && "$docker" pull -q rust:1.95-bookworm; } 2>/dev/null; then return; fi
    [ -d ../shared/docker-standin ] || fail "debian:bookworm-slim and rust:1.95-bookworm cannot be pulled"
    say "making stand-ins for the base images"
    cp -r --no-preserve=mode ../shared/docker-standin "$scratch/standin"
    mkdir -p "$scratch/standin/rust"
    # With this script's client first on the path.
    (cd "$scratch/standin" && PATH=$(dirname "$(command -v "$docker")"):$PATH DOCKER_BUILDKIT=0 ROOTFS=$scratch/rootfs bash build.sh) >"$scratch/standin.log" 2>&1
}

build() {
    local start=$SECONDS
    "$docker" build --progress=plain --build-arg "VARIANT=$1" --build-arg "REVISION=$(git rev-parse HEAD)" -t "sardine:$1" . \
        >"$scratch/build-$1.log" 2>&1 || fail "the build of $1: $(tail -20 "$scratch/build-$1.log")"
    say "built sardine:$1 in $((SECONDS - start)) s: $(($("$docker" image inspect -f '{{.Size}}' "sardine:$1") / 1000000)) MB, of which the base has $(($("$docker" image inspect -f '{{.Size}}' debian:bookworm-slim) / 1000000))"
}

# Starts a container as a careful host would, and prints its id: start IMAGE OPTIONS-OF-DOCKER... [-- FLAGS-OF-SERVE...]
start() {
    local image=$1 options=()
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    [ $# -eq 0 ] || shift
    "$docker" run -d --label "$run_name" --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges "${options[@]}" "$image" "$@"
}

address() { echo "http://$("$docker" port "$1" "${2:-80}" | head -1)"; }

# Waits until the container's own HEALTHCHECK says that it is well.
until_healthy() {
    for _ in {1..240}; do
        case $("$docker" inspect -f '{{.State.Status}} {{.State.Health.Status}}' "$1") in
        "running healthy") return ;;
        exited*) break ;;
        esac
        sleep 0.5
    done
    fail "it does not become healthy: $("$docker" logs --tail 20 "$1" 2>&1)"
}

smoke() { deploy/smoke.sh "$1" >"$scratch/smoke.log" || fail "smoke test: $(cat "$scratch/smoke.log")"; }

stop() {
    "$docker" stop -t 60 "$1" >/dev/null
    local code
    code=$("$docker" inspect -f '{{.State.ExitCode}}' "$1")
    [ "$code" = 0 ] || fail "it ended with $code: $("$docker" logs --tail 20 "$1" 2>&1)"
    "$docker" rm "$1" >/dev/null
}

# The image itself: its user, what it is linked with, its bill of materials.
inspect() {
    local missing
    [ "$("$docker" inspect -f '{{.Config.User}}' "sardine:$1")" = 10001:10001 ] || fail "the image's user"
    [ "$("$docker" inspect -f '{{index .Config.Labels "org.opencontainers.image.revision"}}' "sardine:$1")" = "$(git rev-parse HEAD)" ] || fail "the image's labels"
    missing=$("$docker" run --rm --label "$run_name" --entrypoint bash "sardine:$1" -c \
        'find /opt/sardine -name "*.so*" -o -name sardine -type f | xargs ldd 2>/dev/null | grep "not found" | grep -v libcuda.so.1 | sort -u' || true)
    [ -z "$missing" ] || fail "libraries are missing: $missing"
    "$docker" run --rm --label "$run_name" --entrypoint cat "sardine:$1" /opt/sardine/sbom.cdx.json | python3 -c '
import json, sys
bill = json.load(sys.stdin)
names = {component["name"] for component in bill["components"]}
missing = {"actix-web", "tch", "torch"} - names
assert bill["bomFormat"] == "CycloneDX" and not missing, missing
print("          in the bill of materials:", len(bill["components"]), "components")'
}

# The dashboard must not ask for metrics in vain.
compare_metrics() {
    local missing
    missing=$(comm -23 <(grep -ohE '\b(sardine|inf)_[a-z_]+' deploy/grafana/dashboards/sardine.json | sed 's/_bucket$//' | sort -u) \
        <(curl --silent "$1/metrics" | sed 's/^# TYPE //' | grep -oE '^(sardine|inf)_[a-z_]+' | sort -u) | tr '\n' ' ')
    [ -z "$missing" ] || fail "the dashboard asks for metrics that the server does not have: $missing"
}

# SIGTERM while 16 clients read streams: everyone gets the whole answer, and nobody new is let in.
stop_under_load() {
    local container=$1 url tokens=400 inside finished
    url=$(address "$container")
    rm -rf "$scratch/streams" && mkdir "$scratch/streams"
    for client in {1..16}; do
        curl --silent --no-buffer "$url/v1/chat/completions" -H 'content-type: application/json' -d '{"stream": true, "ignore_eos": true,
            "max_tokens": '$tokens', "stream_options": {"include_usage": true}, "messages": [{"role": "user", "content": "Hi"}]}' \
            >"$scratch/streams/$client" &
    done
    # Until the server has them all: running, and in its queue.
    for _ in {1..300}; do
        inside=$(curl --silent "$url/metrics" | awk '/^inf_/ { sum += $2 } END { print sum }')
        if [ "$inside" = 16 ]; then break; fi
    done
    finished=$(cat "$scratch"/streams/* | grep -c '^data: \[DONE\]' || true)
    "$docker" kill --signal TERM "$container" >/dev/null
    say "SIGTERM under load, $inside requests inside and $finished of 16 answers finished; a newcomer gets $(curl -s -o /dev/null -w '%{http_code}' "$url/" -d '{"inputs": "Hi"}' || true)"
    [ "$("$docker" wait "$container")" = 0 ] || fail "it did not end with 0: $("$docker" logs --tail 20 "$container" 2>&1)"
    # Only the clients: the engine is this shell's child as well.
    # shellcheck disable=SC2046
    wait $(jobs -p | grep -vx "${engine:-none}") || fail "a client's connection broke"
    [ "$(cat "$scratch"/streams/* | grep -c '^data: \[DONE\]')" = 16 ] || fail "answers were cut off"
    [ "$(cat "$scratch"/streams/* | grep -c "\"completion_tokens\":$tokens")" = 16 ] || fail "answers are not whole"
    "$docker" rm "$container" >/dev/null
}

use() {
    local variant=$1 container
    inspect "$variant"
    # The grace is for a machine that is busy with other things: no answer must be lost, however long it takes.
    container=$(start "sardine:$variant" -p 127.0.0.1::80 -e SARDINE_SHUTDOWN_GRACE_S=120)
    until_healthy "$container"
    [ "$("$docker" exec "$container" id -u)" = 10001 ] || fail "the process is not the image's user"
    smoke "$(address "$container")"
    compare_metrics "$(address "$container")"
    stop_under_load "$container"
    say "ok    sardine:$variant as another user, on a read-only root, without capabilities; no answer was lost"
}

use_elsewhere() {
    local container
    container=$(start sardine:cpu -p 127.0.0.1::8080 --sysctl net.ipv4.ip_unprivileged_port_start=1024)
    until_healthy "$container"
    smoke "$(address "$container" 8080)"
    stop "$container"
    say "ok    where port 80 is not permitted: 8080"

    container=$(start sardine:cpu --init -p 127.0.0.1::9000 -- --port 9000)
    until_healthy "$container"
    smoke "$(address "$container" 9000)"
    stop "$container"
    say "ok    a port given as a flag, under an init: the health check finds it"

    # fry's own folder is a checkpoint like any other.
    container=$(start sardine:cpu --network none -v "$PWD/fry:/repository:ro" -e SARDINE_SERVED_MODEL_NAME=mounted)
    until_healthy "$container"
    "$docker" logs "$container" 2>&1 | grep -q 'serving fry, the miniature' && fail "/repository was not taken"
    stop "$container"
    say "ok    a checkpoint at /repository, without a network"
}

use_compose() {
    local compose=(docker-compose)
    "$docker" compose version >/dev/null 2>&1 && compose=("$docker" compose)
    compose+=(-p "$run_name" -f deploy/compose.yaml)
    SARDINE_PORT=18080 "${compose[@]}" up -d sardine >"$scratch/compose.log" 2>&1 || fail "compose: $(cat "$scratch/compose.log")"
    local container
    container=$("${compose[@]}" ps -q sardine)
    until_healthy "$container"
    smoke http://127.0.0.1:18080
    "${compose[@]}" stop >/dev/null 2>&1
    [ "$("$docker" inspect -f '{{.State.ExitCode}}' "$container")" = 0 ] || fail "compose: it did not end with 0"
    "${compose[@]}" down -v >/dev/null 2>&1
    say "ok    ${compose[0]} up, smoke test, down"
}

start_engine
get_bases
for variant in "$@"; do
    build "$variant"
    use "$variant"
    if [ "$variant" = cpu ]; then
        use_elsewhere
        use_compose
    fi
done
say "all is well"
