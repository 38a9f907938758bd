"""A router that wants one event besides data, ACT_ON, and decides at it."""

import json
import os
import sys

for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "hello":
        result = {"protocol": 1, "methods": ["proxy"], "events": [os.environ["ACT_ON"]]}
    elif message.get("method") == "proxy":
        question = message["params"]
        text = question["event"] + " " + repr(question["data"]) + "\n"
        result = {"close": text} if question["event"] == os.environ["ACT_ON"] else None
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
