"""Plain functions in several threads: for scripts that wait, for a database say."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from typing import Any, Optional

from ._router import Router, answer_text, cancelled_id, cancelled_line, failure_line, result_line
from ._verdict import Attachment
from ._wire import Wire

Answer = tuple[str, Optional[Attachment]]


class Outbox:
    """Answers of many threads on one wire. Whoever finds it free writes for all."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._waiting: deque[Answer] = deque()
        self._lock = threading.Lock()

    def put(self, text: str, attachment: Attachment | None = None) -> None:
        self._waiting.append((text, attachment))
        # Asked again after the lock is free: an answer may have come when it was just being given up.
        while self._waiting and self._lock.acquire(blocking=False):
            try:
                self._write()
            finally:
                self._lock.release()

    def _write(self) -> None:
        lines: list[str] = []
        while self._waiting:
            text, attachment = self._waiting.popleft()
            if attachment is None:
                lines.append(text)
                continue
            if lines:
                self._wire.write("".join(lines))
                lines = []
            self._wire.write_with(text, attachment)
        if lines:
            self._wire.write("".join(lines))


def serve_threads(router: Router, wire: Wire) -> None:
    questions: queue.SimpleQueue[tuple[Any, float] | None] = queue.SimpleQueue()
    outbox = Outbox(wire)
    cancelled: set[int] = set()
    open_ids: set[Any] = set()

    def answer() -> None:
        while True:
            item = questions.get()
            if item is None:
                return
            message, received = item
            ident, method = message["id"], message["method"]
            attachment = None
            if ident in cancelled:
                cancelled.discard(ident)
                text = cancelled_line(ident)
            else:
                try:
                    text, attachment = answer_text(method, router.call(message, received, outbox.put))
                    text = result_line(ident, text)
                except BaseException as error:  # an exit here would end the thread and nothing else
                    text = failure_line(ident, error)
            open_ids.discard(ident)
            cancelled.discard(ident)
            outbox.put(text, attachment)

    # Daemons: a function that hangs must not keep the process when tproxy is done with it.
    threads = [threading.Thread(target=answer, name=f"router-{n}", daemon=True) for n in range(router.threads)]
    for thread in threads:
        thread.start()
    while not wire.ended:
        for message in wire.read():
            left = cancelled_id(message)
            if left is not None:
                if left in open_ids:
                    cancelled.add(left)
                    if left not in open_ids:  # answered in between
                        cancelled.discard(left)
            elif router.is_question(message):
                open_ids.add(message["id"])
                questions.put((message, time.monotonic()))
            else:
                text = router.other(message)
                if text:
                    outbox.put(text)
    if wire.is_hung_up():
        return  # nobody is there to hear the rest
    for _ in threads:
        questions.put(None)
    for thread in threads:
        thread.join()
