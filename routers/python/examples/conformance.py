"""The router of the protocol's transcripts: the same rules in every language.

It is a program of its own, not a script for `tproxy SCRIPT.py`:

    tproxy --router 'python3 conformance.py'
"""

import os
import re
import sys

# So that it runs from a checkout, without the package being installed.
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

import tproxy  # noqa: E402


def proxy(data, question):
    if question.state == {"n": 1}:
        return {"close": b"n=1 " + data}
    line, newline, _ = data.partition(b"\n")
    if not newline:
        return None
    word, _, rest = line.partition(b" ")
    if word == b"remote" and rest:
        return {"remote": rest}
    if line == b"close":
        return {"close": True}
    if word == b"bye":
        return {"close": rest + b"\n"}
    if word == b"file" and rest:
        return {"file": rest}
    if word == b"wait" and re.fullmatch(rb"[1-9][0-9]*", rest):
        count = int(rest)
        return {"wait": count} if len(data) < count else {"close": data}
    if line == b"error":
        raise RuntimeError("asked to fail")
    if line == b"state":
        return {"reply": b"more\n", "consume": 6, "state": {"n": 1}}
    return {"close": b"?\n"}


def proxy_error(client, error):
    return {"close": "502 " + error.type + "\n"}


if __name__ == "__main__":
    tproxy.run(proxy, proxy_error=proxy_error, name="conformance")
