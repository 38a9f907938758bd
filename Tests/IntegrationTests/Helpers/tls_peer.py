#!/usr/bin/env python3
"""One end of a TLS connection that does what it is told, step by step, and says what it saw, one JSON object a line.

    tls_peer.py client PORT [options] STEP...      connects to 127.0.0.1
    tls_peer.py remote --cert FILE [options] STEP...    prints {"port": N}, serves every connection, each on its own thread

Options: --cert FILE (certificate and key), --ca FILE (trusted; without it nothing is verified), --name NAME (SNI and what is
verified), --alpn A,B, --max 1.2, --want (ask clients for a certificate).

Steps: send=TEXT  sendn=N (N bytes of a pattern)  recv=N  until=TEXT  all (to the end: count, sha256, how it ended)
both=N (send N bytes and read N back at the same time)  echo (send back what comes, to the end)  notify (close_notify)
fin (end TCP without close_notify)  rst  gate=PATH (waits until a FIFO is written)  say=TEXT  raw=TEXT (past TLS)  facts  session=FILE (keep the session; before the handshake: use it)
"""

import argparse
import hashlib
import json
import select
import socket
import ssl
import struct
import threading


def pattern(start, count):
    """The same bytes for the same place in a stream."""
    block = PATTERN
    offset = start % len(block)
    out = block[offset:offset + count]
    while len(out) < count:
        out += block[:count - len(out)]
    return out


PATTERN = bytes((i * 7 + (i >> 8) * 13) & 255 for i in range(1 << 18))


class End(Exception):
    """How the other side ended: end (close_notify), cut (without it), reset, or OpenSSL's complaint."""


class Peer:
    """A TLS connection over memory, so that close_notify and the end of TCP can be told apart."""

    def __init__(self, sock, context, server, name=None, session=None):
        self.sock = sock
        # What was said is on its way, also before a reset.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_side=server, server_hostname=name, session=session)
        self.eof = False

    def flush(self):
        data = self.outgoing.read()
        if data:
            self.sock.sendall(data)

    def fill(self):
        try:
            data = self.sock.recv(262144)
        except ConnectionResetError:
            raise End("reset")
        if data:
            self.incoming.write(data)
        elif self.eof:
            raise End("cut")
        else:
            self.eof = True
            self.incoming.write_eof()

    def call(self, function, *arguments):
        while True:
            try:
                result = function(*arguments)
                self.flush()
                return result
            except ssl.SSLWantReadError:
                self.flush()
                self.fill()
            except ssl.SSLZeroReturnError:
                raise End("end")
            except ssl.SSLEOFError:
                raise End("cut")
            except (BrokenPipeError, ConnectionResetError):
                raise End("reset")
            except ssl.SSLError as error:
                try:
                    self.flush()
                except OSError:
                    pass
                raise End(f"error: {getattr(error, 'verify_message', None) or error.reason}")

    def read(self, count):
        data = self.call(self.tls.read, count)
        if not data:
            raise End("end")
        return data

    def write(self, data):
        view = memoryview(data)
        while view:
            view = view[self.call(self.tls.write, view[:65536]):]

    def notify(self):
        """close_notify; the other side may go on."""
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            pass
        try:
            self.flush()
        except OSError:
            pass


def say(**what):
    print(json.dumps(what), flush=True)


def both(peer, total):
    """Sends and reads at once; one thread, so that neither side waits for the other."""
    sent, got, digest = 0, 0, hashlib.sha256()
    peer.sock.setblocking(False)
    backlog = b""
    try:
        while got < total or sent < total or backlog:
            if sent < total and not backlog:
                count = min(65536, total - sent)
                sent += peer.tls.write(pattern(sent, count))
                backlog = peer.outgoing.read()
            readable, writable, _ = select.select(
                [peer.sock], [peer.sock] if backlog else [], [], 30)
            if not readable and not writable:
                raise End("stuck")
            if writable:
                backlog = backlog[peer.sock.send(backlog):]
            if readable:
                data = peer.sock.recv(262144)
                if not data:
                    raise End("cut")
                peer.incoming.write(data)
                while True:
                    try:
                        plain = peer.tls.read(262144)
                    except ssl.SSLWantReadError:
                        break
                    got += len(plain)
                    digest.update(plain)
    finally:
        peer.sock.setblocking(True)
    expected = hashlib.sha256()
    for start in range(0, total, 1 << 18):
        expected.update(pattern(start, min(1 << 18, total - start)))
    say(both=got, same=digest.digest() == expected.digest())


def facts(peer):
    tls = peer.tls
    certificate = tls.getpeercert() or {}
    names = [value for _, value in certificate.get("subjectAltName", ())]
    der = tls.getpeercert(True)
    say(version=tls.version(), cipher=tls.cipher()[0], alpn=tls.selected_alpn_protocol(), reused=tls.session_reused,
        names=names, fingerprint=hashlib.sha256(der).hexdigest() if der else None)


def step(peer, word, value):
    if word == "send":
        peer.write(value.encode().decode("unicode_escape").encode("latin-1"))
    elif word == "sendn":
        total = int(value)
        for start in range(0, total, 65536):
            peer.write(pattern(start, min(65536, total - start)))
    elif word == "recv":
        data = b""
        while len(data) < int(value):
            data += peer.read(int(value) - len(data))
        say(recv=data.decode("latin-1"))
    elif word == "until":
        data = b""
        while not data.endswith(value.encode()):
            data += peer.read(1)
        say(recv=data.decode("latin-1"))
    elif word == "all":
        digest, count, text = hashlib.sha256(), 0, b""
        try:
            while True:
                data = peer.read(262144)
                count += len(data)
                digest.update(data)
                if len(text) < 4000:
                    text += data[:4000]
        except End as end:
            say(all=text.decode("latin-1"), count=count, sha256=digest.hexdigest(), ending=str(end))
    elif word == "both":
        both(peer, int(value))
    elif word == "echo":
        try:
            while True:
                peer.write(peer.read(65536))
        except End as end:
            if str(end) == "end":
                peer.notify()
            raise
    elif word == "notify":
        peer.notify()
    elif word == "fin":
        peer.sock.shutdown(socket.SHUT_WR)
    elif word == "rst":
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.sock.close()
    elif word == "gate":
        with open(value, "rb") as gate:
            gate.read()
    elif word == "say":
        say(recv=value)
    elif word == "raw":
        peer.sock.sendall(value.encode().decode("unicode_escape").encode("latin-1"))
    elif word == "facts":
        facts(peer)
    else:
        raise SystemExit(f"no such step: {word}")


def serve(peer, steps):
    """Shakes hands and takes the steps; what ends it is said."""
    try:
        peer.call(peer.tls.do_handshake)
        if peer.tls.server_side:
            say(sni=getattr(peer, "sni", None), peer=(peer.tls.getpeercert() or {}).get("subject", [[["", None]]])[-1][0][1],
                reused=peer.tls.session_reused, alpn=peer.tls.selected_alpn_protocol(), version=peer.tls.version())
        for word, _, value in (text.partition("=") for text in steps):
            step(peer, word, value)
    except End as end:
        say(ending=str(end))
    except OSError as error:
        say(ending=f"os: {error}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["client", "remote"])
    parser.add_argument("--cert")
    parser.add_argument("--ca")
    parser.add_argument("--name")
    parser.add_argument("--alpn")
    parser.add_argument("--max")
    parser.add_argument("--want", action="store_true")
    parser.add_argument("--times", type=int, default=1, help="clients: so often, with the session of the one before")
    parser.add_argument("--full", action="store_true", help="clients: without that session")
    parser.add_argument("rest", nargs="*")
    options = parser.parse_intermixed_args()
    client = options.role == "client"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if client else ssl.PROTOCOL_TLS_SERVER)
    if client:
        context.check_hostname = bool(options.ca and options.name)
        context.verify_mode = ssl.CERT_REQUIRED if options.ca else ssl.CERT_NONE
    elif options.want:
        context.verify_mode = ssl.CERT_REQUIRED
    if options.ca:
        context.load_verify_locations(options.ca)
    if options.cert:
        context.load_cert_chain(options.cert)
    if options.alpn:
        context.set_alpn_protocols(options.alpn.split(","))
    if options.max == "1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if client:
        port, *steps = options.rest
        session = None
        for _ in range(options.times):
            sock = socket.create_connection(("127.0.0.1", int(port)))
            sock.settimeout(60)
            peer = Peer(sock, context, False, options.name, session)
            serve(peer, steps)
            session = None if options.full else peer.tls.session
            sock.close()
        return
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    say(port=listener.getsockname()[1])
    names = {}

    def named(tls, name, _):
        names[id(tls)] = name

    context.sni_callback = named
    def one(sock):
        sock.settimeout(60)
        peer = Peer(sock, context, True)
        try:
            peer.call(peer.tls.do_handshake)
        except End as end:
            say(ending=str(end))
            sock.close()
            return
        peer.sni = names.pop(id(peer.tls), None)
        serve(peer, options.rest)
        try:
            sock.close()
        except OSError:
            pass

    while True:
        sock, _ = listener.accept()
        threading.Thread(target=one, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    main()
