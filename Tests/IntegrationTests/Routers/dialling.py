"""A router that rewrites requests, and dials back as it should not: `extra` says how."""

import json
import os
import socket
import sys

tproxy = socket.socket(fileno=os.dup(0))
held = []
late = []
address = None


def write(message):
    tproxy.sendall((json.dumps({"jsonrpc": "2.0", **message}) + "\n").encode())


def dial(line=None):
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(address)
    if line is not None:
        stream.sendall(line.encode())
    held.append(stream)
    return stream


def is_closed(stream):
    stream.settimeout(10)
    try:
        return stream.recv(1) == b""
    except ConnectionResetError:
        return True


def is_refused_as_stranger(line):
    """Dials as another user, which root can become."""
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresuid(12345, 12345, 12345)
        refused = False
        try:
            refused = is_closed(dial(line))
        except ConnectionError:
            refused = True  # before it could say a word
        finally:
            os._exit(0 if refused else 1)
    return os.waitpid(child, 0)[1] == 0


def rewrite(params):
    token, how = params["token"], params["extra"]
    if how == "never":
        return
    if how == "die first" and not os.path.exists(os.environ["DIED"]):
        open(os.environ["DIED"], "w").close()
        os._exit(1)
    if how == "late":
        late.append(token)
        return
    if how == "wrong first":
        for wrong in ("0" * 32 + "\n", "hello\n", token[:-1] + "x\n", token.upper() + "!\n"):
            if not is_closed(dial(wrong)):
                raise SystemExit("it was let in")
    if how == "another user" and not is_refused_as_stranger(token + "\n"):
        raise SystemExit("it was let in")
    if how == "strangers":
        for _ in range(100):
            dial()
    stream = dial(token + "\n")
    if how == "twice":
        if not is_closed(dial(token + "\n")):
            raise SystemExit("it was let in")
    if how == "end first":
        write({"method": "stream_end", "params": {"token": token}})
    stream.settimeout(10)
    text = stream.recv(65536)
    stream.sendall(b"got " + text)
    if how == "others' words":
        for method in ("stream_end", "detach"):
            write({"method": method, "params": {"token": "f" * 32}})
    elif how != "end first":
        write({"method": "stream_end", "params": {"token": token}})
    stream.close()


for line in tproxy.makefile("r", encoding="utf-8", newline="\n"):
    message = json.loads(line)
    method = message["method"]
    if method == "hello":
        address = message["params"]["streams"].removeprefix("unix:").replace("@", "\0", 1)
        write({"id": message["id"], "result": {"protocol": 1, "methods": ["proxy", "rewrite_request", "closed"]}})
    elif method == "proxy":
        first, newline, _ = message["params"]["data"].partition("\n")
        order = json.loads(first)
        write({"id": message["id"], "result": {"consume": len(first) + 1, **order}})
    elif method == "rewrite_request":
        rewrite(message["params"])
    elif method == "closed" and late:
        stranger = dial(late.pop() + "\n")
        print("late and turned away" if is_closed(stranger) else "late and let in", file=sys.stderr, flush=True)
