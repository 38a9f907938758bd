"""What tproxy asks, as ``proxy(data, question)`` sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Callable, Literal, NamedTuple

#: A day.
SECONDS_MAX = 86400

Address = tuple[str, int]

#: Why a router is asked.
Event = Literal["data", "connect", "silence", "eof", "timeout"]

EVENTS: tuple[str, ...] = ("data", "connect", "silence", "eof", "timeout")


class ClientHello(NamedTuple):
    """What a client says first that speaks TLS through tproxy."""

    #: How far it was read: ``complete``, ``need_more`` (return None to be asked with more),
    #: ``not_tls``, ``malformed``, ``too_large``.
    state: str
    #: The server name as the client wrote it, upper case too; None if it named none.
    sni: str | None = None
    #: The protocols that the client offers, the most wanted first.
    alpn: tuple[bytes, ...] = ()
    #: The client sent a name that cannot be relied on, so ``sni`` is None.
    sni_unusable: bool = False


def client_hello(value: Any) -> ClientHello | None:
    if not isinstance(value, Mapping):
        return None
    names = tuple(name.encode("latin-1") for name in value.get("alpn") or ())
    return ClientHello(str(value.get("state")), value.get("sni"), names, value.get("sni_unusable") is True)


class ClientCertificate(NamedTuple):
    """A client's certificate, which tproxy has verified."""

    #: Distinguished names as in RFC 2253: ``CN=alice,O=Example``.
    subject: str
    issuer: str
    #: Alternative names: ``DNS:a.example``, ``IP:192.0.2.1``, ``email:a@b.example``, ``URI:…``.
    names: tuple[str, ...]
    #: SHA-256 of the certificate, in lower-case hexadecimal digits.
    fingerprint: str


class TLS(NamedTuple):
    """What was agreed with a client whose TLS ends at tproxy."""

    #: As OpenSSL says it: ``TLSv1.3``.
    version: str
    cipher: str
    #: The server name that the client asked for, in lower case; None if it named none.
    sni: str | None = None
    #: The protocol that was agreed on; None if none was.
    alpn: str | None = None
    #: None if the client has shown none.
    client_certificate: ClientCertificate | None = None


def tls(value: Any) -> TLS | None:
    if not isinstance(value, Mapping):
        return None
    shown = value.get("client_certificate")
    certificate = None
    if isinstance(shown, Mapping):
        texts = [str(shown.get(key) or "") for key in ("subject", "issuer", "fingerprint")]
        certificate = ClientCertificate(texts[0], texts[1], tuple(shown.get("names") or ()), texts[2])
    agreed = [str(value.get(key) or "") for key in ("version", "cipher")]
    return TLS(agreed[0], agreed[1], value.get("sni"), value.get("alpn"), certificate)


class Closed:
    """A connection of our worker that has ended, whoever decided about it: we, a router before us,
    the cache."""

    __slots__ = ("params",)

    #: The notice as it came.
    params: Mapping[str, Any]

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params = params

    @property
    def connection(self) -> str:
        """The connection's id."""
        value: str = self.params.get("connection", "")
        return value

    @property
    def bytes_to_remote(self) -> int:
        value: int = self.params.get("bytes_to_remote", 0)
        return value

    @property
    def bytes_to_client(self) -> int:
        value: int = self.params.get("bytes_to_client", 0)
        return value

    @property
    def duration(self) -> float:
        """How long it lived, in seconds."""
        milliseconds: int = self.params.get("duration_ms", 0)
        return milliseconds / 1000

    @property
    def reason(self) -> str:
        """Why it ended, as the access log says it: ``done``, ``client_left``, …"""
        value: str = self.params.get("reason", "")
        return value

    def __repr__(self) -> str:
        return f"<Closed {self.connection} {self.reason}>"


def address(value: Any) -> Address | None:
    """``[host, port]`` as a tuple; None for a client of a Unix listener."""
    return (value[0], value[1]) if value else None


class Question:
    """One question about one connection.

    Most fields are computed when they are looked at, so that a question costs nothing to
    those who do not look.
    """

    __slots__ = ("data", "params", "_id", "_received", "_tell")

    #: All bytes of the client that no verdict has consumed yet; what is inside, when its TLS ends at tproxy.
    data: bytes
    #: The question as it came; fields that this version of the package does not know are here.
    params: Mapping[str, Any]

    def __init__(
        self, ident: Any, params: Mapping[str, Any], data: bytes, received: float, tell: Callable[[str], None]
    ) -> None:
        self.data = data
        self.params = params
        self._id = ident
        self._received = received
        self._tell = tell

    def progress(self, seconds: float) -> None:
        """Tell tproxy that the answer takes up to so many more seconds.

        It waits that long then, but never past its own time for all questions about a connection
        (``--verdict-timeout``). Of use in tasks and threads: a plain function keeps all others waiting.
        """
        if not 0 < seconds <= SECONDS_MAX:
            raise ValueError(f"seconds must be above 0 and at most {SECONDS_MAX}, not {seconds!r}")
        params = {"id": self._id, "seconds": seconds}
        self._tell(json.dumps({"jsonrpc": "2.0", "method": "progress", "params": params}) + "\n")

    @property
    def connection(self) -> str:
        """The connection's id, unique as long as tproxy runs."""
        value: str = self.params["connection"]
        return value

    @property
    def event(self) -> Event:
        """Why we are asked: ``"data"`` (bytes have come), or one of the ``events`` that ``run`` was given."""
        value: Event = self.params.get("event", "data")
        return value

    @property
    def client(self) -> Address | None:
        """The client's address; None on a Unix listener."""
        return address(self.params.get("client"))

    @property
    def local(self) -> Address | None:
        """The address that the client connected to; None on a Unix listener."""
        return address(self.params.get("local"))

    @property
    def listener(self) -> str:
        """The listener, as it was given with ``-b``."""
        value: str = self.params.get("listener", "")
        return value

    @property
    def client_hello(self) -> ClientHello | None:
        """What the client says that speaks TLS through tproxy; None if its bytes are no TLS."""
        return client_hello(self.params.get("client_hello"))

    @property
    def tls(self) -> TLS | None:
        """What was agreed with the client whose TLS ends at tproxy, its certificate too; None on a listener
        without TLS."""
        return tls(self.params.get("tls"))

    @property
    def state(self) -> Any:
        """What the last verdict on this connection gave as ``state``; None without."""
        return self.params.get("state")

    @property
    def replay(self) -> int:
        """How many routers were asked this before us: they died before they answered."""
        value: int = self.params.get("replay", 0)
        return value

    @property
    def deadline(self) -> float | None:
        """When tproxy stops waiting for the answer, on the clock of ``time.monotonic()``. ``progress``
        moves it over there, not here."""
        milliseconds = self.params.get("deadline_ms")
        return None if milliseconds is None else self._received + milliseconds / 1000

    def __repr__(self) -> str:
        return f"<Question {self.params.get('connection')} {self.event} {self.data!r}>"
