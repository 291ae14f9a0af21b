#!/bin/bash
# Asks a live server whatever its users will ask: `deploy/smoke.sh http://127.0.0.1:8080`. Needs curl; exit code 0 if all is well.
# API_KEY is sent as a bearer token: a server's own key, or the HF token of an authenticated endpoint.
set -euo pipefail
url=${1:?usage: deploy/smoke.sh URL}
url=${url%/}
picture=$(dirname "$0")/../fry/samples/describe-one.png
body=$(mktemp)
trap 'rm -f "$body"' EXIT
failures=0

# Sends a request and compares: check NAME STATUS PATTERN CURL-ARGUMENTS... The body must match the pattern.
check() {
    local name=$1 status=$2 pattern=$3 got seconds
    shift 3
    # An endpoint that sleeps holds the request while it wakes up.
    read -r got seconds < <(curl --silent --show-error --max-time 600 --output "$body" --write-out '%{http_code} %{time_total}\n' \
        ${API_KEY:+--header "Authorization: Bearer $API_KEY"} --header 'X-Scale-Up-Timeout: 600' "$@") || true
    if [ "$got" = "$status" ] && grep -Eq "$pattern" "$body"; then
        echo "ok    $name: $got in ${seconds} s: $(head -c 160 "$body" | tr '\n' ' ')"
    else
        echo "FAIL  $name: $got, not $status with /$pattern/: $(head -c 400 "$body" | tr '\n' ' ')"
        failures=$((failures + 1))
    fi
}

json=(--header 'Content-Type: application/json' --data-binary @-)

check "health" 200 '^Ok$' "$url/health"
check "toolkit, text" 200 '"generated_text":"[^"]' "${json[@]}" "$url/" <<'END'
{"inputs": [{"role": "user", "content": "What is 17 + 25?"}], "parameters": {"max_new_tokens": 64, "do_sample": false}}
END
check "toolkit, a picture" 200 '"generated_text":"[^"]' "${json[@]}" "$url/" <<END
{"inputs": [{"role": "user", "content": [
  {"type": "image", "image": "data:image/png;base64,$(base64 <"$picture" | tr -d "\n")"},
  {"type": "text", "text": "Describe this image."}
]}], "parameters": {"max_new_tokens": 64, "do_sample": false}}
END
check "OpenAI, chat" 200 '"choices":\[\{.*"content":"[^"]' "${json[@]}" "$url/v1/chat/completions" <<'END'
{"messages": [{"role": "user", "content": "What is 17 + 25?"}], "max_tokens": 64, "temperature": 0,
 "chat_template_kwargs": {"enable_thinking": false}}
END
check "OpenAI, streamed" 200 '^data: \[DONE\]' "${json[@]}" "$url/v1/chat/completions" <<'END'
{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 16, "stream": true}
END
check "a wrong request" 400 '^\{"error":.*"error_type":"validation"' "${json[@]}" "$url/" <<'END'
{"inputs": "Hi", "parameters": {"max_new_tokens": "many"}}
END
check "metrics" 200 '^inf_queue_size [0-9]' "$url/metrics"

if [ "$failures" -gt 0 ]; then
    echo "$failures checks failed"
    exit 1
fi
echo "all is well at $url"
