"""A SOCKS4 proxy, with the names of SOCKS4a.

    tproxy socks4.py
    curl --socks4a 127.0.0.1:5000 http://example.org/

It connects to wherever its clients like: keep it on an address that only they can reach.
"""

import socket
import struct

CONNECT = 1
GRANTED = b"\x00\x5a" + bytes(6)
REJECTED = b"\x00\x5b" + bytes(6)


def proxy(data):
    # Version, command, port, address, user id, NUL; then, in SOCKS4a, a name and another NUL.
    if len(data) < 9:
        return None
    version, command, port = struct.unpack(">BBH", data[:4])
    if version != 4 or command != CONNECT or port == 0:
        return {"close": REJECTED}
    # Not from the beginning: the port and the address may hold a NUL, too.
    end = data.find(b"\0", 8)
    if end < 0:
        return None
    host = socket.inet_ntoa(data[4:8])
    if data[4:7] == b"\0\0\0" and data[7] != 0:  # 0.0.0.x: the name follows
        start, end = end + 1, data.find(b"\0", end + 1)
        if end < 0:
            return None
        host = data[start:end]
    # The reply is sent once the remote is connected, so that it never promises too much.
    return {"remote": (host, port), "reply": GRANTED, "data": data[end + 1 :]}


def proxy_error(client, error):
    return REJECTED
