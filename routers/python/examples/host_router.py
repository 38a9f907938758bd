"""HTTP is routed by its Host header, to what a table says.

    ROUTES=one.localhost=127.0.0.1:8001,two.localhost=127.0.0.1:8002 tproxy host_router.py
    curl http://one.localhost:5000/
"""

import os
import re

HOST = re.compile(rb"\r\nhost:[ \t]*([^\r\n:]*)[^\r\n]*\r\n", re.IGNORECASE)

NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 13\r\nConnection: close\r\n\r\nno such host\n"
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 8\r\nConnection: close\r\n\r\nno Host\n"


class Table:
    """Which host is where. Yours may look into a database."""

    def __init__(self, text):
        self.remotes = dict(entry.split("=", 1) for entry in text.split(",") if entry)

    def lookup(self, host):
        return self.remotes.get(host)


table = Table(os.environ.get("ROUTES", "one.localhost=127.0.0.1:8001,two.localhost=127.0.0.1:8002"))


def proxy(data):
    match = HOST.search(data)
    if match is None:
        # Not yet, unless the head has ended without one.
        return {"close": BAD_REQUEST} if b"\r\n\r\n" in data else None
    remote = table.lookup(match.group(1).decode("latin-1").lower())
    return {"remote": remote} if remote else {"close": NOT_FOUND}
