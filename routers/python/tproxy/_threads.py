"""Plain functions in several threads: for scripts that wait, for a database say."""

from __future__ import annotations

import queue
import socket
import threading
import time
from typing import Any

from . import _notices
from ._listen import PAUSE_SECONDS, accept
from ._router import Router, answer_text, cancelled_id, cancelled_line, failure_line, is_hello, log_failure, result_line
from ._streams import Streams
from ._wire import Outbox, Wire, log


class Pool:
    """The threads, and what they are to do: a message, when it was read, and whose it is."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._waiting: queue.SimpleQueue[tuple[Any, float, Conversation] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        for n in range(router.threads):
            # Daemons: a function that hangs must not keep the process when tproxy is done with it.
            thread = threading.Thread(target=self._work, name=f"router-{n}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # a limit of the system's
                if not self._threads:
                    raise
                log(f"{n} threads instead of {router.threads}: {error}")
                break
            self._threads.append(thread)

    def put(self, message: Any, received: float, conversation: Conversation) -> None:
        self._waiting.put((message, received, conversation))

    def finish(self) -> None:
        """Wait until all is done."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            item = self._waiting.get()
            if item is None:
                return
            message, received, conversation = item
            if "id" in message:
                conversation.answer(message, received)
            else:
                try:
                    self._router.tell_closed(message)
                except BaseException as error:  # an exit here would end the thread and nothing else
                    log_failure(error)


class Conversation:
    """One with a tproxy: a thread reads, those of the pool answer."""

    def __init__(self, router: Router, wire: Wire, pool: Pool) -> None:
        self.wire = wire
        self.outbox = Outbox(wire)
        self._router = router
        self._pool = pool
        self._streams = Streams(router, self.outbox.put_through)
        self._cancelled: set[int] = set()
        self._open_ids: set[Any] = set()

    def read(self) -> None:
        """Read until the end."""
        router, wire = self._router, self.wire
        put = self.outbox.put
        try:
            while not wire.ended:
                for message in wire.read():
                    left = cancelled_id(message)
                    if left is not None:
                        if left in self._open_ids:
                            self._cancelled.add(left)
                            if left not in self._open_ids:  # answered in between
                                self._cancelled.discard(left)
                    elif router.is_question(message):
                        self._open_ids.add(message["id"])
                        self._pool.put(message, time.monotonic(), self)
                    elif router.is_closed(message):
                        self._pool.put(message, 0, self)
                    elif router.is_stream(message):
                        self._streams.begin(message)
                    else:
                        text = router.other(message)
                        if text:
                            put(text)
                        if is_hello(message):
                            self._streams.greeted(message)
                            _notices.begin(put)
        finally:
            _notices.end(put)

    def answer(self, message: Any, received: float) -> None:
        ident, method = message["id"], message["method"]
        attachment = None
        if ident in self._cancelled:
            self._cancelled.discard(ident)
            text = cancelled_line(ident)
        else:
            try:
                returned = self._router.call(message, received, self.outbox.put)
                text, attachment = answer_text(method, returned)
                text = result_line(ident, text)
            except BaseException as error:  # an exit here would end the thread and nothing else
                text = failure_line(ident, error)
        if attachment is None:
            self.outbox.put(text)
        else:
            self.outbox.put_with(text, attachment)
        self._open_ids.discard(ident)
        self._cancelled.discard(ident)

    def read_and_close(self) -> None:
        """The same for one socket of several: it is closed once all is answered."""
        try:
            self.read()
            while self._open_ids and not self.wire.is_hung_up():
                time.sleep(0.01)
        finally:
            self.outbox.close()


def serve_threads(router: Router, wire: Wire) -> None:
    pool = Pool(router)
    conversation = Conversation(router, wire, pool)
    conversation.read()
    router.finish_streams()
    if wire.is_hung_up():
        return  # nobody is there to hear the rest
    pool.finish()
    conversation.outbox.flush()


def serve_threads_listening(router: Router, listener: socket.socket) -> None:
    pool = Pool(router)
    while True:
        wire = accept(listener)
        if wire is not None:
            conversation = Conversation(router, wire, pool)
            try:
                threading.Thread(target=conversation.read_and_close, name="reader", daemon=True).start()
            except RuntimeError as error:  # a limit of the system's: tproxy comes again
                log(f"cannot serve tproxy: {error}")
                conversation.outbox.close()
                time.sleep(PAUSE_SECONDS)
