#!/bin/sh
# Routes HTTP by its Host header:  tproxy --router 'sh route.sh'

# An id, a method and a host, as three words. Bytes that are in no host name become "?": a shell would drop a NUL.
words='"\(.id // "-") \(.method) \(
  first(.params.data? // "" | capture("\r\nhost:[ \t]*(?<host>[^\r\n:]*)[^\r\n]*\r\n"; "i").host
    | ascii_downcase | gsub("[^a-z0-9.-]"; "?")) // "-")"'

while IFS= read -r question; do
    read -r id method host <<EOF
$(printf '%s\n' "$question" | jq -r "$words")
EOF
    case "$id $method $host" in
    -\ *) continue ;; # no id: a notification, which gets no answer
    *" hello "*) answer='"result": {"protocol": 1, "name": "route.sh", "methods": ["proxy"]}' ;;
    *" proxy one.localhost") answer='"result": {"remote": "127.0.0.1:8001"}' ;;
    *" proxy two.localhost") answer='"result": {"remote": "127.0.0.1:8002"}' ;;
    *" proxy -") answer='"result": null' ;; # no Host yet
    *" proxy "*) answer='"result": {"close": "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"}' ;;
    *) answer='"error": {"code": -32601, "message": "method not found"}' ;;
    esac
    printf '{"jsonrpc": "2.0", "id": %s, %s}\n' "$id" "$answer"
done
