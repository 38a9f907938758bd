"""A page for the client when the remote fails, instead of a connection that just ends.

    REMOTE=127.0.0.1:9 tproxy errors.py
    curl -i http://127.0.0.1:5000/
"""

import html
import os

from tproxy.client import ConnectionTimeout
from tproxy.server import InactivityTimeout

REMOTE = os.environ.get("REMOTE", "127.0.0.1:9")


def proxy(data):
    return {"remote": REMOTE, "connect_timeout": 3, "inactivity_timeout": 60}


def proxy_error(client, error):
    status = "502 Bad Gateway"
    if isinstance(error, (ConnectionTimeout, InactivityTimeout)):
        status = "504 Gateway Timeout"
    print(f"{client.addr}: {error.type}: {error}")  # a line in tproxy's log
    page = f"<h1>{status}</h1>\n<p>{html.escape(str(error))}</p>\n".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(page)}\r\nConnection: close\r\n\r\n"
    return head.encode() + page
