"""The socket to tproxy: JSON lines in, JSON lines and descriptors out."""

from __future__ import annotations

import array
import fcntl
import json
import os
import select
import signal
import socket
import sys
import threading
from typing import Any

from ._verdict import Attachment

RECV_BYTES = 256 * 1024

_taken: Wire | None = None


def log(text: str) -> None:
    """One line on stderr, which tproxy copies to its log."""
    try:
        sys.stderr.write(f"tproxy: {text}\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass


def take_over() -> Wire:
    """Move the socket away from fd 0 and 1, so that the script's own input and output are harmless.

    0 becomes /dev/null and 1 a copy of stderr: a stray ``print`` is a line in the log, not a broken
    protocol. Happens once; later calls give the same wire.
    """
    global _taken
    if _taken is not None:
        return _taken
    try:
        fd = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 64)
    except OSError:
        fd = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3)  # a low limit on descriptors
    try:
        sock = socket.socket(fileno=fd)
        sock.getpeername()
    except OSError:
        os.close(fd)
        raise NotASocket from None
    sock.setblocking(True)  # whoever had it before us may have changed that
    # A forked child (of multiprocessing, say) that outlives us must not keep the wire open.
    os.register_at_fork(after_in_child=sock.close)
    try:
        # Ctrl-C goes to the whole terminal; tproxy decides when its routers end.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:
        pass  # not in the main thread
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    try:
        os.dup2(2, 1)
    except OSError:  # started without a stderr
        os.dup2(null, 1)
    os.close(null)
    # A line of the log is wanted when it is printed, not when a buffer is full.
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(line_buffering=True)
    _taken = Wire(sock)
    return _taken


class NotASocket(Exception):
    """Standard input is not tproxy's socket."""


class Outbox:
    """Lines of any thread, and of a signal handler, for one wire.

    They leave in the order in which they came here. Nobody writes between the two halves of
    another's line: whoever holds the lock writes for all.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        #: Appending here is all that an answer needs; ``flush`` comes once for all of a batch.
        self.lines: list[str] = []
        self._lock = threading.Lock()
        self._is_closed = False

    def put(self, line: str) -> None:
        """Write a line, or leave it to whoever is writing."""
        self.lines.append(line)
        self._write_if_free()

    def put_through(self, line: str) -> None:
        """Write a line, and return when it is written."""
        self.lines.append(line)
        with self._lock:  # whoever has it may have taken our line along, and be writing it
            self._write()
        self._write_if_free()

    def put_with(self, line: str, attachment: Attachment) -> None:
        """Write a line that has a descriptor with it, in a write of its own."""
        with self._lock:
            self._write()
            if self._is_closed:
                attachment.close()
            else:
                self._wire.write_with(line, attachment)
        self._write_if_free()

    def flush(self) -> None:
        """Write all that is there, and return when it is written."""
        if self.lines:
            with self._lock:
                self._write()
            self._write_if_free()

    def close(self) -> None:
        """Close the socket. What other threads still put here is dropped."""
        with self._lock:
            self._write()
            self._is_closed = True
            self._wire.sock.close()

    def _write_if_free(self) -> None:
        # Asked again after the lock is free: a line may have come when it was just being given up,
        # or of a signal handler, which must not wait for the lock of the thread that it interrupts.
        while self.lines and self._lock.acquire(blocking=False):
            try:
                self._write()
            finally:
                self._lock.release()

    def _write(self) -> None:
        lines = self.lines[:]
        if lines:
            del self.lines[: len(lines)]  # not clear(): others may have appended
            if not self._is_closed:
                self._wire.write("".join(lines))


class Wire:
    """Reads many messages at once; writes in the order in which it is told to."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        #: No more questions will come.
        self.ended = False
        self._buffer = bytearray(RECV_BYTES)
        self._view = memoryview(self._buffer)
        self._rest = bytearray()
        self._recv_into = sock.recv_into
        self._scan = json.JSONDecoder().raw_decode

    def read(self, flags: int = 0) -> list[Any]:
        """The messages of one read: none if no line is complete, or if the wire has ended."""
        try:
            count = self._recv_into(self._buffer, 0, flags)
        except BlockingIOError:
            return []
        except ConnectionError:
            count = 0
        if not count:
            self.ended = True
            return []
        end = self._buffer.rfind(b"\n", 0, count) + 1
        if not end:
            self._rest += self._view[:count]
            return []
        if self._rest:
            self._rest += self._view[:end]
            lines = self._rest
            self._rest = bytearray(self._view[end:count])
            return self._messages(lines)
        if end < count:
            self._rest += self._view[end:count]
        return self._messages(self._view[:end])

    def _messages(self, lines: Any) -> list[Any]:
        """Parse whole lines without splitting them: the parser says where a message ended."""
        try:
            text = str(lines, "utf-8")
        except UnicodeDecodeError:
            text = str(lines, "utf-8", "surrogateescape")
        messages: list[Any] = []
        scan = self._scan
        position, length = 0, len(text)
        while position < length:
            try:
                message, end = scan(text, position)
                if text[end] == "\n":
                    position = end + 1
                    messages.append(message)
                    continue
            except (ValueError, RecursionError):
                pass
            end = text.index("\n", position)
            line = text[position:end].strip()
            position = end + 1
            if line:
                try:
                    messages.append(json.loads(line))
                except (ValueError, RecursionError) as error:
                    log(f"skipped a line that is not JSON ({error}): {line[:200]!a}")
        return messages

    def write(self, text: str) -> None:
        """Write whole lines. If nobody reads them any more, that is the end, as EOF is."""
        try:
            self.sock.sendall(text.encode())
        except ConnectionError:
            self.ended = True

    def write_with(self, text: str, attachment: Attachment) -> None:
        """Write one line with a descriptor, in a write of its own: the order of the descriptors
        is all that links them to their verdicts."""
        try:
            data = text.encode()
            sent = self.send_with(data, attachment)
            self.sock.sendall(data[sent:])
        except ConnectionError:
            self.ended = True
        finally:
            attachment.close()

    def send_with(self, data: bytes | memoryview, attachment: Attachment, flags: int = 0) -> int:
        rights = array.array("i", [attachment.fd]).tobytes()
        return self.sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], flags)

    def is_hung_up(self) -> bool:
        """Whether the other end is closed altogether, and not only done with writing."""
        poll = select.poll()
        poll.register(self.sock.fileno(), 0)
        return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
