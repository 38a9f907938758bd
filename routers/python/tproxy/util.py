"""Small functions under the import names of the classic tproxy."""

from __future__ import annotations

import socket

#: Where tproxy itself listens unless told otherwise.
DEFAULT_PORT = 5000


class InvalidAddress(ValueError, RuntimeError):
    """The text is no address. (The classic raised RuntimeError.)"""


def parse_address(netloc: str | bytes | tuple[str, int], default_port: int = DEFAULT_PORT) -> tuple[str, int]:
    """``host:port`` as ``(host, port)``; a tuple as it is.

    The port may be left out, and so may the host, which is then ``0.0.0.0``. An IPv6 host with a
    port stands in brackets, which are taken away.
    """
    if isinstance(netloc, tuple):
        return netloc
    text = netloc.decode("latin-1") if isinstance(netloc, (bytes, bytearray)) else netloc
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise InvalidAddress(f"{text!r} is not a valid address")
        port = rest[1:]
    elif is_ipv6(text):
        host, port = text, ""
    else:
        host, _, port = text.partition(":")
    if not port:
        number = default_port
    elif port.isascii() and port.isdigit() and int(port) <= 65535:
        number = int(port)
    else:
        raise InvalidAddress(f"{port!r} is not a valid port number")
    return host.lower() or "0.0.0.0", number


def is_ipv6(host: str) -> bool:
    """Whether a host is an IPv6 address, written without brackets."""
    try:
        socket.inet_pton(socket.AF_INET6, host)
    except (OSError, ValueError):
        return False
    return True
