#!/usr/bin/env python3
"""A SPOE agent: tells HAProxy where a connection goes, as soak's router tells tproxy.

    spoe_agent.py SOCKET HOST:PORT

Frames as in HAProxy's doc/SPOE.txt, version 2.0 with pipelining: a length of four bytes, a type, four bytes of flags,
the ids of the stream and of the frame, and what the type asks for.
"""
import asyncio
import ipaddress
import os
import sys

HAPROXY_HELLO, NOTIFY = 1, 3
AGENT_HELLO, AGENT_DISCONNECT, ACK = 101, 102, 103
UINT32, IPV4, STRING = b"\x03", b"\x06", b"\x08"
SET_TRANSACTION_VARIABLE = b"\x01\x03\x02"
LAST_FRAGMENT = b"\x00\x00\x00\x01"


def number(value):
    """A number as SPOP writes it: small ones in a byte."""
    if value < 240:
        return bytes([value])
    written = bytearray([value & 15 | 240])
    value = (value - 240) >> 4
    while value >= 128:
        written.append(value & 127 | 128)
        value = (value - 128) >> 7
    written.append(value)
    return bytes(written)


def read_number(frame, at):
    value, at, shift = frame[at], at + 1, 4
    if value < 240:
        return value, at
    while True:
        byte = frame[at]
        value, at, shift = value + (byte << shift), at + 1, shift + 7
        if byte < 128:
            return value, at


def text(value):
    return number(len(value)) + value


def read_text(frame, at):
    length, at = read_number(frame, at)
    return frame[at:at + length], at + length


HELLO = (text(b"version") + STRING + text(b"2.0") + text(b"max-frame-size") + UINT32 + number(16380)
         + text(b"capabilities") + STRING + text(b"pipelining"))
BYE = text(b"status-code") + UINT32 + number(0) + text(b"message") + STRING + text(b"bye")


def route(host, port):
    """The actions that set both variables."""
    return (SET_TRANSACTION_VARIABLE + text(b"ip") + IPV4 + ipaddress.IPv4Address(host).packed
            + SET_TRANSACTION_VARIABLE + text(b"port") + UINT32 + number(int(port)))


class Agent(asyncio.Protocol):
    remote = b""

    def connection_made(self, transport):
        self.transport, self.buffer = transport, b""

    def data_received(self, data):
        self.buffer += data
        answers = []
        while len(self.buffer) >= 4:
            end = 4 + int.from_bytes(self.buffer[:4], "big")
            if len(self.buffer) < end:
                break
            answers.append(self.answer(self.buffer[4:end]))
            self.buffer = self.buffer[end:]
        self.transport.write(b"".join(len(answer).to_bytes(4, "big") + answer for answer in answers))

    def answer(self, frame):
        stream, at = read_number(frame, 5)
        frame_id, at = read_number(frame, at)
        head = LAST_FRAGMENT + number(stream) + number(frame_id)
        if frame[0] == HAPROXY_HELLO:
            return bytes([AGENT_HELLO]) + head + HELLO
        if frame[0] != NOTIFY:
            return bytes([AGENT_DISCONNECT]) + LAST_FRAGMENT + number(0) + number(0) + BYE
        # One message with one argument: its name, the count, the argument's name, its type, the bytes.
        _, at = read_text(frame, at)
        _, at = read_text(frame, at + 1)
        data, _ = read_text(frame, at + 1)
        return bytes([ACK]) + head + (self.remote if b"\n" in data else b"")


async def main():
    path, remote = sys.argv[1:]
    Agent.remote = route(*remote.split(":"))
    if os.path.exists(path):
        os.unlink(path)
    server = await asyncio.get_running_loop().create_unix_server(Agent, path, backlog=1024)
    await server.serve_forever()


asyncio.run(main())
