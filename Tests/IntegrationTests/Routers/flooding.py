"""A router that answers `flood` by a line that never ends, and anything else by itself."""

import json
import sys

for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") != "proxy":
        if "id" in message:
            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": None}), flush=True)
        continue
    data = message["params"]["data"]
    if data.startswith("flood"):
        sys.stdout.write('{"jsonrpc":"2.0","id":%d,"result":{"close":"' % message["id"])
        while True:
            sys.stdout.write("x" * 65536)
            sys.stdout.flush()
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {"close": data}}), flush=True)
