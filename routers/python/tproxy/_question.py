"""What tproxy asks, as ``proxy(data, question)`` sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Callable

#: A day.
SECONDS_MAX = 86400

Address = tuple[str, int]


def address(value: Any) -> Address | None:
    """``[host, port]`` as a tuple; None for a client of a Unix listener."""
    return (value[0], value[1]) if value else None


class Question:
    """One question about one connection.

    Most fields are computed when they are looked at, so that a question costs nothing to
    those who do not look.
    """

    __slots__ = ("data", "params", "_id", "_received", "_tell")

    #: All bytes of the client that no verdict has consumed yet.
    data: bytes
    #: The question as it came; fields that this version of the package does not know are here.
    params: Mapping[str, Any]

    def __init__(
        self, ident: Any, params: Mapping[str, Any], data: bytes, received: float, tell: Callable[[str], None]
    ) -> None:
        self.data = data
        self.params = params
        self._id = ident
        self._received = received
        self._tell = tell

    def progress(self, seconds: float) -> None:
        """Tell tproxy that the answer takes up to so many more seconds.

        It waits that long then, but never past its own time for all questions about a connection
        (``--verdict-timeout``). Of use in tasks and threads: a plain function keeps all others waiting.
        """
        if not 0 < seconds <= SECONDS_MAX:
            raise ValueError(f"seconds must be above 0 and at most {SECONDS_MAX}, not {seconds!r}")
        params = {"id": self._id, "seconds": seconds}
        self._tell(json.dumps({"jsonrpc": "2.0", "method": "progress", "params": params}) + "\n")

    @property
    def connection(self) -> str:
        """The connection's id, unique as long as tproxy runs."""
        value: str = self.params["connection"]
        return value

    @property
    def event(self) -> str:
        """Why we are asked: ``"data"``, bytes have come."""
        value: str = self.params.get("event", "data")
        return value

    @property
    def client(self) -> Address | None:
        """The client's address; None on a Unix listener."""
        return address(self.params.get("client"))

    @property
    def local(self) -> Address | None:
        """The address that the client connected to; None on a Unix listener."""
        return address(self.params.get("local"))

    @property
    def listener(self) -> str:
        """The listener, as it was given with ``-b``."""
        value: str = self.params.get("listener", "")
        return value

    @property
    def state(self) -> Any:
        """What the last verdict on this connection gave as ``state``; None without."""
        return self.params.get("state")

    @property
    def replay(self) -> int:
        """How many routers were asked this before us: they died before they answered."""
        value: int = self.params.get("replay", 0)
        return value

    @property
    def deadline(self) -> float | None:
        """When tproxy stops waiting for the answer, on the clock of ``time.monotonic()``. ``progress``
        moves it over there, not here."""
        milliseconds = self.params.get("deadline_ms")
        return None if milliseconds is None else self._received + milliseconds / 1000

    def __repr__(self) -> str:
        return f"<Question {self.params.get('connection')} {self.event} {self.data!r}>"
