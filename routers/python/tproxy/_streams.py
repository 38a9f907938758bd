"""Rewriting: dialling back to tproxy, and running the user's functions on the streams."""

from __future__ import annotations

import contextlib
import queue
import resource
import socket
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Callable

from ._router import Router, log_failure
from ._verdict import json_text
from ._wire import log
from .rewrite import RewriteIO

if TYPE_CHECKING:
    from .rewrite import AsyncRewriteIO

#: How long an idle thread waits for another stream.
IDLE_SECONDS = 10

#: When tproxy is done with us its streams have ended: what functions still do then has so long.
FINISH_SECONDS = 2


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


class Pool:
    """Threads for plain functions: one for each stream, made when needed, and a bound on them.

    What is bounded is connections, not streams: were all threads taken by requests, no response could
    ever come, and none of the requests would end.
    """

    def __init__(self, threads: int, directions: int) -> None:
        self._connections_max = max(1, threads // max(1, directions))
        self._lock = threading.Lock()
        self._over = threading.Condition(self._lock)
        #: How many streams of a connection run.
        self._running: dict[Any, int] = {}
        self._waiting: OrderedDict[Any, list[Callable[[], None]]] = OrderedDict()
        self._idle = 0
        self._work: queue.SimpleQueue[tuple[Any, Callable[[], None]]] = queue.SimpleQueue()

    def start(self, connection: Any, work: Callable[[], None]) -> None:
        with self._lock:
            if connection in self._running or len(self._running) < self._connections_max:
                self._run(connection, work)
            else:
                self._waiting.setdefault(connection, []).append(work)

    def _run(self, connection: Any, work: Callable[[], None]) -> None:
        self._running[connection] = self._running.get(connection, 0) + 1
        if self._idle:
            self._idle -= 1
            self._work.put((connection, work))
        else:
            # Daemons: a function that hangs must not keep the process when tproxy is done with it.
            threading.Thread(target=self._serve, args=(connection, work), name="stream", daemon=True).start()

    def _serve(self, connection: Any, work: Callable[[], None]) -> None:
        while True:
            work()
            with self._lock:
                self._finished(connection)
                self._idle += 1
            del work  # it holds the function's last stream
            try:
                connection, work = self._work.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._work.empty():
                        self._idle -= 1
                        return
                connection, work = self._work.get()

    def _finished(self, connection: Any) -> None:
        left = self._running[connection] - 1
        if left:
            self._running[connection] = left
            return
        del self._running[connection]
        if self._waiting:
            following, works = self._waiting.popitem(last=False)
            for work in works:
                self._run(following, work)
        elif not self._running:
            self._over.notify_all()

    def finish(self) -> None:
        """Wait a little for functions that have yet to see that their streams have ended."""
        deadline = time.monotonic() + FINISH_SECONDS
        with self._lock:
            while self._running and (left := deadline - time.monotonic()) > 0:
                self._over.wait(left)


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

        def work() -> None:
            is_clean = False
            try:
                function(stream, stream.extra) if wants_extra else function(stream)
                is_clean = True
            except BaseException as error:  # an exit here would end the thread and nothing else
                log_unless_gone(stream, error)
            stream._end(is_clean)

        self._router.stream_pool.start((id(self), stream.connection), work)

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
