"""Everything goes to one remote; with CACHE=1 the verdict holds for further connections."""

import os

VERDICT = {"remote": os.environ["REMOTE"]}
if os.environ.get("CACHE"):
    VERDICT["cache"] = {"key": "host", "ttl": 60}


def proxy(data):
    return VERDICT if b"\r\n\r\n" in data else None
