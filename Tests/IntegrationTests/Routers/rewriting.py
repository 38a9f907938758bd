"""A router that does to each direction what the client's first line, a JSON object, tells it."""

import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "routers", "python"))

import tproxy  # noqa: E402


def proxy(data):
    line, newline, _ = data.partition(b"\n")
    if not newline:
        return None
    order = json.loads(line)
    return {"consume": len(line) + 1, "extra": order, **order["verdict"]}


def identity(stream):
    while data := stream.recv():
        stream.write(data)


def upper(stream):
    while data := stream.recv():
        stream.write(data.upper())


def double(stream):
    while data := stream.recv():
        stream.write(bytes(byte for byte in data for _ in range(2)))


def swallow(stream):
    while stream.recv():
        pass


def early(stream):
    stream.write(b"enough of " + stream.recv(4))


def fail(stream):
    stream.write(stream.recv(4))
    raise ValueError("as told")


def die(stream):
    stream.write(stream.recv(4))
    os._exit(3)


def stall(stream):
    time.sleep(1000)


def last(stream):
    """Says all it has to say when the source has ended."""
    data = stream.read()
    stream.write(b"%d bytes" % len(data))


def leave(stream):
    """Changes the first four bytes and leaves."""
    stream.write(b"<" + stream.recv(4) + b">")
    stream.detach()


def who(stream):
    stream.write(b"%d" % os.getpid())
    identity(stream)


def rewrite_request(stream, extra):
    globals()[extra.get("request", "identity")](stream)


def rewrite_response(stream, extra):
    globals()[extra.get("response", "identity")](stream)


listen = sys.argv[1] if len(sys.argv) > 1 else None
tproxy.run(proxy, rewrite_request=rewrite_request, rewrite_response=rewrite_response, listen=listen)
