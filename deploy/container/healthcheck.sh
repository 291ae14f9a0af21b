#!/bin/bash
# Whether the server of this container is ready: exit 0 where GET /health answers 200. There is no curl in the image; bash
# speaks TCP, and takes a hundredth of the time that sardine itself takes to start, every few seconds.
set -euo pipefail

# Where the server listens: a flag wins over the environment. The first process is the server, or an init whose command line
# ends in the server's.
ports() {
    local arguments=() number flag= port
    mapfile -d '' arguments </proc/1/cmdline
    for number in "${!arguments[@]}"; do
        case ${arguments[number]} in
        --port=*) flag=${arguments[number]#--port=} ;;
        --port) flag=${arguments[number + 1]:-} ;;
        esac
    done
    port=${flag:-${SARDINE_PORT:-${PORT:-8080}}}
    # Where 80 is not permitted the server takes 8080.
    if [ "$port" = 80 ]; then echo 80 8080; else echo "$port"; fi
}

# Whether the server at port $1 is ready.
is_ready() {
    local status
    exec 3<>"/dev/tcp/127.0.0.1/$1"
    printf 'GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
    read -r -t 3 _ status _ <&3
    [ "$status" = 200 ]
}

for port in $(ports); do
    if (is_ready "$port") 2>/dev/null; then exit 0; fi
done
echo "GET /health did not answer 200"
exit 1
