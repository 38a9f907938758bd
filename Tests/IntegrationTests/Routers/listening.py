"""A router that somebody else runs: it listens on the Unix socket argv[1] and serves everybody who connects.

`{"do": "hang"}` gets no answer, `{"do": "hang at first"}` none until it is asked again, `{"do": "exit"}` ends the process, any other
line is the JSON of the verdict; `pid` in a close is replaced by the process id, `count` by how many have connected so far,
`replay` by that of the question. As argv[2] the user that it changes to first. With
LISTENING_EVENT it wants that event, and closes with its name when it comes.
"""

import json
import os
import socket
import sys
import threading

if len(sys.argv) > 2:
    os.setuid(int(sys.argv[2]))
listener = socket.socket(socket.AF_UNIX)
if os.path.exists(sys.argv[1]):
    os.unlink(sys.argv[1])
listener.bind(sys.argv[1])
listener.listen()
print("listening", flush=True)
count = 0
EVENTS = [os.environ["LISTENING_EVENT"]] if "LISTENING_EVENT" in os.environ else []


def serve(connection):
    for line in connection.makefile("r", encoding="utf-8", newline="\n"):
        message = json.loads(line)
        if message.get("method") == "hello":
            result = {"protocol": 1, "methods": ["proxy", "cancel", "shutdown"], "events": EVENTS}
        elif message.get("method") == "proxy" and message["params"]["event"] in EVENTS:
            result = {"close": message["params"]["event"]}
        elif message.get("method") == "proxy":
            result = json.loads(message["params"]["data"])
            if result.get("do") == "exit":
                os._exit(1)
            replay = message["params"]["replay"]
            what = result.pop("do", None)
            if what == "hang" or what == "hang at first" and replay == 0:
                continue
            for word, value in (("pid", os.getpid()), ("count", count), ("replay", replay)):
                if "close" in result:
                    result["close"] = result["close"].replace(word, str(value))
        else:
            continue
        connection.sendall(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode() + b"\n")
    connection.close()


while True:
    connection, _ = listener.accept()
    count += 1
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
