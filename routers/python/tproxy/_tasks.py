"""``async def proxy``: a task for each question, on the loop that reads the wire."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any

from . import _notices
from ._async_streams import AsyncStreams
from ._listen import accept
from ._router import Router, answer_text, cancelled_id, cancelled_line, failure_line, is_hello, log_failure, result_line
from ._verdict import Attachment
from ._wire import Wire

#: Flags are set for each call: O_NONBLOCK would be seen by other processes that hold the socket.
DONTWAIT = socket.MSG_DONTWAIT


def serve_tasks(router: Router, wire: Wire) -> None:
    asyncio.run(Tasks(router, wire).serve())


def serve_tasks_listening(router: Router, listener: socket.socket) -> None:
    asyncio.run(listen(router, listener))


async def listen(router: Router, listener: socket.socket) -> None:
    """All conversations on one loop."""
    conversations: set[asyncio.Task[None]] = set()

    def accept_one() -> None:
        wire = accept(listener)
        if wire is not None:
            conversation = asyncio.ensure_future(Tasks(router, wire).serve_and_close())
            conversations.add(conversation)
            conversation.add_done_callback(conversations.discard)

    listener.setblocking(False)
    asyncio.get_running_loop().add_reader(listener.fileno(), accept_one)
    await asyncio.Event().wait()  # for ever: a signal ends us


class Tasks:
    """One conversation with a tproxy."""

    def __init__(self, router: Router, wire: Wire) -> None:
        self._router = router
        self._wire = wire
        self._tasks: dict[Any, asyncio.Task[None]] = {}
        #: What is to be written: texts that may be joined, and descriptors with a line of their own.
        self._waiting: deque[tuple[str, Attachment | None]] = deque()
        #: What the socket did not take yet, and the descriptor that goes with its first byte.
        self._unsent: memoryview = memoryview(b"")
        self._unsent_attachment: Attachment | None = None
        self._is_flush_due = False
        self._is_writer = False
        self._is_closed = False
        self._streams = AsyncStreams(router, self._put_through_from_thread, self._put_through)

    async def serve_and_close(self) -> None:
        """Serve one socket of several."""
        try:
            await self.serve()
        finally:
            self._is_closed = True
            self._wire.sock.close()

    async def serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        fd = self._wire.sock.fileno()
        self._loop.add_reader(fd, self._read)
        await self._ended
        self._loop.remove_reader(fd)
        _notices.end(self._put_from_anywhere)
        tasks = list(self._tasks.values())
        if self._wire.is_hung_up():
            for task in tasks:  # nobody is there to hear the rest
                task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._streams.finish()
        await self._loop.run_in_executor(None, self._router.finish_streams)
        self._flush()
        while (self._unsent or self._waiting) and not self._wire.is_hung_up():
            await asyncio.sleep(0.01)

    def _read(self) -> None:
        messages = self._wire.read(DONTWAIT)
        received = time.monotonic()
        for message in messages:
            left = cancelled_id(message)
            if left is not None:
                task = self._tasks.get(left)
                if task is not None:
                    task.cancel()
            elif self._router.is_question(message):
                self._start(message["id"], self._answer(message, received))
            elif self._router.is_closed(message):
                returned = self._router.tell_closed(message)
                if hasattr(returned, "__await__"):
                    self._start(object(), self._await_closed(returned))
            elif self._router.is_stream(message):
                self._streams.begin(message)
            else:
                text = self._router.other(message)
                if text:
                    self._put(text)
                if is_hello(message):
                    self._streams.greeted(message)
                    _notices.begin(self._put_from_anywhere)
        if self._wire.ended:
            self._end()

    def _start(self, ident: Any, answer: Coroutine[Any, Any, None]) -> None:
        task: asyncio.Task[None]
        if sys.version_info >= (3, 12):
            # Most functions do not wait at all: these are answered here and now.
            task = asyncio.Task(answer, loop=self._loop, eager_start=True)
            if task.done():
                return
        else:
            task = self._loop.create_task(answer)
        self._tasks[ident] = task
        task.add_done_callback(lambda _: self._finished(ident, task))

    def _finished(self, ident: Any, task: asyncio.Task[None]) -> None:
        self._tasks.pop(ident, None)
        if task.cancelled() and type(ident) is not object:
            self._put(cancelled_line(ident))  # before it had started

    async def _await_closed(self, returned: Any) -> None:
        try:
            await returned
        except Exception as error:
            log_failure(error)

    async def _answer(self, message: Any, received: float) -> None:
        ident, method = message["id"], message["method"]
        attachment = None
        try:
            returned = self._router.call(message, received, self._put)
            if hasattr(returned, "__await__"):
                returned = await returned
            text, attachment = answer_text(method, returned)
            text = result_line(ident, text)
        except asyncio.CancelledError:
            text = cancelled_line(ident)
        except Exception as error:
            text = failure_line(ident, error)
        self._put(text, attachment)

    def _put(self, text: str, attachment: Attachment | None = None) -> None:
        self._waiting.append((text, attachment))
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _put_from_anywhere(self, text: str) -> None:
        """The same from other threads and from signal handlers, which do not wake the loop."""
        self._waiting.append((text, None))
        try:
            self._loop.call_soon_threadsafe(self._flush)
        except RuntimeError:
            pass  # the loop is closed: nobody is there to hear it

    async def _put_through(self, text: str) -> None:
        """Write a line, and return when it is written."""
        self._waiting.append((text, None))
        self._flush()
        while (self._unsent or self._waiting) and not self._is_closed:
            await asyncio.sleep(0.005)

    def _put_through_from_thread(self, text: str) -> None:
        """The same for a function that is not on the loop."""
        try:
            asyncio.run_coroutine_threadsafe(self._put_through(text), self._loop).result()
        except RuntimeError:
            pass  # the loop is closed: nobody is there to hear it

    def _flush(self) -> None:
        """Write what has gathered in this turn of the loop; what the socket does not take, later."""
        self._is_flush_due = False
        if self._is_closed:
            return  # of a task that somebody else keeps
        try:
            while self._unsent or self._waiting:
                if not self._unsent:
                    self._gather()
                if self._unsent_attachment is not None:
                    sent = self._wire.send_with(self._unsent, self._unsent_attachment, DONTWAIT)
                    self._unsent_attachment.close()
                    self._unsent_attachment = None
                else:
                    sent = self._wire.sock.send(self._unsent, DONTWAIT)
                self._unsent = self._unsent[sent:]
        except BlockingIOError:
            if not self._is_writer:
                self._is_writer = True
                self._loop.add_writer(self._wire.sock.fileno(), self._flush)
            return
        except ConnectionError:
            self._unsent = memoryview(b"")
            self._waiting.clear()
            self._end()
        if self._is_writer:
            self._is_writer = False
            self._loop.remove_writer(self._wire.sock.fileno())

    def _gather(self) -> None:
        """Take the next write: one line with its descriptor, or all lines up to the next such."""
        lines: list[str] = []
        while self._waiting:
            text, attachment = self._waiting[0]
            if attachment is not None:
                if not lines:
                    self._waiting.popleft()
                    lines.append(text)
                    self._unsent_attachment = attachment
                break
            self._waiting.popleft()
            lines.append(text)
        self._unsent = memoryview("".join(lines).encode())

    def _end(self) -> None:
        self._wire.ended = True
        if not self._ended.done():
            self._ended.set_result(None)
