"""For httprewrite.py and httpproxy.py: reads the requests of an HTTP/1 connection and writes them with other heads.

A connection may carry many requests, one after the other or at once, with bodies of a known length or in chunks.
All of them are read, or the second request would go by unseen.
"""

import h11

HEAD_BYTES_MAX = 65536

#: The headers that offer to go on in another protocol, and what Connection lists for them.
OFFERS = {b"upgrade", b"http2-settings"}


def rewrite_requests(req, change):
    """Rewrite until the client has ended.

    ``change(method, target, headers)`` returns the same three as the remote is to see them, or None: then nothing
    more goes to the remote.
    """
    try:
        rest, has_ended = b"", False
        while True:
            reader = Reader(req, rest, has_ended)
            if not rewrite_one(req, reader, change):
                return
            rest, has_ended = reader.parser.trailing_data
            if reader.leaves_http:
                # A tunnel, or a WebSocket: what follows is none of ours.
                req.write(rest)
                req.detach()
                return
    except h11.RemoteProtocolError as error:
        print(f"connection {req.connection}: {error}")
        req.abort()


class Reader:
    """The events of one request. It knows nothing of the answers, so each request has a parser of its own."""

    def __init__(self, req, rest, has_ended):
        self.parser = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        self.leaves_http = False
        self._req = req
        if rest:
            self.parser.receive_data(rest)
        if has_ended:
            self.parser.receive_data(b"")

    def next(self):
        while True:
            event = self.parser.next_event()
            if event is not h11.NEED_DATA:
                return event
            self.parser.receive_data(self._req.recv())


def rewrite_one(req, reader, change):
    """Rewrite a request; False when there is none, or no more is wanted."""
    request = reader.next()
    if not isinstance(request, h11.Request):
        return False
    headers = request.headers.raw_items()
    reader.leaves_http = request.method == b"CONNECT" or offers_websocket(headers)
    if not reader.leaves_http:
        headers = without_offers(headers)
    names = {name.lower() for name, _ in headers}
    changed = change(request.method, request.target, headers)
    if changed is None:
        return False
    method, target, headers = changed
    is_chunked = b"transfer-encoding" in names
    if is_chunked:
        # It goes before the length, which some would believe.
        headers = [(name, value) for name, value in headers if name.lower() != b"content-length"]
    lines = [b"%b %b HTTP/%b" % (method, target, request.http_version)]
    lines += [b"%b: %b" % header for header in headers]
    req.write(b"\r\n".join(lines) + b"\r\n\r\n")
    while True:
        event = reader.next()
        if isinstance(event, h11.Data):
            data = bytes(event.data)
            req.write(b"%x\r\n%b\r\n" % (len(data), data) if is_chunked else data)
        elif isinstance(event, h11.EndOfMessage):
            if is_chunked:
                trailers = b"".join(b"%b: %b\r\n" % header for header in event.headers.raw_items())
                req.write(b"0\r\n" + trailers + b"\r\n")
            break
    return True


def offers_websocket(headers):
    """Whether WebSocket follows. Who offers it and goes on in HTTP after all is not rewritten any more."""
    return b"upgrade" in listed(headers, b"connection") and b"websocket" in listed(headers, b"upgrade")


def without_offers(headers):
    """A server may take any other offer (h2c of curl --http2, say) or ignore it: here nobody would know which."""
    if OFFERS.isdisjoint(name.lower() for name, _ in headers):
        return headers
    kept = []
    for name, value in headers:
        if name.lower() == b"connection":
            value = b", ".join(word for word in map(bytes.strip, value.split(b",")) if word.lower() not in OFFERS)
            if not value:
                continue
        if name.lower() not in OFFERS:
            kept.append((name, value))
    return kept


def listed(headers, wanted):
    """The words of a header, in lower case, however many lines it has."""
    return {word.strip().lower() for name, value in headers if name.lower() == wanted for word in value.split(b",")}
