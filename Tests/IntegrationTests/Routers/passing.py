"""A router that passes descriptors along with its answers, as it should and as it should not."""

import json
import os
import socket

tproxy = socket.socket(fileno=os.dup(0))


def write(message, descriptors=()):
    line = (json.dumps({"jsonrpc": "2.0", **message}) + "\n").encode()
    if descriptors:
        socket.send_fds(tproxy, [line], descriptors)
    else:
        tproxy.sendall(line)


pending = {}
for line in tproxy.makefile("r", encoding="utf-8", newline="\n"):
    message = json.loads(line)
    if message.get("method") == "hello":
        write({"id": message["id"], "result": {"protocol": 1, "methods": ["proxy"]}})
    if message.get("method") != "proxy":
        continue
    what = message["params"]["data"].strip()
    held = []
    # More than there is room for at the other side: the kernel leaves some out (unix(7), MSG_CTRUNC).
    for _ in range({"file": 1, "two": 2, "many": 30}.get(what, 0)):
        held.append(os.open(os.environ["PASSED"], os.O_RDONLY))
    if what == "socket":
        held.append(os.dup(0))
    result = {"file": held[0] if held else 99, "attached": True}
    if what == "unclaimed":
        # Beside a verdict that is none of a file: nobody may ever get it.
        held.append(os.open(__file__, os.O_RDONLY))
        result = {"close": "without"}
    if what in ("promised", "kept"):
        # Both at once: one promises a descriptor and has none, the next one has.
        pending[what] = message["id"]
        if len(pending) < 2:
            continue
        write({"id": pending["promised"], "result": result})
        held.append(os.open(os.environ["PASSED"], os.O_RDONLY))
        write({"id": pending["kept"], "result": {"file": held[0], "attached": True}}, held)
    else:
        write({"id": message["id"], "result": result}, held)
    for descriptor in held:
        os.close(descriptor)
