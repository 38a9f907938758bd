"""What a router tells tproxy without being asked: ``invalidate`` and ``close``.

Both may be called from anywhere: from ``proxy()``, from other threads, from tasks, from signal
handlers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from ._verdict import CacheKey, Remote, byte_text, json_text, remote_json

KEYS: tuple[str, ...] = ("listener", "client", "host", "sni", "data")

#: What is told before a tproxy has greeted us waits for it, the latest of it at least.
WAITING_MAX = 1024

#: One for each tproxy that has greeted us: what writes a line to it.
_links: list[Callable[[str], None]] = []
_waiting: deque[str] = deque(maxlen=WAITING_MAX)


def invalidate(
    *,
    all: bool = False,  # noqa: A002 (the protocol's word)
    key: CacheKey | None = None,
    value: str | bytes | tuple[str, int] | None = None,
) -> None:
    """Cached verdicts are no longer right: drop all, or those that have this value in their key.

    ``value`` is a name for ``"sni"`` and ``"host"``, an address for ``"client"`` (or
    ``question.client`` as it is), bytes for ``"data"``. It concerns all workers, and the verdicts of
    all questions that are open now, which are not kept.
    """
    if all is True and key is None and value is None:
        tell("invalidate", {"all": True})
        return
    if all or key is None or value is None:
        raise TypeError("invalidate: either all=True, or key= and value=")
    if key not in KEYS:
        raise ValueError(f"invalidate: key must be one of {', '.join(KEYS)}, not {key!r}")
    if key == "client" and isinstance(value, tuple):
        value = value[0]
    if key == "data":
        text = byte_text("value", value)
    elif isinstance(value, str):
        text = value
    elif isinstance(value, bytes):
        text = value.decode()
    else:
        raise TypeError(f"invalidate: the value must be a str, not {type(value).__name__}")
    tell("invalidate", {"key": key, "value": text})


def close(
    *,
    connection: str | None = None,
    tag: str | None = None,
    remote: Remote | None = None,
    reset: bool = False,
) -> None:
    """End live connections, on all workers: one by its id, all with a tag that their verdict gave
    them, or all with a remote. ``reset`` ends them by a reset.

    Called in ``proxy()``, it does not concern the connection that is being decided about, unless that
    is named by its id.
    """
    if sum(part is not None for part in (connection, tag, remote)) != 1:
        raise TypeError("close: exactly one of connection=, tag= and remote=")
    params: dict[str, Any] = {}
    for name, part in (("connection", connection), ("tag", tag), ("remote", remote)):
        if part is None:
            continue
        if name == "remote":
            part = remote_text(part)
        if not isinstance(part, str):
            raise TypeError(f"close: {name} must be a str, not {type(part).__name__}")
        params[name] = part
    if reset:
        params["reset"] = True
    tell("close", params)


def remote_text(remote: Any) -> str:
    """A remote as people write it."""
    value = remote_json("remote", remote)
    if isinstance(value, str):
        return value
    host, port = value
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def tell(method: str, params: dict[str, Any]) -> None:
    line = f'{{"jsonrpc":"2.0","method":"{method}","params":{json_text(params)}}}\n'
    line.encode()  # half a character (a lone surrogate) is refused here
    links = tuple(_links)
    for put in links:
        put(line)
    if not links:
        _waiting.append(line)
        deliver()  # somebody may have begun in between


def deliver() -> None:
    links = tuple(_links)
    while links and _waiting:
        try:
            line = _waiting.popleft()
        except IndexError:
            return  # another thread was faster
        for put in links:
            put(line)


def begin(put: Callable[[str], None]) -> None:
    """A tproxy has greeted us: ``put`` writes lines to it, from any thread."""
    if put not in _links:
        _links.append(put)
        deliver()


def end(put: Callable[[str], None]) -> None:
    """It is gone."""
    if put in _links:
        _links.remove(put)
