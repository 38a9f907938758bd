"""Plain HTTP here, HTTPS there: for programs that cannot speak TLS themselves.

    SITE=example.org tproxy tls_remote.py
    curl http://127.0.0.1:5000/

tproxy speaks TLS to the site, or to the address REMOTE, and verifies that it is the site: against the
authorities that the system trusts, or those of the file CA_CERTS. The request's Host header becomes the
site's name. That is done for the first request of a connection, so there is to be one only.
"""

import os
import re

SITE = os.environ.get("SITE", "example.org")
REMOTE = os.environ.get("REMOTE", f"{SITE}:443")
CA_CERTS = os.environ.get("CA_CERTS")

HEAD_BYTES_MAX = 16384
OURS = re.compile(rb"(?:host|connection|proxy-connection|keep-alive):", re.IGNORECASE)


def proxy(data):
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        # Not all of the head has come: unless it never will.
        return None if len(data) < HEAD_BYTES_MAX else {"close": page("400 Bad Request", "That is no HTTP.")}
    request, *fields = head.split(b"\r\n")
    fields = [field for field in fields if not OURS.match(field)]
    fields += [b"Host: " + SITE.encode(), b"Connection: close"]
    ssl_args = {"server_hostname": SITE, "alpn": ["http/1.1"]}
    if CA_CERTS:
        ssl_args["ca_certs"] = CA_CERTS
    return {
        "remote": REMOTE,
        "ssl": True,
        "ssl_args": ssl_args,
        "data": b"\r\n".join([request, *fields]) + b"\r\n\r\n" + body,
    }


def proxy_error(client, error):
    """What went wrong in OpenSSL's words: "certificate has expired", "hostname mismatch"."""
    return page("502 Bad Gateway", f"{SITE}: {error.type}: {error}")


def page(status, text):
    body = text.encode() + b"\n"
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
