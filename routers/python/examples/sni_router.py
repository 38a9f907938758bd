"""TLS is routed by the server name that clients ask for, without being decrypted.

    ROUTES=one.localhost=127.0.0.1:8443,*.two.localhost=127.0.0.1:9443 tproxy sni_router.py
    curl -k --resolve one.localhost:5000:127.0.0.1 https://one.localhost:5000/

tproxy reads the ClientHello, and asks only once for each name: the verdict is cached under it. Clients
that speak no TLS, or name nobody that we know, are closed.
"""

import os

SECONDS = 60


class Table:
    """Which name is where; `*.example.org` is every name below it."""

    def __init__(self, text):
        self.remotes = dict(entry.split("=", 1) for entry in text.split(",") if entry)

    def lookup(self, name):
        if name in self.remotes:
            return self.remotes[name]
        _, dot, above = name.partition(".")
        return self.remotes.get("*." + above) if dot else None


table = Table(os.environ.get("ROUTES", "one.localhost=127.0.0.1:8443,*.two.localhost=127.0.0.1:9443"))


def proxy(data, question):
    hello = question.client_hello
    if hello is None or hello.state not in ("need_more", "complete"):
        return {"close": True, "note": "no TLS"}
    if hello.state == "need_more":
        return None
    if hello.sni is None:
        return {"close": True, "note": "no server name"}
    name = hello.sni.lower()
    remote = table.lookup(name)
    print(f"asked about {name}")  # a line in tproxy's log
    if remote is None:  # not cached: anybody can make names up
        return {"close": True, "note": f"unknown name {name}"}
    # When a table of yours changes, say so: tproxy.invalidate(key="sni", value=name)
    return {"remote": remote, "note": name, "cache": {"key": "sni", "ttl": SECONDS}}
