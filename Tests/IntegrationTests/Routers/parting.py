"""A router that answers all its questions at once and ends; those that come after it answer `again`.

PARTING_COUNT questions are waited for, and the file PARTING/go. Of each PARTING_LINES answers the one in the middle is the file
PASSED, whose descriptor comes with it in a write of its own; the others close with `said`, in one write before and one behind it.
"""

import json
import os
import socket
import sys
import time

tproxy = socket.socket(fileno=os.dup(0))
folder, count, lines = os.environ["PARTING"], int(os.environ["PARTING_COUNT"]), int(os.environ["PARTING_LINES"])
asked = []


def answer(id, result):
    return (json.dumps({"jsonrpc": "2.0", "id": id, "result": result}) + "\n").encode()


def part():
    print("has been asked all", file=sys.stderr, flush=True)
    while not os.path.exists(folder + "/go"):
        time.sleep(0.01)
    for start in range(0, count, lines):
        middle = start + lines // 2
        file = os.open(os.environ["PASSED"], os.O_RDONLY)
        tproxy.sendall(b"".join(answer(id, {"close": "said"}) for id in asked[start:middle]))
        socket.send_fds(tproxy, [answer(asked[middle], {"file": file, "attached": True})], [file])
        tproxy.sendall(b"".join(answer(id, {"close": "said"}) for id in asked[middle + 1:start + lines]))
    os._exit(0)


try:
    os.close(os.open(folder + "/first", os.O_CREAT | os.O_EXCL))
    is_first = True
except FileExistsError:
    is_first = False
for line in tproxy.makefile("r", encoding="utf-8", newline="\n"):
    message = json.loads(line)
    if message.get("method") == "hello":
        tproxy.sendall(answer(message["id"], {"protocol": 1, "methods": ["proxy"]}))
    elif message.get("method") == "proxy" and is_first:
        asked.append(message["id"])
        if len(asked) == count:
            part()
    elif message.get("method") == "proxy":
        tproxy.sendall(answer(message["id"], {"close": "again"}))
