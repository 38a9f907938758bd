"""A proxy for browsers: GET by an absolute URL, and CONNECT.

    python3 -m pip install -r requirements.txt
    tproxy httpproxy.py
    curl -x http://127.0.0.1:5000 http://example.org/ https://example.org/

It goes wherever the client wants: let nobody in whom you would not let go there.
"""

from urllib.parse import urlsplit

from http_requests import rewrite_requests

CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 23\r\nConnection: close\r\n\r\nthis is an HTTP proxy\r\n"
BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 16\r\nConnection: close\r\n\r\ncannot connect\r\n"

#: What is between the client and us, and the Host, which is written anew.
NOT_PASSED_ON = {b"proxy-connection", b"proxy-authorization", b"host"}


def origin_of(url):
    """Host and port of an absolute URL; None if it is none."""
    try:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            return None
        return [parts.hostname, parts.port or 80]
    except ValueError:
        return None


def proxy(data):
    head, end, _ = data.partition(b"\r\n\r\n")
    if not end:
        return None
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    if len(words) != 3:
        return {"close": BAD_REQUEST}
    method, url, _ = words
    if method == "CONNECT":
        # A tunnel: nothing of it is ours to change.
        return {"remote": url, "reply": CONNECTED, "consume": len(head) + len(end), "rewrite": False}
    origin = origin_of(url)
    if origin is None:
        return {"close": BAD_REQUEST}
    return {"remote": origin, "extra": origin}


def proxy_error(client, error):
    return BAD_GATEWAY


def rewrite_request(req, extra):
    def as_for_the_server(method, target, headers):
        url = target.decode("latin-1")
        if origin_of(url) != extra:
            # For another server: the client has to come again, and does, for it gets no answer here.
            return None
        parts = urlsplit(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        # The URL is what counts, whatever the client says beside it (RFC 9112, 3.2.2).
        host = (b"Host", parts.netloc.rpartition("@")[2].encode("latin-1"))
        others = [header for header in headers if header[0].lower() not in NOT_PASSED_ON]
        return method, path.encode("latin-1"), [host, *others]

    rewrite_requests(req, as_for_the_server)
