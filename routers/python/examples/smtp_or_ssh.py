"""SMTP and SSH behind one port. An SMTP server speaks first, so its client waits; an SSH client speaks at once.

    SMTP=127.0.0.1:25 SSH=127.0.0.1:22 tproxy --silence 300 smtp_or_ssh.py
    ssh -p 5000 127.0.0.1
    nc 127.0.0.1 5000

Who has said nothing when --silence is over wants to be greeted. Clients of some addresses need not wait: it is known
when they connect what they want.
"""

import ipaddress
import os

SMTP = os.environ.get("SMTP", "127.0.0.1:25")
SSH = os.environ.get("SSH", "127.0.0.1:22")

#: Networks of mail servers, as in MAIL_FROM=192.0.2.0/24,2001:db8::/32.
MAIL_FROM = [ipaddress.ip_network(text) for text in os.environ.get("MAIL_FROM", "").split(",") if text]

events = ["connect", "silence"]


def proxy(data, question):
    if question.event == "connect":
        return {"remote": SMTP, "note": "known"} if is_mail(question.client) else None
    if question.event == "silence" and not data:
        return {"remote": SMTP, "note": "silent"}
    start = b"SSH-"
    if data[: len(start)] == start:
        return {"remote": SSH, "note": "ssh"}
    # Not yet, if it may become that; an SMTP client that does not wait to be greeted is let through all the same.
    if start.startswith(data) and question.event != "silence":
        return None
    return {"remote": SMTP, "note": "early"}


def is_mail(client):
    if client is None:
        return False
    address = ipaddress.ip_address(client[0].partition("%")[0])
    return any(address in network for network in MAIL_FROM)
