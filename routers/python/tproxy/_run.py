"""Being a router: the conversation with tproxy, in the way that the functions ask for.

What that needs is imported when it is known: a script with plain functions should not wait for asyncio.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable
from typing import Any, Callable

from ._listen import Unusable, listener_for
from ._question import Event
from ._router import STREAM_THREADS, Router
from ._wire import NotASocket, Wire, take_over


def run(
    proxy: Callable[..., Any],
    *,
    proxy_error: Callable[..., Any] | None = None,
    closed: Callable[..., Any] | None = None,
    rewrite_request: Callable[..., Any] | None = None,
    rewrite_response: Callable[..., Any] | None = None,
    events: Iterable[Event] = (),
    name: str | None = None,
    max_in_flight: int | None = None,
    threads: int = 1,
    stream_threads: int = STREAM_THREADS,
    listen: str | os.PathLike[str] | None = None,
) -> None:
    """Be a router: answer tproxy's questions with ``proxy`` until tproxy is done with us.

    ``proxy(data)`` or ``proxy(data, question)`` returns a verdict. A plain function is called for
    one connection at a time, or for ``threads`` at a time. An ``async def`` runs as a task of its
    own for each question.

    ``events`` names when to be asked besides ``"data"``: ``"connect"``, ``"silence"``, ``"eof"``,
    ``"timeout"``. ``proxy_error(client, error)`` is asked when a remote failed. It returns None,
    bytes to close with, or a verdict with another remote. ``closed(connection)`` is told of each
    connection's end. ``name`` stands in tproxy's log. ``max_in_flight`` is how many questions tproxy
    may have open here: 64 unless given, 1024 for an ``async def``.

    ``rewrite_request(req)`` reads what the client sends, and what it writes goes to the remote;
    ``rewrite_response`` does the same for the other direction. A plain function has a thread of its own
    for each stream, ``stream_threads`` at a time: 2000 unless given, which is both streams of 1000
    connections. An ``async def`` is a task.

    With ``listen``, a path, tproxy does not start the router but connects to it (``--router
    unix:/path``), with all its workers. The same goes for a socket that systemd hands over.
    """
    router = Router(
        proxy,
        proxy_error=proxy_error,
        closed=closed,
        rewrite_request=rewrite_request,
        rewrite_response=rewrite_response,
        events=events,
        name=name,
        max_in_flight=max_in_flight,
        threads=threads,
        stream_threads=stream_threads,
    )
    try:
        listener = listener_for(listen)
        if listener is not None:
            serve_listening(router, listener)
            return
        wire = take_over()
    except Unusable as error:
        sys.exit(f"tproxy: {error}")
    except NotASocket:
        script = os.path.basename(sys.argv[0]) or "route.py"
        sys.exit(
            "tproxy: standard input is not a socket from tproxy; "
            f"start this router with: tproxy --router 'python3 {script}'"
        )
    serve(router, wire)


def serve(router: Router, wire: Wire) -> None:
    if wire.ended:  # a script of the runner that called run() by itself
        return
    if router.is_async:
        from ._tasks import serve_tasks

        serve_tasks(router, wire)
    elif router.threads > 1:
        from ._threads import serve_threads

        serve_threads(router, wire)
    else:
        from ._plain import serve_plain

        serve_plain(router, wire)


def serve_listening(router: Router, listener: socket.socket) -> None:
    """Serve whoever connects, until a signal ends us."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(line_buffering=True)  # a log's line is wanted when it is printed
    try:
        if router.is_async:
            from ._tasks import serve_tasks_listening

            serve_tasks_listening(router, listener)
        elif router.threads > 1:
            from ._threads import serve_threads_listening

            serve_threads_listening(router, listener)
        else:
            from ._plain import serve_plain_listening

            serve_plain_listening(router, listener)
    except KeyboardInterrupt:
        pass  # nobody but the terminal decides when we end
    finally:
        listener.close()
