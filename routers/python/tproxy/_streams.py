"""Rewriting: dialling back to tproxy, and running the user's functions on the streams."""

from __future__ import annotations

import contextlib
import resource
import socket
from typing import TYPE_CHECKING, Any, Callable

from ._pool import Work
from ._router import Router, log_failure
from ._verdict import json_text
from ._wire import log
from .rewrite import RewriteIO

if TYPE_CHECKING:
    from .rewrite import AsyncRewriteIO


def dial(address: str, token: str) -> socket.socket:
    """Connect to where tproxy takes streams, and say whose this one is."""
    path = address.removeprefix("unix:")
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect("\0" + path[1:] if path.startswith("@") else path)
        sock.sendall(f"{token}\n".encode())
    except BaseException:
        sock.close()
        raise
    return sock


def raise_descriptor_limit() -> None:
    """A stream is a descriptor, and tproxy has many more connections than the usual 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Streams:
    """The streams of one conversation with a tproxy.

    ``write`` puts a line on the wire and returns when it is written.
    """

    def __init__(self, router: Router, write: Callable[[str], None]) -> None:
        self._router = router
        self._write = write
        self._address = ""
        if router.rewrites:
            raise_descriptor_limit()

    def greeted(self, message: Any) -> None:
        """``hello`` has come."""
        params = message.get("params")
        address = params.get("streams") if isinstance(params, dict) else None
        self._address = address if isinstance(address, str) and address.startswith("unix:") else ""

    def dial(self, params: dict[str, Any]) -> socket.socket | None:
        try:
            return dial(self._address, str(params["token"]))
        except (OSError, KeyError, ValueError) as error:
            # tproxy resets the connection when its time is up.
            log(f"cannot dial back to tproxy at {self._address or 'no address'} to rewrite: {error}")
            return None

    def begin(self, message: Any) -> None:
        """A stream is to be rewritten, by a plain function in a thread of its own."""
        params = message["params"]
        function, wants_extra = self._router.rewriter(message["method"])
        sock = self.dial(params)
        if sock is None:
            return
        say = self.sayer(params)
        stream = RewriteIO(sock, params, say)

        def run() -> None:
            is_clean = False
            try:
                function(stream, stream.extra) if wants_extra else function(stream)
                is_clean = True
            except BaseException as error:  # an exit here would end the thread and nothing else
                log_unless_gone(stream, error)
            stream._end(is_clean)

        self._router.stream_pool.start((id(self), stream.connection), Work(run, lambda: stream._end(False)))

    def sayer(self, params: dict[str, Any]) -> Callable[[str], None]:
        text = json_text({"token": params.get("token")})

        def say(method: str) -> None:
            self._write(f'{{"jsonrpc":"2.0","method":"{method}","params":{text}}}\n')

        return say


def log_unless_gone(stream: RewriteIO | AsyncRewriteIO, error: BaseException) -> None:
    """A function that only fell over the end of its connection has nothing to tell."""
    if stream._is_aborted or (stream._is_broken and isinstance(error, ConnectionError)):
        return
    log_failure(error)
