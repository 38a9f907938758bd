"""A SOCKS5 proxy without passwords (RFC 1928): greeting, request, and a reply that is no lie.

    tproxy socks5.py
    curl --socks5 127.0.0.1:5000 http://example.org/
    curl --socks5-hostname 127.0.0.1:5000 http://example.org/

It connects to wherever its clients like: keep it on an address that only they can reach.
"""

import ipaddress

from tproxy.client import ConnectionRefused, ConnectionTimeout, NameNotFound

CONNECT = 1
IPV4, NAME, IPV6 = 1, 3, 4

NO_PASSWORD = b"\5\0"
NO_METHOD = b"\5\xff"

SUCCEEDED, FAILED, UNREACHABLE, REFUSED, TIMED_OUT = 0, 1, 4, 5, 6
BAD_COMMAND, BAD_ADDRESS = 7, 8


def answer(code):
    # The address is where we connect from; nobody needs it.
    return bytes([5, code, 0, IPV4]) + bytes(6)


def proxy(data, question):
    if question.state == "request":
        return request(data)
    return greeting(data)


def greeting(data):
    """Version, number of methods, methods."""
    if data[:1] != b"\5":
        return {"close": True}
    if len(data) < 2 or len(data) < 2 + data[1]:
        return None
    end = 2 + data[1]
    if 0 not in data[2:end]:
        return {"close": NO_METHOD}
    # Not decided, but the client gets its answer and the greeting is done with. What the client says
    # next is a request: the state says so to whichever router is asked then.
    return {"reply": NO_PASSWORD, "consume": end, "state": "request"}


def request(data):
    """Version, command, zero, kind of address, address, port."""
    if len(data) < 5:
        return None
    version, command, _, kind, length = data[:5]
    if version != 5 or command != CONNECT:
        return {"close": answer(BAD_COMMAND)}
    size = {IPV4: 4, IPV6: 16, NAME: 1 + length}.get(kind)
    if size is None:
        return {"close": answer(BAD_ADDRESS)}
    end = 4 + size + 2
    if len(data) < end:
        return None
    if kind == NAME:
        host = data[5 : 5 + length].decode("latin-1")
    else:
        host = str(ipaddress.ip_address(data[4 : 4 + size]))
    port = int.from_bytes(data[end - 2 : end], "big")
    if not host or port == 0 or not all("!" <= character <= "~" for character in host):
        return {"close": answer(FAILED)}
    # The reply is sent once the remote is connected. What the client has sent behind the request
    # is the remote's.
    return {"remote": (host, port), "reply": answer(SUCCEEDED), "consume": end}


def proxy_error(client, error):
    """Why it is not connected. The client has had an answer to its greeting, but none to its request."""
    if isinstance(error, ConnectionRefused):
        return answer(REFUSED)
    if isinstance(error, ConnectionTimeout):
        return answer(TIMED_OUT)
    if isinstance(error, NameNotFound):
        return answer(UNREACHABLE)
    return answer(FAILED)
