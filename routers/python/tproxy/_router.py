"""Serving a router: what each message of tproxy means, and the loop for plain functions."""

from __future__ import annotations

import inspect
import os
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any, Callable

from ._question import Question
from ._verdict import Attachment, encode, json_text
from ._wire import NotASocket, Wire, log, take_over

PROTOCOL = 1

#: Answers wait for those that were read along with them, but not longer than this: a batch of
#: slow questions must not look like a router that hangs.
BATCH_SECONDS = 0.002

#: tproxy keeps a little less of an error's text.
ERROR_TEXT_MAX = 300

#: So many remotes are kept as ready answers; a script may make up remotes without end.
READY_ANSWERS_MAX = 4096

PACKAGE_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")


def run(
    proxy: Callable[..., Any],
    *,
    proxy_error: Callable[..., Any] | None = None,
    name: str | None = None,
    max_in_flight: int | None = None,
    threads: int = 1,
) -> None:
    """Be a router: answer tproxy's questions with ``proxy`` until tproxy is done with us.

    ``proxy(data)`` or ``proxy(data, question)`` returns a verdict. A plain function is called for
    one connection at a time, or for ``threads`` at a time. An ``async def`` runs as a task of its
    own for each question.

    ``proxy_error(client, error)`` is asked when a remote failed. It returns None, or bytes to close
    with. ``name`` stands in tproxy's log. ``max_in_flight`` is how many questions tproxy may have
    open here: 64 unless given, 1024 for an ``async def``.
    """
    router = Router(proxy, proxy_error=proxy_error, name=name, max_in_flight=max_in_flight, threads=threads)
    try:
        wire = take_over()
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
        serve_plain(router, wire)


class Router:
    """The user's functions, and how each message of tproxy is answered with them."""

    def __init__(
        self,
        proxy: Callable[..., Any],
        *,
        proxy_error: Callable[..., Any] | None = None,
        name: str | None = None,
        max_in_flight: int | None = None,
        threads: int = 1,
    ) -> None:
        if not callable(proxy):
            raise TypeError(f"proxy must be a function, not {type(proxy).__name__}")
        if proxy_error is not None and not callable(proxy_error):
            raise TypeError(f"proxy_error must be a function, not {type(proxy_error).__name__}")
        if threads < 1:
            raise ValueError(f"threads must be 1 or more, not {threads}")
        self.proxy = proxy
        self.proxy_error = proxy_error
        self.wants_question = wants_question(proxy)
        self.is_async = is_async(proxy) or (proxy_error is not None and is_async(proxy_error))
        self.threads = threads
        self.name = name or os.path.basename(sys.argv[0]) or "python"
        if max_in_flight is None:
            max_in_flight = 1024 if self.is_async else max(64, 2 * threads)
        elif max_in_flight < 1:
            raise ValueError(f"max_in_flight must be 1 or more, not {max_in_flight}")
        self.max_in_flight = max_in_flight

    def hello(self) -> dict[str, Any]:
        methods = ["proxy"] + (["proxy_error"] if self.proxy_error else []) + ["cancel", "shutdown"]
        return {
            "protocol": PROTOCOL,
            "name": self.name,
            "methods": methods,
            "max_in_flight": self.max_in_flight,
        }

    def call(self, message: Mapping[str, Any], received: float, tell: Callable[[str], None]) -> Any:
        """Ask the user's function. Returns what it returns, which may be something to await.

        ``tell`` writes a line ahead of the answer.
        """
        params = message["params"]
        if message["method"] == "proxy":
            data = params["data"].encode("latin-1")
            if self.wants_question:
                return self.proxy(data, Question(message["id"], params, data, received, tell))
            return self.proxy(data)
        from .client import ClientConnection, error_from

        assert self.proxy_error is not None
        return self.proxy_error(ClientConnection(params), error_from(params))

    def is_question(self, message: Any) -> bool:
        """Whether a message is for the user's functions and not for us."""
        if not isinstance(message, dict) or "id" not in message or not isinstance(message.get("params"), dict):
            return False
        method = message.get("method")
        if method == "proxy":
            return isinstance(message["params"].get("data"), str)
        return method == "proxy_error" and self.proxy_error is not None

    def other(self, message: Any) -> str:
        """The answer to what is no question; empty if it needs none."""
        if not isinstance(message, dict) or not isinstance(message.get("method"), str):
            log(f"skipped what is no message: {repr(message)[:200]}")
            return ""
        if "id" not in message:
            return ""  # shutdown needs nothing: what is open is answered, and EOF ends us
        method = message["method"]
        ident = message["id"]
        if method == "hello":
            return result_line(ident, json_text(self.hello()))
        if method in ("proxy", "proxy_error") and (method == "proxy" or self.proxy_error is not None):
            return error_line(ident, -32602, "Invalid params")
        return error_line(ident, -32601, "Method not found")


def answer_text(method: str, returned: Any) -> tuple[str, Attachment | None]:
    """The result for what a function returned, and the descriptor that goes with it."""
    if method == "proxy_error" and isinstance(returned, (bytes, bytearray, memoryview, str)):
        returned = {"close": returned}
    return encode(returned, method)


def result_line(ident: Any, text: str) -> str:
    return f'{{"jsonrpc":"2.0","id":{json_text(ident)},"result":{text}}}\n'


def error_line(ident: Any, code: int, message: str) -> str:
    error = json_text({"code": code, "message": message})
    return f'{{"jsonrpc":"2.0","id":{json_text(ident)},"error":{error}}}\n'


def failure_line(ident: Any, error: BaseException) -> str:
    """Log an exception of the user's function; its connection alone is hurt."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(PACKAGE_FOLDER):
        frames = frames.tb_next  # ours: they tell the user nothing
    try:
        sys.stderr.write("".join(traceback.format_exception(type(error), error, frames)))
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass
    try:
        text = str(error)
    except Exception:
        text = "(no text)"
    kind = type(error).__name__
    message = f"{kind}: {text}" if text else kind
    # Half a character (a lone surrogate) is no text to other languages.
    message = message[:ERROR_TEXT_MAX].encode("utf-8", "backslashreplace").decode()
    return error_line(ident, -32000, message)


def cancelled_line(ident: Any) -> str:
    return error_line(ident, -32000, "cancelled")


def cancelled_id(message: Any) -> Any:
    """The id that a ``cancel`` names; None if the message is none."""
    if isinstance(message, dict) and message.get("method") == "cancel":
        params = message.get("params")
        if isinstance(params, dict) and isinstance(params.get("id"), int):
            return params["id"]
    return None


def wants_question(proxy: Callable[..., Any]) -> bool:
    """Whether to call ``proxy(data, question)``: it has a second parameter without a default,
    or one by that name."""
    try:
        parameters = inspect.signature(proxy).parameters.values()
    except (TypeError, ValueError):
        return False  # written in C: the classic form
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = sum(p.default is p.empty for p in positional)
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if required > 2 or (not positional and not takes_any):
        raise TypeError("proxy must be proxy(data) or proxy(data, question)")
    return required == 2 or (len(positional) > 1 and positional[1].name == "question")


def is_async(function: Callable[..., Any]) -> bool:
    function = inspect.unwrap(function)
    call = getattr(function, "__call__", None)  # noqa: B004 (an object's own may be async)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def serve_plain(router: Router, wire: Wire) -> None:
    """One question after the other in this thread; the answers of one read in one write.

    This is the loop that decides how many connections a second a router can take: the common
    question and the common verdict go through as few steps as can be.
    """
    proxy = router.proxy
    wants_question = router.wants_question
    monotonic = time.monotonic
    ready: dict[Any, str] = {}
    cancelled: set[int] = set()
    answers: list[str] = []
    #: Read while others were still being answered, and when the first of it was.
    later: list[Any] = []
    received_later = 0.0

    def tell(text: str) -> None:
        answers.append(text)
        flush(wire, answers)

    try:
        while later or not wire.ended:
            if later:
                messages, later, received = later, [], received_later
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
                            verdict = proxy(data, Question(ident, params, data, received, tell))
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
                            finish(wire, ident, "proxy", verdict, answers, ready)
                else:
                    handle(router, wire, message, received, tell, answers, cancelled, ready)
                if monotonic() - written > BATCH_SECONDS:
                    flush(wire, answers)
                    # Whoever has left meanwhile need not be decided about.
                    more = wire.read(socket.MSG_DONTWAIT)
                    cancelled.update(ident for ident in map(cancelled_id, more) if ident is not None)
                    written = monotonic()
                    if not later:
                        received_later = written
                    later += more
                    if wire.ended and wire.is_hung_up():
                        return  # nobody is there to hear the rest
            flush(wire, answers)
    finally:
        flush(wire, answers)  # the function ended the process: those before it have their answers


def flush(wire: Wire, answers: list[str]) -> None:
    if answers:
        wire.write("".join(answers))
        answers.clear()


def finish(wire: Wire, ident: Any, method: str, returned: Any, answers: list[str], ready: dict[Any, str]) -> None:
    """Answer with any verdict, and keep it ready if it is but a remote."""
    try:
        text, attachment = answer_text(method, returned)
    except Exception as error:
        answers.append(failure_line(ident, error))
        return
    if attachment is not None:
        flush(wire, answers)
        wire.write_with(result_line(ident, text), attachment)
        return
    answers.append(result_line(ident, text))
    if type(returned) is dict and len(returned) == 1:
        remote = returned.get("remote")
        if type(remote) is str or (type(remote) is tuple and all(type(part) in (str, int, bytes) for part in remote)):
            if len(ready) >= READY_ANSWERS_MAX:
                ready.clear()
            ready[remote] = f',"result":{text}}}\n'


def handle(
    router: Router,
    wire: Wire,
    message: Any,
    received: float,
    tell: Callable[[str], None],
    answers: list[str],
    cancelled: set[int],
    ready: dict[Any, str],
) -> None:
    """Whatever is not the common question."""
    left = cancelled_id(message)
    if left is not None:
        cancelled.discard(left)
    elif not router.is_question(message):
        answers.append(router.other(message))
    elif message["id"] in cancelled:
        answers.append(cancelled_line(message["id"]))
    else:
        try:
            returned = router.call(message, received, tell)
        except Exception as error:
            answers.append(failure_line(message["id"], error))
        else:
            finish(wire, message["id"], message["method"], returned, answers, ready)
