#!/bin/sh
# The router of the protocol's transcripts, one jq for each line:  tproxy --router 'sh conformance.sh'

while IFS= read -r line; do
    printf '%s\n' "$line" | jq -c -f "${0%/*}/conformance.jq"
done
