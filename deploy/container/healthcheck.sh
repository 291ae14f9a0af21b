#!/bin/bash
# Whether the server of this container is ready: exit 0 where GET /health answers 200. There is no curl in the image; bash
# speaks TCP. The port is the environment's, or the one that the server falls back to where 80 is not permitted.
set -euo pipefail

# Whether the server at port $1 is ready.
is_ready() {
    local status
    exec 3<>"/dev/tcp/127.0.0.1/$1"
    printf 'GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
    read -r -t 3 _ status _ <&3
    [ "$status" = 200 ]
}

for port in "${SARDINE_PORT:-${PORT:-8080}}" 8080; do
    if (is_ready "$port") 2>/dev/null; then exit 0; fi
done
echo "GET /health did not answer 200"
exit 1
