"""Threads for rewriters that are plain functions."""

from __future__ import annotations

import queue
import threading
import time
from collections import OrderedDict
from typing import Any, Callable, NamedTuple

from ._wire import log

#: How long an idle thread waits for another stream.
IDLE_SECONDS = 10

#: When tproxy is done with us its streams have ended: what functions still do then has so long.
FINISH_SECONDS = 2

#: Why streams wait, or are aborted, is logged so often: it goes for many of them.
LOG_SECONDS = 60


class Work(NamedTuple):
    """What is to be done for a stream."""

    run: Callable[[], None]
    #: Instead of it, if there is no thread for it and none will be free.
    refuse: Callable[[], None]


class Pool:
    """Threads for plain functions: one for each stream, made when needed, and a bound on them.

    What is bounded is connections, not streams: were all threads taken by requests, no response could
    ever come, and none of the requests would end.
    """

    def __init__(self, threads: int, directions: int) -> None:
        self._threads_max = threads
        self._connections_max = max(1, threads // max(1, directions))
        self._lock = threading.Lock()
        self._over = threading.Condition(self._lock)
        #: How many streams of a connection run.
        self._running: dict[Any, int] = {}
        #: In the order in which they will.
        self._waiting: OrderedDict[Any, list[Work]] = OrderedDict()
        self._idle = 0
        self._work: queue.SimpleQueue[tuple[Any, Work]] = queue.SimpleQueue()
        #: By what was logged: not again before this.
        self._quiet_until: dict[str, float] = {}

    def start(self, connection: Any, work: Work) -> None:
        with self._lock:
            self._waiting.setdefault(connection, []).append(work)
            if connection in self._running:
                # Its other stream may wait for this one.
                self._waiting.move_to_end(connection, last=False)
            self._run_waiting()

    def _run_waiting(self) -> None:
        """Give threads to what waits, as far as they go."""
        while self._waiting:
            connection, works = next(iter(self._waiting.items()))
            if connection not in self._running and len(self._running) >= self._connections_max:
                is_for = f"stream_threads={self._threads_max} is for {self._connections_max} connections at a time"
                self._log(f"streams wait for a thread: {is_for}")
                return
            try:
                self._run(connection, works[0])
            except RuntimeError as error:  # a limit of the system's
                if any(running not in self._waiting for running in self._running):
                    # That one lacks nothing, so it will end, and leave its thread.
                    self._log(f"streams wait for a thread: {error}")
                    return
                self._log(f"streams are aborted: {error}")
                works[0].refuse()
            del works[0]
            if not works:
                del self._waiting[connection]

    def _run(self, connection: Any, work: Work) -> None:
        if self._idle:
            self._idle -= 1
            self._work.put((connection, work))
        else:
            # Daemons: a function that hangs must not keep the process when tproxy is done with it.
            threading.Thread(target=self._serve, args=(connection, work), name="stream", daemon=True).start()
        self._running[connection] = self._running.get(connection, 0) + 1

    def _serve(self, connection: Any, work: Work) -> None:
        while True:
            work.run()
            with self._lock:
                self._idle += 1
                self._finished(connection)
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
        self._running[connection] -= 1
        if not self._running[connection]:
            del self._running[connection]
        self._run_waiting()
        if not self._running:
            self._over.notify_all()

    def _log(self, text: str) -> None:
        now = time.monotonic()
        if now >= self._quiet_until.get(text, now):
            self._quiet_until[text] = now + LOG_SECONDS
            log(text)

    def finish(self) -> None:
        """Wait a little for functions that have yet to see that their streams have ended."""
        deadline = time.monotonic() + FINISH_SECONDS
        with self._lock:
            while self._running and (left := deadline - time.monotonic()) > 0:
                self._over.wait(left)
