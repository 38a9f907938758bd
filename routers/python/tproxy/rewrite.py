"""The streams that ``rewrite_request`` and ``rewrite_response`` get."""

from __future__ import annotations

import contextlib
import io
import socket
from typing import TYPE_CHECKING, Any, Callable, Union

if TYPE_CHECKING:
    import asyncio

Buffer = Union[bytes, bytearray, memoryview, str]

#: What one ``recv()`` reads at most, unless told.
RECV_BYTES = 64 * 1024


class RewriteIO(io.RawIOBase):
    """One direction of a connection: read what its source sends, write what its destination is to get.

    It goes well under ``io.BufferedReader`` and ``io.BufferedWriter``. When the function returns, the
    stream ends as it should; when it raises, the connection is reset.
    """

    def __init__(self, sock: socket.socket, params: dict[str, Any], say: Callable[[str], None]) -> None:
        super().__init__()
        #: The connection's id, as in the question.
        self.connection: str = params.get("connection", "")
        #: ``"to_remote"`` or ``"to_client"``.
        self.direction: str = params.get("direction", "")
        #: What the verdict had as ``extra``.
        self.extra: Any = params.get("extra")
        self._sock = sock
        self._say = say
        #: The other end has gone: what then goes wrong in the function is no fault of its own.
        self._is_broken = False
        self._is_leaving = False
        self._is_detached = False
        self._is_aborted = False

    def readable(self) -> bool:
        return not self._is_detached

    def writable(self) -> bool:
        return not self._is_detached

    def fileno(self) -> int:
        self._check()
        return self._sock.fileno()

    def readinto(self, buffer: Any) -> int:
        """Read what is there, or wait for it. 0 at the end of what the source sends."""
        self._check()
        try:
            return self._sock.recv_into(buffer)
        except ConnectionError:
            self._is_broken = True
            raise

    def recv(self, size: int | None = None) -> bytes:
        """At most ``size`` bytes; ``b""`` at the end. The same as ``read(size)``, but never waits for more than one."""
        return self.read(RECV_BYTES if size is None or size < 0 else size) or b""

    def write(self, data: Any) -> int:
        """Write all of it, and wait until it is taken. A ``str`` is taken as latin-1. Returns how many bytes."""
        self._check()
        view = memoryview(data.encode("latin-1") if isinstance(data, str) else data)
        try:
            self._sock.sendall(view)
        except ConnectionError:
            self._is_broken = True
            raise
        return view.nbytes

    def send(self, data: Buffer) -> int:
        return self.write(data)

    def writeall(self, data: Buffer) -> None:
        self.write(data)

    def sendall(self, data: Buffer) -> None:
        self.write(data)

    def detach(self, reader: io.BufferedReader | None = None) -> None:
        """Leave: what the source has sent and we have not read goes on as it is, and what it will send passes us by.

        With a ``BufferedReader`` around this stream, pass it: it holds bytes that have been read and not been
        used. Nothing can be read or written after this, and whatever the function still does is its own affair.
        """
        self._check()
        self._is_leaving = True
        self._say("detach")
        source = self if reader is None else reader
        # It ends soon: tproxy gives us no more.
        while True:
            data = source.read(RECV_BYTES) if source is self else reader_bytes(source)
            if not data:
                break
            self.write(data)
        self._is_detached = True
        self._say("stream_end")
        self._sock.close()

    def abort(self) -> None:
        """Reset the connection, without a word in the log. Nothing can be read or written after this."""
        self._is_aborted = True
        self.close()

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on a closed stream")
        if self._is_detached:
            raise ValueError("I/O operation on a stream that was detached")

    # close() is that of every io object: nothing can be read or written any more. That the stream has
    # ended is said when the function returns: only then is it known that it does not raise.

    def _end(self, is_clean: bool) -> None:
        """The function has returned, or raised."""
        # Whoever leaves says it there, once all is written that was given.
        if is_clean and not (self._is_aborted or self._is_leaving):
            self._say("stream_end")
        self._sock.close()


def reader_bytes(reader: Any) -> bytes:
    data: bytes = reader.read1(RECV_BYTES)
    return data


class AsyncRewriteIO:
    """The same for ``async def``: what reads and writes is awaited."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        params: dict[str, Any],
        say: Callable[[str], Any],
    ) -> None:
        self.connection: str = params.get("connection", "")
        self.direction: str = params.get("direction", "")
        self.extra: Any = params.get("extra")
        #: An ``asyncio.StreamReader``, for ``readline``, ``readexactly`` and ``readuntil``.
        self.reader = reader
        self._writer = writer
        self._say = say
        self._is_broken = False
        self._leaving: asyncio.Future[None] | None = None
        self._is_aborted = False
        # What is written is in the kernel's hands when drain() returns.
        writer.transport.set_write_buffer_limits(0)

    async def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes, or all to the end. ``b""`` at the end of what the source sends."""
        self._check()
        return await self._read(size)

    async def recv(self, size: int | None = None) -> bytes:
        return await self.read(RECV_BYTES if size is None or size < 0 else size)

    async def write(self, data: Buffer) -> int:
        """Write all of it, and wait while the destination does not take it."""
        self._check()
        view = memoryview(data.encode("latin-1") if isinstance(data, str) else data)
        await self._write(view)
        return view.nbytes

    async def send(self, data: Buffer) -> int:
        return await self.write(data)

    async def writeall(self, data: Buffer) -> None:
        await self.write(data)

    async def sendall(self, data: Buffer) -> None:
        await self.write(data)

    async def detach(self) -> None:
        """Leave, as ``RewriteIO.detach``. What ``reader`` holds goes on as it is."""
        import asyncio

        self._check()
        # On its own, for it must be brought to its end, whoever is cancelled while he waits for it.
        self._leaving = asyncio.ensure_future(self._leave())
        await asyncio.shield(self._leaving)

    def abort(self) -> None:
        """Reset the connection, without a word in the log. Does nothing once it has been left."""
        self._is_aborted = True

    def _check(self) -> None:
        if self._leaving is not None or self._is_aborted:
            raise ValueError("I/O operation on a stream that was detached or aborted")

    async def _read(self, size: int) -> bytes:
        try:
            return await self.reader.read(size)
        except ConnectionError:
            self._is_broken = True
            raise

    async def _write(self, data: bytes | memoryview) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError:
            self._is_broken = True
            raise

    async def _leave(self) -> None:
        is_clean = False
        try:
            await self._say("detach")
            # It ends soon: tproxy gives us no more.
            while data := await self._read(RECV_BYTES):
                await self._write(data)
            is_clean = True
        finally:
            await self._close(is_clean)

    async def _end(self, is_clean: bool) -> None:
        """The function has returned, or raised."""
        if self._leaving is None:
            await self._close(is_clean and not self._is_aborted)
        else:
            with contextlib.suppress(ConnectionError):
                await self._leaving

    async def _close(self, is_clean: bool) -> None:
        try:
            if is_clean:
                await self._writer.drain()
                await self._say("stream_end")
            else:
                self._writer.transport.abort()
        except ConnectionError:
            pass
        finally:
            self._writer.close()
