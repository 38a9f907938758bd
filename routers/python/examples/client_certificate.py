"""Clients with a certificate go by who they are, others by the name that they ask for. TLS ends at tproxy.

    export WHO=DNS:alice.example=127.0.0.1:8001 SITES=a.example=127.0.0.1:8002
    tproxy -b tls://127.0.0.1:5443 --ssl-certfile site.pem --ssl-keyfile site.key \\
        --ssl-ca-certs clients.pem --ssl-cert-reqs 1 client_certificate.py
    curl --cacert ca.pem --cert alice.pem --key alice.key \\
        --resolve a.example:5443:127.0.0.1 https://a.example:5443/

With --ssl-cert-reqs 1 a certificate is asked for and may be left out; with 2 nobody comes in without. What
is shown has been verified against --ssl-ca-certs, so its names are as good as that authority.
"""

import os


def table(text):
    """`name=address,name=address`; the last `=` counts, for names of certificates may have some."""
    return dict(entry.rsplit("=", 1) for entry in text.split(",") if entry)


WHO = table(os.environ.get("WHO", "DNS:alice.example=127.0.0.1:8001"))
SITES = table(os.environ.get("SITES", "a.example=127.0.0.1:8002"))


def proxy(data, question):
    tls = question.tls
    if tls is None:
        return {"close": True, "note": "came without TLS"}
    shown = tls.client_certificate
    if shown is not None:
        for name in shown.names:
            if name in WHO:
                return {"remote": WHO[name], "note": f"{name} {shown.fingerprint[:16]}"}
    if tls.sni in SITES:
        return {"remote": SITES[tls.sni], "note": tls.sni}
    return {"close": True, "note": f"nobody for {shown.subject if shown else tls.sni}"}
