"""Verdicts: from what ``proxy()`` returned to the JSON text of an answer.

Connection bytes travel as JSON strings with one character per byte (U+0000 to U+00FF), which is
what Python calls latin-1.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, Callable, Literal, TypedDict, Union

#: Bytes for a client or a remote. A ``str`` is taken as latin-1.
ByteString = Union[bytes, bytearray, memoryview, str]

#: ``"host:port"``, ``"[v6]:port"``, ``"unix:/path"`` or ``(host, port)``.
Remote = Union[str, bytes, tuple[Union[str, bytes], Union[int, str]], list[Union[str, int]]]


#: What a cached verdict is found by.
CacheKey = Literal["listener", "client", "host", "sni", "data"]


class Cache(TypedDict):
    """Use a verdict for further connections, without asking again."""

    #: What decided: connections for which all of these are equal get the same verdict.
    key: CacheKey | list[CacheKey]
    #: For how long, in seconds.
    ttl: float


#: The name of a file.
Path = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]


class SSLArgs(TypedDict, total=False):
    """How to speak TLS to a remote. What is left out is as it should be: verified, against the system's authorities."""

    #: A certificate to show to a remote that asks for one, and its key, if that is not in the same file.
    certfile: Path
    keyfile: Path
    #: 0, ``ssl.CERT_NONE``: the remote's certificate is not looked at.
    cert_reqs: int
    #: The authorities to trust, and no others.
    ca_certs: Path
    #: 2, ``ssl.PROTOCOL_TLS``, is TLS 1.2 and newer; 3, 4 and 5 are TLS 1.0, 1.1 and 1.2 and nothing else.
    ssl_version: int
    #: In OpenSSL's words.
    ciphers: str
    #: The name to ask for and to verify instead of the remote's own.
    server_hostname: str
    #: The protocols to offer, the best first.
    alpn: list[bytes | str]


class Verdict(TypedDict, total=False):
    """The keys of a verdict, for type checkers; a plain dict does as well."""

    remote: Remote
    remotes: Iterable[Remote]
    data: ByteString | Iterable[ByteString]
    reply: ByteString | Iterable[ByteString]
    reply_when: str
    close: bool | ByteString | Iterable[ByteString]
    reset: bool
    file: Path | int | Any
    offset: int
    nbytes: int
    wait: int
    consume: int
    state: Any
    connect_timeout: float
    inactivity_timeout: float
    ssl: bool
    ssl_args: SSLArgs
    proxy_protocol: Literal[1, 2]
    extra: Any
    rewrite: bool | Literal["request", "response"]
    bind: str
    tags: list[str]
    note: str
    cache: Cache


#: A longer line than this is a broken router to tproxy, so one verdict may not grow that long.
LINE_BYTES_MAX = 16 * 1024 * 1024

#: JSON text of any value. Characters stay as they are: two bytes for a byte above 0x7f, not six.
json_text: Callable[[Any], str] = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class Attachment:
    """A descriptor on its way to tproxy. It is tproxy's from then on, so our copy is closed."""

    __slots__ = ("fd", "_owner")

    def __init__(self, fd: int, owner: Any) -> None:
        self.fd = fd
        self._owner = owner

    def close(self) -> None:
        try:
            if self._owner is None:
                os.close(self.fd)
            else:
                self._owner.close()
        except OSError:
            pass


def encode(verdict: Any, asked: str = "proxy") -> tuple[str, Attachment | None]:
    """The JSON text of a verdict, and the descriptor to send along with it.

    Raises TypeError or ValueError, whose text names the key that is wrong. A descriptor in a
    verdict that is refused is closed: who returned it has no use for it any more.
    """
    if verdict is None:
        return "null", None
    if type(verdict) is not dict and not isinstance(verdict, Mapping):
        raise TypeError(f"{asked}() must return a dict or None, not {described(verdict)}")
    attachment = attached(verdict)
    if attachment is not None and is_decided_before_file(verdict):
        attachment.close()
        attachment = None
        verdict = {key: value for key, value in verdict.items() if key != "file"}
    try:
        text = object_text(plain(verdict, attachment))
        if len(text) * 2 > LINE_BYTES_MAX - 1024 and len(text.encode()) > LINE_BYTES_MAX - 1024:
            raise ValueError(f"the verdict is longer than tproxy reads ({LINE_BYTES_MAX} bytes); use 'file'")
    except BaseException:
        if attachment is not None:
            attachment.close()
        raise
    return text, attachment


def described(value: Any) -> str:
    if hasattr(value, "__await__"):
        return "something to await (make the function itself 'async def')"
    return type(value).__name__


def plain(verdict: Mapping[Any, Any], attachment: Attachment | None) -> dict[str, Any]:
    """The verdict with nothing in it but what JSON has."""
    values: dict[str, Any] = {}
    for key, value in verdict.items():
        convert = CONVERSIONS.get(key)
        if value is not None and convert is not None:
            value = convert(key, value)
        elif not isinstance(key, str):
            raise TypeError(f"the key {key!r} is not a str")
        elif key == "attached":
            raise ValueError("attached: this key belongs to the tproxy package")
        elif key == "file" and value is not None:
            if attachment is None:
                value = path_text(key, value)
            else:
                value = attachment.fd
                values["attached"] = True
        values[key] = value
    return values


def object_text(values: dict[str, Any]) -> str:
    """JSON text, or an error that names the key."""
    try:
        text = json_text(values)
        if not text.isascii():
            text.encode()  # half a character (a lone surrogate) is refused here
        return text
    except (TypeError, ValueError):
        for key, value in values.items():
            try:
                json_text(value).encode()
            except (TypeError, ValueError) as error:
                # From None: where in the json module it happened tells the user nothing.
                raise (TypeError if isinstance(error, TypeError) else ValueError)(f"{key}: {error}") from None
        raise


def path_text(key: str, value: Path) -> str:
    try:
        return os.fsencode(value).decode()
    except UnicodeDecodeError:
        raise ValueError(f"{key}: the path is not UTF-8; open it and give the descriptor") from None


def is_decided_before_file(verdict: Mapping[Any, Any]) -> bool:
    """Remote and close come before file. A descriptor beside them must not be sent: tproxy
    would not expect it."""
    return any(verdict.get(key) not in (None, False) for key in ("remote", "remotes", "close"))


def attached(verdict: Mapping[Any, Any]) -> Attachment | None:
    """The descriptor in a verdict, if its ``file`` is one and not a path."""
    value = verdict.get("file")
    if value is None or isinstance(value, (str, bytes, os.PathLike)):
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        fd, owner = int(value), None
    elif callable(getattr(value, "fileno", None)):
        fd, owner = value.fileno(), value
        flush = getattr(value, "flush", None)
        if callable(flush):
            flush()  # what a script has just written to a temporary file counts
    else:
        raise TypeError(f"file: a path, a descriptor or an open file is needed, not {type(value).__name__}")
    if fd < 3:
        raise ValueError(f"file: {fd} is no descriptor that can be given away")
    try:
        os.fstat(fd)
    except (OSError, OverflowError) as error:
        raise ValueError(f"file: descriptor {fd} is not open") from error
    return Attachment(fd, owner)


def byte_text(key: str, value: Any) -> str:
    """Bytes as the text that stands for them: one character per byte."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, str):
        return latin1_text(key, value)
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value).decode("latin-1")
    if callable(getattr(value, "read", None)):
        try:
            value.seek(0)  # one file in the script may be the answer of many connections
        except (AttributeError, OSError, ValueError):
            pass
        return chunk_text(key, value.read())
    if isinstance(value, Mapping) or not hasattr(value, "__iter__"):
        raise TypeError(f"{key}: bytes are needed, not {described(value)}")
    chunks: list[str] = []
    length = 0
    for chunk in value:
        text = chunk_text(key, chunk)
        chunks.append(text)
        length += len(text)
        if length > LINE_BYTES_MAX:  # an endless generator must not fill the memory
            raise ValueError(f"{key}: more than {LINE_BYTES_MAX} bytes; use 'file'")
    return "".join(chunks)


def chunk_text(key: str, value: Any) -> str:
    if not isinstance(value, (bytes, str, bytearray, memoryview)):
        raise TypeError(f"{key}: a chunk must be bytes, not {described(value)}")
    return byte_text(key, value)


def latin1_text(key: str, value: str) -> str:
    try:
        value.encode("latin-1")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{key}: the character U+{ord(value[error.start]):04X} at {error.start} is no byte (above U+00FF); "
            "give bytes, as in text.encode('utf-8')"
        ) from None
    return value


def close_json(key: str, value: Any) -> Any:
    return value if isinstance(value, bool) else byte_text(key, value)


def remote_json(key: str, value: Any) -> Any:
    """A remote as tproxy reads it: a text, or a pair of a text and a number."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray)):
        return value.decode("latin-1")
    # Four values are what getaddrinfo() gives for IPv6.
    if isinstance(value, (tuple, list)) and len(value) in (2, 4):
        host, port = value[0], value[1]
        if isinstance(host, (bytes, bytearray)):
            host = host.decode("latin-1")
        if isinstance(port, (str, bytes)) and port.isdigit():
            port = int(port)
        if isinstance(host, str) and isinstance(port, int) and not isinstance(port, bool):
            return [host, port]
    raise TypeError(f"{key}: 'host:port' or (host, port) is needed, not {value!r:.100}")


def remotes_json(key: str, value: Any) -> Any:
    if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__iter__"):
        raise TypeError(f"{key}: a list of remotes is needed, not {value!r:.100}")
    return [remote_json(key, remote) for remote in value]


def ssl_args_json(key: str, value: Any) -> Any:
    """Arguments as tproxy reads them. It checks them all: here is only what JSON does not have."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{key}: a dict is needed, not {described(value)}")
    arguments = dict(value)
    for name, argument in value.items():
        if not isinstance(name, str):
            raise TypeError(f"{key}: the key {name!r} is not a str")
        place = f"{key}.{name}"
        if name in ("keyfile", "certfile", "ca_certs") and isinstance(argument, (bytes, os.PathLike)):
            arguments[name] = path_text(place, argument)
        elif name == "alpn" and isinstance(argument, Iterable) and not isinstance(argument, (str, bytes)):
            arguments[name] = [chunk_text(place, protocol) for protocol in argument]
        elif name == "ssl_version" and argument == PROTOCOL_TLS_CLIENT:
            arguments[name] = PROTOCOL_TLS
        elif isinstance(argument, bytes):
            arguments[name] = argument.decode("latin-1")
    return arguments


#: What the ssl module calls any version now, and what it called it before.
PROTOCOL_TLS_CLIENT, PROTOCOL_TLS = 16, 2

CONVERSIONS: dict[str, Callable[[str, Any], Any]] = {
    "remote": remote_json,
    "remotes": remotes_json,
    "data": byte_text,
    "reply": byte_text,
    "close": close_json,
    "ssl_args": ssl_args_json,
}
