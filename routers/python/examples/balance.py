"""Each connection goes to the remote that has the fewest open ones; one that fails is left out for a while.

    REMOTES=127.0.0.1:8001,127.0.0.1:8002 tproxy balance.py

tproxy tells of each connection's end, which is how the open ones are known. With several workers each has
a router that counts its own; to have one count for all, run this router once and let all workers connect:

    python3 -m tproxy.runner --listen /run/balance.sock balance.py
    tproxy --router unix:/run/balance.sock
"""

import os
import time

#: A remote that has failed gets nothing for so many seconds.
PAUSE = 10


class Balance:
    def __init__(self, remotes):
        self.open = dict.fromkeys(remotes, 0)
        self.failed = {}  # until when each is left out
        self.taken = {}  # the remote of each open connection

    def choose(self, connection, but=()):
        """The remote with the fewest, counted as this connection's; None if there is none left."""
        now = time.monotonic()
        there = [remote for remote in self.open if remote not in but]
        # If all have failed, one of them has to be tried.
        well = [remote for remote in there if self.failed.get(remote, 0) <= now]
        if not there:
            return None
        remote = min(well or there, key=self.open.__getitem__)
        self.release(connection)
        self.taken[connection] = remote
        self.open[remote] += 1
        return remote

    def fail(self, remote):
        self.failed[remote] = time.monotonic() + PAUSE

    def release(self, connection):
        remote = self.taken.pop(connection, None)
        if remote is not None:
            self.open[remote] -= 1


balance = Balance(os.environ.get("REMOTES", "127.0.0.1:8001,127.0.0.1:8002").split(","))


# A plain function, not `async` and without threads: so a connection's end is told after its question.
def proxy(data, question):
    return {"remote": balance.choose(question.connection), "connect_timeout": 2}


def proxy_error(client, error):
    """Another remote instead of the one that failed, each at most once for a connection."""
    tried = [attempt["remote"] for attempt in error.attempts]
    for remote in tried:
        balance.fail(remote)
    remote = balance.choose(client.connection, but=tried)
    return None if remote is None else {"remote": remote, "connect_timeout": 2}


def closed(connection):
    """Also of connections that a router before us decided about: these we do not know."""
    balance.release(connection.connection)
