"""Small functions under the import names of the classic tproxy."""

from typing import Tuple, Union


def parse_address(address: Union[str, bytes], default_port: int = 5000) -> Union[str, Tuple[str, int]]:
    """``host:port`` as ``(host, port)``, ``unix:PATH`` as the path.

    The port may be left out, and so may the host, which is then ``0.0.0.0``. An IPv6 host stands in
    brackets.
    """
    text = address.decode("latin-1") if isinstance(address, bytes) else address
    if text.startswith("unix:"):
        path = text[len("unix:") :]
        return path[2:] if path.startswith("//") else path
    if text.startswith("tcp://"):
        text = text[len("tcp://") :]
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is no address: [v6]:port is needed")
        port = rest[1:]
    else:
        host, _, port = text.partition(":")
        if ":" in port:
            raise ValueError(f"{text!r} is no address: an IPv6 host needs brackets")
    if not port:
        number = default_port
    elif port.isascii() and port.isdigit() and int(port) <= 65535:
        number = int(port)
    else:
        raise ValueError(f"{port!r} is not a valid port number.")
    return host.lower() or "0.0.0.0", number
