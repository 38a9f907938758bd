"""A router that gathers: lines end in a newline; `wait N` wants N bytes behind it; HELO, AUTH, QUIT are a conversation.

ROUTER_LOG is a file that gets the data of every question.
"""

import json
import os
import sys

log = open(os.environ["ROUTER_LOG"], "a") if "ROUTER_LOG" in os.environ else None


def proxy(question):
    data = question["data"]
    if log:
        log.write(json.dumps(data)[1:-1] + "\n")
        log.flush()
    line, newline, rest = data.partition("\n")
    if not newline:
        return None
    word = line.split(" ")[0]
    if word == "HELO":
        return {"reply": "250 hello\n", "consume": len(line) + 1, "state": {"greeted": line}}
    if word == "AUTH":
        reply = "250 " + json.dumps(question["state"]) + "\n"
        return {"reply": reply, "consume": len(line) + 1, "state": {"last": line}}
    if word == "QUIT":
        return {"close": "221 " + question["state"]["last"] + "\n"}
    if word == "wait" and len(rest) < int(line.split(" ")[1]):
        return {"wait": len(line) + 1 + int(line.split(" ")[1])}
    return {"close": data + "\n"}


for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "hello":
        answer = {"result": {"protocol": 1, "methods": ["proxy"], "max_in_flight": 1}}
    elif message.get("method") == "proxy":
        answer = {"result": proxy(message["params"])}
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}), flush=True)
