"""The routing script of `make run`: who gets a request is decided by its Host header."""

import os
import re

HOST = re.compile(rb"\r\nhost:[ \t]*([^\r\n:]*)", re.IGNORECASE)
FILE = os.environ["DEMO_FILE"]
REMOTES = {
    "one.localhost": os.environ["DEMO_ONE"],
    "two.localhost": os.environ["DEMO_TWO"],
}


def proxy(data):
    if b"\r\n\r\n" not in data:
        return None  # not yet: ask again when more has come
    match = HOST.search(data)
    host = match.group(1).decode("latin-1").lower() if match else ""
    if host in REMOTES:
        return {"remote": REMOTES[host], "note": host}
    if host == "file.localhost":
        head = "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % os.path.getsize(FILE)
        return {"file": FILE, "reply": head}
    return {"close": "HTTP/1.1 404 Not Found\r\nContent-Length: 13\r\nConnection: close\r\n\r\nno such host\n"}


def proxy_error(client, error):
    print("could not reach the remote:", error)
