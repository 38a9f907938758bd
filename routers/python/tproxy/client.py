"""The client of a connection whose remote failed, and the errors of remotes: what
``proxy_error(client, error)`` gets."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import Any

from ._question import Address, address


class RemoteError(Exception):
    """A remote failed, or a file to be sent did."""

    #: What failed: ``connect_refused``, ``connect_timeout``, ``connect_failed``, ``dns``, ``tls``,
    #: ``loop``, ``reset``, ``inactivity_timeout``, ``file``.
    type: str = ""
    #: The system's error number, if it was the system's error.
    errno: int | None = None
    #: The remotes that were tried, each a dict with ``remote``, ``type`` and ``message``.
    attempts: list[Mapping[str, Any]]

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.attempts = []


class ConnectionError(RemoteError, builtins.ConnectionError):
    """The remote could not be connected to, or reset the connection."""


class ConnectionRefused(ConnectionError):
    """Nobody listens there."""


class ConnectionTimeout(ConnectionError):
    """The connection was not made in time."""


class NameNotFound(ConnectionError):
    """The remote's name has no address."""


class TLSFailure(ConnectionError):
    """The TLS handshake with the remote failed."""


class ConnectionLoop(ConnectionError):
    """The remote is tproxy itself."""


class ConnectionReset(ConnectionError):
    """The remote reset the connection before it had sent anything."""


class InactivityTimeout(RemoteError):
    """The remote sent nothing for longer than the verdict's ``inactivity_timeout``."""


class FileFailure(RemoteError):
    """The file of a ``file`` verdict cannot be sent."""


class ClientConnection:
    """The connection whose remote failed."""

    #: The client's address; None on a Unix listener.
    addr: Address | None
    #: The remote that was tried last, as text.
    remote: str | None
    #: The connection's id.
    connection: str
    #: The listener, as it was given with ``-b``.
    listener: str
    #: How many routers were asked this before us.
    replay: int
    #: The question as it came.
    params: Mapping[str, Any]

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.addr = address(params.get("client"))
        self.remote = params.get("remote")
        self.connection = params.get("connection", "")
        self.listener = params.get("listener", "")
        self.replay = params.get("replay", 0)
        self.params = params

    def __repr__(self) -> str:
        return f"<ClientConnection {self.connection} from {self.addr} to {self.remote}>"


def error_from(params: Mapping[str, Any]) -> RemoteError:
    """The exception for a ``proxy_error`` question."""
    kind = str(params.get("type", ""))
    error = ERRORS.get(kind, RemoteError)(str(params.get("message", kind)))
    error.type = kind
    error.errno = params.get("errno")
    error.attempts = list(params.get("attempts") or [])
    return error


ERRORS: Mapping[str, type[RemoteError]] = {
    "connect_refused": ConnectionRefused,
    "connect_timeout": ConnectionTimeout,
    "connect_failed": ConnectionError,
    "dns": NameNotFound,
    "tls": TLSFailure,
    "loop": ConnectionLoop,
    "reset": ConnectionReset,
    "file": FileFailure,
    "inactivity_timeout": InactivityTimeout,
}
