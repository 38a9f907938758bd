"""The loop for plain functions: one question after the other, in one thread."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Mapping
from typing import Any

from . import _notices
from ._listen import accept
from ._question import Question
from ._router import Router, answer_text, cancelled_id, cancelled_line, failure_line, is_hello, result_line
from ._streams import Streams
from ._wire import Outbox, Wire

#: Answers wait for those that were read along with them, but not longer than this: a batch of
#: slow questions must not look like a router that hangs.
BATCH_SECONDS = 0.002

#: So many remotes are kept as ready answers; a script may make up remotes without end.
READY_ANSWERS_MAX = 4096


def serve_plain(router: Router, wire: Wire) -> None:
    plain = Plain(router, wire)
    try:
        while plain.is_open:
            plain.step()
    finally:
        router.finish_streams()
        plain.end()


class Plain:
    """One conversation with a tproxy."""

    def __init__(self, router: Router, wire: Wire) -> None:
        self.wire = wire
        self._router = router
        self._outbox = Outbox(wire)
        self._put = self._outbox.put
        self._streams = Streams(router, self._outbox.put_through)
        #: Verdicts that are but a remote, as the rest of their line.
        self._ready: dict[Any, str] = {}
        self._cancelled: set[int] = set()
        #: Read while others were still being answered, and when the first of it was.
        self._later: list[Any] = []
        self._received_later = 0.0

    @property
    def is_open(self) -> bool:
        return bool(self._later) or not self.wire.ended

    @property
    def has_more(self) -> bool:
        """Whether a step has something to do without anything to read."""
        return bool(self._later)

    def end(self) -> None:
        _notices.end(self._put)
        self._outbox.flush()  # the function ended the process: those before it have their answers

    def close(self) -> None:
        """End, and close the socket, which is one of several."""
        self.end()
        self._outbox.close()

    def step(self) -> None:
        """Answer what is there, or what one read gives; the answers of one read in one write.

        This decides how many connections a second a router can take: the common question and the
        common verdict go through as few steps as can be.
        """
        wire, outbox = self.wire, self._outbox
        answers = outbox.lines
        cancelled, ready = self._cancelled, self._ready
        proxy = self._router.proxy
        wants_question = self._router.wants_question
        monotonic = time.monotonic
        if self._later:
            messages, self._later, received = self._later, [], self._received_later
        else:
            messages = wire.read()
            received = monotonic()
        written = monotonic()
        for message in messages:
            try:
                ident = message["id"]
                params = message["params"]
                data = params["data"].encode("latin-1")
                is_plain = message["method"] == "proxy" and type(ident) is int and not cancelled
            except (KeyError, TypeError, AttributeError, UnicodeEncodeError):
                is_plain = False
            if is_plain:
                try:
                    if wants_question:
                        verdict = proxy(data, Question(ident, params, data, received, self._put))
                    else:
                        verdict = proxy(data)
                except Exception as error:
                    answers.append(failure_line(ident, error))
                else:
                    tail = None
                    if type(verdict) is dict and len(verdict) == 1:
                        try:  # faster than contextlib.suppress
                            tail = ready.get(verdict["remote"])
                        except (KeyError, TypeError):
                            pass
                    if tail is not None:
                        answers.append(f'{{"jsonrpc":"2.0","id":{ident}{tail}')
                    else:
                        self._finish(ident, "proxy", verdict)
            else:
                self._handle(message, received)
            if monotonic() - written > BATCH_SECONDS:
                outbox.flush()
                # Whoever has left meanwhile need not be decided about.
                more = wire.read(socket.MSG_DONTWAIT)
                cancelled.update(ident for ident in map(cancelled_id, more) if ident is not None)
                written = monotonic()
                if not self._later:
                    self._received_later = written
                self._later += more
                if wire.ended and wire.is_hung_up():
                    self._later = []
                    return  # nobody is there to hear the rest
        outbox.flush()

    def _finish(self, ident: Any, method: str, returned: Any) -> None:
        """Answer with any verdict, and keep it ready if it is but a remote."""
        try:
            text, attachment = answer_text(method, returned)
        except Exception as error:
            self._outbox.lines.append(failure_line(ident, error))
            return
        if attachment is not None:
            self._outbox.put_with(result_line(ident, text), attachment)
            return
        self._outbox.lines.append(result_line(ident, text))
        if type(returned) is dict and len(returned) == 1:
            remote = returned.get("remote")
            if type(remote) is str or (
                type(remote) is tuple and all(type(part) in (str, int, bytes) for part in remote)
            ):
                if len(self._ready) >= READY_ANSWERS_MAX:
                    self._ready.clear()
                self._ready[remote] = f',"result":{text}}}\n'

    def _handle(self, message: Mapping[str, Any], received: float) -> None:
        """Whatever is not the common question."""
        router, answers = self._router, self._outbox.lines
        left = cancelled_id(message)
        if left is not None:
            self._cancelled.discard(left)
        elif router.is_closed(message):
            router.tell_closed(message)
        elif router.is_stream(message):
            self._streams.begin(message)
        elif not router.is_question(message):
            answers.append(router.other(message))
            if is_hello(message):
                self._streams.greeted(message)
                _notices.begin(self._put)
        elif message["id"] in self._cancelled:
            answers.append(cancelled_line(message["id"]))
        else:
            try:
                returned = router.call(message, received, self._put)
            except Exception as error:
                answers.append(failure_line(message["id"], error))
            else:
                self._finish(message["id"], message["method"], returned)


def serve_plain_listening(router: Router, listener: socket.socket) -> None:
    """All conversations in one thread: plain functions need not be safe for several."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    listener.setblocking(False)  # another process may share it, and be faster
    conversations: dict[int, Plain] = {}
    try:
        while True:
            due = {fd for fd, plain in conversations.items() if plain.has_more}
            due.update(fd for fd, _ in poll.poll(0 if due else None))
            for fd in due:
                if fd == listener.fileno():
                    wire = accept(listener)
                    if wire is not None:
                        conversations[wire.sock.fileno()] = Plain(router, wire)
                        poll.register(wire.sock, select.POLLIN)
                    continue
                plain = conversations[fd]
                plain.step()
                if not plain.is_open:
                    poll.unregister(fd)
                    del conversations[fd]
                    plain.close()
    finally:
        for plain in conversations.values():
            plain.end()
