"""HTTP for a remote that goes by the Host header: it sees another one than the client has sent, in every request.

python3 -m pip install -r requirements.txt
REMOTE=127.0.0.1:8000 HOST=b.example tproxy httprewrite.py
curl http://127.0.0.1:5000/
"""

import os

from http_requests import rewrite_requests

REMOTE = os.environ.get("REMOTE", "127.0.0.1:8000")
HOST = os.environ.get("HOST", "b.example").encode()


def rewrite_request(req):
    rewrite_requests(req, with_other_host)


def with_other_host(method, target, headers):
    return method, target, [(name, HOST if name.lower() == b"host" else value) for name, value in headers]


def proxy(data):
    return {"remote": REMOTE}
