"""Everything to one remote, and all bytes through two functions that change nothing: where to begin with a rewriter.

REMOTE=127.0.0.1:8000 tproxy transparentrw.py
curl http://127.0.0.1:5000/
"""

import io
import os

REMOTE = os.environ.get("REMOTE", "127.0.0.1:8000")


def rewrite_request(req):
    copy(req)


def rewrite_response(resp):
    copy(resp)


def copy(stream):
    while True:
        data = stream.read(io.DEFAULT_BUFFER_SIZE)
        if not data:
            break
        stream.writeall(data)


def proxy(data):
    return {"remote": REMOTE}
