"""Both ends of a WebSocket (RFC 6455), by the standard library alone.

websocket.py serve            says "port N", sends back every message, answers ping and close
websocket.py client PORT      sends texts, bytes and pings, checks what comes back and says "N answered" now and then;
                              TERM makes it close: "closed 1000 after N messages"
"""

import base64
import hashlib
import os
import random
import signal
import socket
import socketserver
import struct
import sys
import time

TEXT, BYTES, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def accept_key(key):
    return base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())


def head(file):
    lines = []
    while (line := file.readline()) not in (b"\r\n", b""):
        lines.append(line.rstrip(b"\r\n"))
    fields = dict(line.split(b": ", 1) for line in lines[1:])
    return lines[0], {name.lower(): value for name, value in fields.items()}


def exactly(file, count):
    data = file.read(count)
    if len(data) != count:
        raise EOFError(f"{len(data)} of {count} bytes")
    return data


def mask_with(mask, data):
    whole = (mask * (len(data) // 4 + 1))[:len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(whole, "big")).to_bytes(len(data), "big")


def receive(file, masked):
    first, second = exactly(file, 2)
    assert first & 0x80, "a fragment, which neither of us sends"
    assert bool(second & 0x80) == masked, "only a client masks"
    length = second & 0x7F
    if length == 126:
        (length,) = struct.unpack("!H", exactly(file, 2))
    elif length == 127:
        (length,) = struct.unpack("!Q", exactly(file, 8))
    mask = exactly(file, 4) if masked else b""
    data = exactly(file, length)
    return first & 0x0F, mask_with(mask, data) if masked else data


def frame(opcode, data, masked):
    flag = 0x80 if masked else 0
    if len(data) < 126:
        start = struct.pack("!BB", 0x80 | opcode, flag | len(data))
    elif len(data) < 65_536:
        start = struct.pack("!BBH", 0x80 | opcode, flag | 126, len(data))
    else:
        start = struct.pack("!BBQ", 0x80 | opcode, flag | 127, len(data))
    if not masked:
        return start + data
    mask = os.urandom(4)
    return start + mask + mask_with(mask, data)


class Server(socketserver.StreamRequestHandler):
    def handle(self):
        _, fields = head(self.rfile)
        assert fields[b"upgrade"].lower() == b"websocket" and fields[b"sec-websocket-version"] == b"13"
        self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         b"Sec-WebSocket-Accept: " + accept_key(fields[b"sec-websocket-key"]) + b"\r\n\r\n")
        while True:
            opcode, data = receive(self.rfile, masked=True)
            self.wfile.write(frame(PONG if opcode == PING else opcode, data, masked=False))
            if opcode == CLOSE:
                return


def client(port):
    ending = []
    signal.signal(signal.SIGTERM, lambda *_: ending.append(True))
    one = socket.create_connection(("127.0.0.1", port), 20)
    file, key = one.makefile("rb"), base64.b64encode(os.urandom(16))
    one.sendall(b"GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: " + key + b"\r\nSec-WebSocket-Version: 13\r\n\r\n")
    status, fields = head(file)
    assert status.split()[1] == b"101" and fields[b"sec-websocket-accept"] == accept_key(key), (status, fields)
    count, sizes = 0, random.Random(1)
    while not ending:
        data = b"%d " % count + sizes.randbytes(sizes.choice([0, 100, 125, 126, 5_000, 65_535, 70_000]))
        opcode = PING if len(data) < 20 and count % 2 else TEXT if len(data) < 20 else BYTES
        one.sendall(frame(opcode, data, masked=True))
        answer = receive(file, masked=False)
        assert answer == (PONG if opcode == PING else opcode, data), f"message {count}: {answer[0]}, {len(answer[1])} bytes"
        count += 1
        if count % 5 == 0:
            print(count, "answered", flush=True)
        time.sleep(0.01)
    one.sendall(frame(CLOSE, struct.pack("!H", 1000), masked=True))
    opcode, data = receive(file, masked=False)
    assert opcode == CLOSE and file.read() == b""
    print("closed", struct.unpack("!H", data)[0], "after", count, "messages", flush=True)


if sys.argv[1] == "serve":
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    print("port", server.server_address[1], flush=True)
    server.serve_forever()
else:
    client(int(sys.argv[2]))
