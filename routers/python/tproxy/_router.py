"""A router: the user's functions, and what each message of tproxy means."""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from typing import Any, Callable

from ._pool import Pool
from ._question import EVENTS, Closed, Question
from ._verdict import Attachment, encode, json_text
from ._wire import log

PROTOCOL = 1

#: tproxy keeps a little less of an error's text.
ERROR_TEXT_MAX = 300

#: As many streams are rewritten at a time, if the functions are plain ones. More wait. Two for each connection
#: that a worker has (--worker-connections): with fewer, connections that tproxy has accepted would stand still.
STREAM_THREADS = 2000

PACKAGE_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")


class Router:
    """The user's functions, and how each message of tproxy is answered with them."""

    def __init__(
        self,
        proxy: Callable[..., Any],
        *,
        proxy_error: Callable[..., Any] | None = None,
        closed: Callable[..., Any] | None = None,
        rewrite_request: Callable[..., Any] | None = None,
        rewrite_response: Callable[..., Any] | None = None,
        events: Iterable[str] = (),
        name: str | None = None,
        max_in_flight: int | None = None,
        threads: int = 1,
        stream_threads: int = STREAM_THREADS,
    ) -> None:
        if not callable(proxy):
            raise TypeError(f"proxy must be a function, not {type(proxy).__name__}")
        rewriters = {"rewrite_request": rewrite_request, "rewrite_response": rewrite_response}
        for called, function in {"proxy_error": proxy_error, "closed": closed, **rewriters}.items():
            if function is not None and not callable(function):
                raise TypeError(f"{called} must be a function, not {type(function).__name__}")
        if threads < 1:
            raise ValueError(f"threads must be 1 or more, not {threads}")
        if stream_threads < 1:
            raise ValueError(f"stream_threads must be 1 or more, not {stream_threads}")
        #: By the notification that tells of a stream: the function, and whether it is called with ``extra``.
        self._rewriters = {
            called: (function, wants_second(function, called, "req", "extra"))
            for called, function in rewriters.items()
            if function is not None
        }
        self._stream_threads = stream_threads
        self._stream_pool: Pool | None = None
        self.proxy = proxy
        self.proxy_error = proxy_error
        self.closed = closed
        self.events = checked_events(events)
        self.wants_question = wants_second(proxy, "proxy", "data", "question")
        functions = (proxy, proxy_error, closed, rewrite_request, rewrite_response)
        self.is_async = any(is_async(function) for function in functions if function is not None)
        self.threads = threads
        self.name = name or os.path.basename(sys.argv[0]) or "python"
        if max_in_flight is None:
            max_in_flight = 1024 if self.is_async else max(64, 2 * threads)
        elif max_in_flight < 1:
            raise ValueError(f"max_in_flight must be 1 or more, not {max_in_flight}")
        self.max_in_flight = max_in_flight

    def hello(self) -> dict[str, Any]:
        methods = ["proxy"] + (["proxy_error"] if self.proxy_error else []) + ["cancel", "shutdown"]
        if self.closed is not None:
            methods.append("closed")
        methods += self._rewriters
        return {
            "protocol": PROTOCOL,
            "name": self.name,
            "methods": methods,
            "events": self.events,
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

    def is_closed(self, message: Any) -> bool:
        """Whether a message is a notice for the user's ``closed``."""
        return (
            self.closed is not None
            and isinstance(message, dict)
            and message.get("method") == "closed"
            and isinstance(message.get("params"), dict)
        )

    def tell_closed(self, message: Mapping[str, Any]) -> Any:
        """Call the user's ``closed``. Returns what may be something to await."""
        assert self.closed is not None
        try:
            return self.closed(Closed(message["params"]))
        except Exception as error:
            log_failure(error)

    def is_stream(self, message: Any) -> bool:
        """Whether a message tells of a stream that is to be rewritten."""
        return (
            isinstance(message, dict)
            and message.get("method") in self._rewriters
            and "id" not in message
            and isinstance(message.get("params"), dict)
        )

    @property
    def rewrites(self) -> bool:
        return bool(self._rewriters)

    def rewriter(self, method: str) -> tuple[Callable[..., Any], bool]:
        """The user's function for such a message, and whether it is called with ``extra``."""
        return self._rewriters[method]

    @property
    def stream_pool(self) -> Pool:
        if self._stream_pool is None:
            self._stream_pool = Pool(self._stream_threads, len(self._rewriters))
        return self._stream_pool

    def finish_streams(self) -> None:
        """Wait a little for functions whose streams are ending."""
        if self._stream_pool is not None:
            self._stream_pool.finish()

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
    log_failure(error)
    try:
        text = str(error)
    except Exception:
        text = "(no text)"
    kind = type(error).__name__
    message = f"{kind}: {text}" if text else kind
    # Half a character (a lone surrogate) is no text to other languages.
    message = message[:ERROR_TEXT_MAX].encode("utf-8", "backslashreplace").decode()
    return error_line(ident, -32000, message)


def log_failure(error: BaseException) -> None:
    """The traceback of an exception of the user's function, from the user's own first line on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(PACKAGE_FOLDER):
        frames = frames.tb_next  # ours: they tell the user nothing
    try:
        sys.stderr.write("".join(traceback.format_exception(type(error), error, frames)))
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass


def is_hello(message: Any) -> bool:
    return isinstance(message, dict) and message.get("method") == "hello" and "id" in message


def cancelled_line(ident: Any) -> str:
    return error_line(ident, -32000, "cancelled")


def cancelled_id(message: Any) -> Any:
    """The id that a ``cancel`` names; None if the message is none."""
    if isinstance(message, dict) and message.get("method") == "cancel":
        params = message.get("params")
        if isinstance(params, dict) and isinstance(params.get("id"), int):
            return params["id"]
    return None


def checked_events(events: Iterable[str]) -> list[str]:
    """The events as tproxy wants them, each once."""
    if isinstance(events, str):
        raise TypeError(f"events must be a list, as in events=[{events!r}]")
    names = list(dict.fromkeys(events))
    for name in names:
        if name not in EVENTS:
            raise ValueError(f"events: {name!r} is none of {', '.join(EVENTS)}")
    return [name for name in names if name != "data"]  # which is always asked


def wants_second(function: Callable[..., Any], called: str, first: str, second: str) -> bool:
    """Whether to call ``function(first, second)``: it has a second parameter without a default, or
    one by that name."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False  # written in C: the classic form
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = sum(p.default is p.empty for p in positional)
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if required > 2 or (not positional and not takes_any):
        raise TypeError(f"{called} must be {called}({first}) or {called}({first}, {second})")
    return required == 2 or (len(positional) > 1 and positional[1].name == second)


def is_async(function: Callable[..., Any]) -> bool:
    function = inspect.unwrap(function)
    call = getattr(function, "__call__", None)  # noqa: B004 (an object's own may be async)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
