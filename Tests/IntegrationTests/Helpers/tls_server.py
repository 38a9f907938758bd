"""A TLS server for tests. It says `port N`, then one line of JSON for each handshake and one for each end of a connection.

    tls_server.py CERTIFICATE KEY [option=value ...]

do=echo            sends back what comes; when the peer has said its end, adds the word `end` and ends as well
do=cut             reads once, sends `part`, and closes the TCP connection without close_notify
do=first           sends `first` at once, then echoes
do=half            reads once, sends `last` and its own end, then reads on until the peer's end
do=gate            does not begin the handshake before something is written to the FIFO gate=PATH
host=::1           listens there instead of on 127.0.0.1
port=N             listens there instead of on a free port
clients=FILE       requires a certificate signed by this authority
alpn=a,b           agrees on one of these
max=1.2            no newer version of TLS
proxy=1 or proxy=2 a PROXY header of this version comes first
"""

import base64
import json
import socket
import ssl
import struct
import sys
import threading

certificate, key = sys.argv[1:3]
options = dict(argument.split("=", 1) for argument in sys.argv[3:])
do = options.get("do", "echo")

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
if "clients" in options:
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(options["clients"])
if "alpn" in options:
    context.set_alpn_protocols(options["alpn"].split(","))
if options.get("max") == "1.2":
    context.maximum_version = ssl.TLSVersion.TLSv1_2
names = {}


def named(connection, name, _):
    names[threading.get_ident()] = name


context.sni_callback = named
lock = threading.Lock()


def say(**what):
    with lock:
        print(json.dumps(what), flush=True)


def exactly(connection, count):
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise OSError("the header is cut")
        data += more
    return data


def header(raw):
    """The PROXY header, read so that nothing behind it is."""
    if options["proxy"] == "1":
        line = b""
        while not line.endswith(b"\r\n"):
            line += exactly(raw, 1)
        return line.decode()
    fixed = exactly(raw, 16)
    rest = exactly(raw, struct.unpack("!H", fixed[14:])[0])
    return base64.b64encode(fixed + rest).decode()


class Stream:
    """TLS over a socket, each direction with an end of its own, which `SSLSocket` does not have."""

    def __init__(self, raw):
        self.raw = raw
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def do(self, call, *arguments):
        while True:
            try:
                result = call(*arguments)
            except ssl.SSLWantReadError:
                result = self
            except ssl.SSLError:
                self.flush()  # an alert says what was wrong
                raise
            self.flush()
            if result is not self:
                return result
            data = self.raw.recv(65536)
            if data:
                self.incoming.write(data)
            else:
                self.incoming.write_eof()

    def flush(self):
        if self.outgoing.pending:
            self.raw.sendall(self.outgoing.read())

    def read(self):
        """b"" is the peer's close_notify; a stream that is cut raises."""
        try:
            return self.do(self.tls.read, 65536)
        except ssl.SSLZeroReturnError:
            return b""

    def write(self, data):
        self.do(self.tls.write, data)

    def end(self):
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        self.flush()


def serve(raw):
    got = 0
    try:
        if do == "gate":
            with open(options["gate"]) as gate:
                gate.read()
        first = header(raw) if "proxy" in options else None
        stream = Stream(raw)
        stream.do(stream.tls.do_handshake)
        shown = stream.tls.getpeercert() if "clients" in options else None
        say(
            sni=names.pop(threading.get_ident(), None),
            version=stream.tls.version(),
            cipher=stream.tls.cipher()[0],
            alpn=stream.tls.selected_alpn_protocol(),
            reused=stream.tls.session_reused,
            client=shown and dict(pair for part in shown["subject"] for pair in part)["commonName"],
            header=first,
        )
        if do == "cut":
            got += len(stream.read())
            stream.write(b"part")
            raw.shutdown(socket.SHUT_RDWR)
            return say(ended="cut", got=got)
        if do == "first":
            stream.write(b"first")
        text = b""
        if do == "half":
            text = stream.read()
            got = len(text)
            stream.write(b"last")
            stream.end()
        while data := stream.read():
            got += len(data)
            if do == "half":
                text += data
            else:
                stream.write(data)
        if do != "half":
            stream.write(b"end")
            stream.end()
        say(ended="end", got=got, text=text.decode())
        raw.shutdown(socket.SHUT_WR)
        while raw.recv(65536):
            pass
    except (OSError, ValueError) as error:
        say(ended=str(error), got=got)
    finally:
        raw.close()


listener = socket.create_server(
    (options.get("host", "127.0.0.1"), int(options.get("port", 0))),
    family=socket.AF_INET6 if ":" in options.get("host", "") else socket.AF_INET,
)
print("port", listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
