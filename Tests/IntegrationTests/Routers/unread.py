"""A router that has UNREAD_COUNT clients' requests rewritten. The first one (the file UNREAD is not there) reads nothing more once
it has been asked about all of them; when its socket is full it answers, and has to be told of that many streams then. Those after
it make capitals of each request's first line and end it. Clients that do not say `rewrite` are closed with `served`.
"""

import fcntl
import json
import os
import socket
import struct
import sys
import termios
import time

tproxy = socket.socket(fileno=os.dup(0))
asked = []


def write(message):
    tproxy.sendall((json.dumps({"jsonrpc": "2.0", **message}) + "\n").encode())


def unread_bytes():
    return struct.unpack("i", fcntl.ioctl(tproxy, termios.FIONREAD, b"\0" * 4))[0]


def answer_unheard():
    print("has been asked all", file=sys.stderr, flush=True)
    while unread_bytes() < 100_000:
        time.sleep(0.01)
    for id in asked:
        send_to_rewriter(id)
    while True:
        time.sleep(1000)


def send_to_rewriter(id):
    write({"id": id, "result": {"remote": os.environ["REMOTE"], "extra": "x" * 32_000}})


def rewrite(token):
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(address)
    stream.sendall(token.encode() + b"\n")
    stream.sendall(stream.recv(len("rewrite\n")).upper())
    write({"method": "stream_end", "params": {"token": token}})
    stream.close()


try:
    os.close(os.open(os.environ["UNREAD"], os.O_CREAT | os.O_EXCL))
    is_first = True
except FileExistsError:
    is_first = False
for line in tproxy.makefile("r", encoding="utf-8", newline="\n"):
    message = json.loads(line)
    method = message["method"]
    if method == "hello":
        address = message["params"]["streams"].removeprefix("unix:").replace("@", "\0", 1)
        write({"id": message["id"], "result": {"protocol": 1, "methods": ["proxy", "rewrite_request"]}})
    elif method == "rewrite_request":
        rewrite(message["params"]["token"])
    elif method == "proxy" and message["params"]["data"] != "rewrite\n":
        write({"id": message["id"], "result": {"close": "served"}})
    elif method == "proxy" and is_first:
        asked.append(message["id"])
        if len(asked) == int(os.environ["UNREAD_COUNT"]):
            answer_unheard()
    elif method == "proxy":
        send_to_rewriter(message["id"])
