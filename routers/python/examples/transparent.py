"""Everything goes to one remote, whatever it is.

    REMOTE=127.0.0.1:8000 tproxy transparent.py
"""

import os

REMOTE = os.environ.get("REMOTE", "127.0.0.1:8000")


def proxy(data):
    return {"remote": REMOTE}
