"""Rewriting on an asyncio loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable
from typing import Any, Callable

from ._pool import FINISH_SECONDS
from ._router import Router, is_async
from ._streams import Streams, log_unless_gone
from ._verdict import json_text
from .rewrite import AsyncRewriteIO


class AsyncStreams(Streams):
    """The streams of one conversation: ``async def`` functions are tasks, others have threads.

    ``write`` may be called from any thread; ``write_here`` is awaited on the loop.
    """

    def __init__(
        self, router: Router, write: Callable[[str], None], write_here: Callable[[str], Awaitable[None]]
    ) -> None:
        super().__init__(router, write)
        self._write_here = write_here
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, message: Any) -> None:
        function, wants_extra = self._router.rewriter(message["method"])
        if not is_async(function):
            super().begin(message)
            return
        params = message["params"]
        sock = self.dial(params)
        if sock is not None:
            task = asyncio.ensure_future(self._rewrite(function, wants_extra, sock, params))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _rewrite(
        self, function: Callable[..., Any], wants_extra: bool, sock: socket.socket, params: dict[str, Any]
    ) -> None:
        text = json_text({"token": params.get("token")})

        async def say(method: str) -> None:
            await self._write_here(f'{{"jsonrpc":"2.0","method":"{method}","params":{text}}}\n')

        reader, writer = await asyncio.open_unix_connection(sock=sock)
        stream = AsyncRewriteIO(reader, writer, params, say)
        is_clean = False
        try:
            await (function(stream, stream.extra) if wants_extra else function(stream))
            is_clean = True
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            log_unless_gone(stream, error)
        await stream._end(is_clean)

    async def finish(self) -> None:
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=FINISH_SECONDS)
            for task in left:
                task.cancel()
