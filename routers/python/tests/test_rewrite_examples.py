"""The rewriting examples, on streams of a worker that is played by the test."""

from __future__ import annotations

import contextlib
import importlib.util
import random
import sys
import threading
import unittest
from typing import Any

from harness import EXAMPLES, RUNNER, Router
from test_rewrite import RewriteTest

HAS_H11 = importlib.util.find_spec("h11") is not None


def setUpModule() -> None:
    if not HAS_H11:
        # That must not look like success.
        print("\n*** h11 is missing: THE HTTP REWRITERS WERE NOT TESTED (see requirements.txt) ***", file=sys.stderr)


PIPELINED = (
    b"GET /one HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n\r\n"
    b"POST /two HTTP/1.1\r\nX-Body: length\r\nhost: {host}\r\nContent-Length: 11\r\n\r\nhello world"
    b"PUT /three HTTP/1.1\r\nHOST: {host}\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    b"5;name=value\r\nhello\r\n0\r\nX-Trailer: yes\r\n\r\n"
    b"GET /four?a=b HTTP/1.0\r\nHost: {host}\r\nConnection: keep-alive\r\n\r\n"
)


class Examples(RewriteTest):
    def example(self, name: str, **env: str) -> Router:
        router = self.start(sys.executable, RUNNER, EXAMPLES / name, env=env)
        self.worker.hello(router)
        return router

    def rewritten(self, router: Router, data: bytes, *, seed: int = 0, **params: Any) -> bytes:
        """What comes out when this goes in, in pieces, and then ends."""
        chance = random.Random(seed)
        with self.worker.stream(router, **params) as stream:

            def pour() -> None:
                sent = 0
                with contextlib.suppress(BrokenPipeError):  # it may have had enough
                    while sent < len(data):
                        count = chance.choice((1, 3, 40, 4096))
                        stream.send(data[sent : sent + count])
                        sent += count
                    stream.end()

            writer = threading.Thread(target=pour)
            writer.start()
            got = stream.rest()
            writer.join()
        return got

    def test_transparentrw(self) -> None:
        router = self.example("transparentrw.py", REMOTE="h:1")
        self.assertEqual(router.ask(b"x"), {"remote": "h:1"})
        data = random.Random(1).randbytes(300_000)
        for method in ("rewrite_request", "rewrite_response"):
            self.assertEqual(self.rewritten(router, data, method=method), data)
            self.assertEqual(router.receive()["method"], "stream_end")

    @unittest.skipUnless(HAS_H11, "needs examples/requirements.txt")
    def test_httprewrite_changes_the_host_of_every_request_and_nothing_else(self) -> None:
        router = self.example("httprewrite.py", REMOTE="h:1", HOST="b.example")
        self.assertEqual(router.ask(b"x"), {"remote": "h:1"})
        for seed in range(10):
            got = self.rewritten(router, PIPELINED.replace(b"{host}", b"a.example"), seed=seed)
            self.assertEqual(router.receive()["method"], "stream_end")
            self.assertEqual(got.count(b"b.example"), 4)
            self.assertEqual(requests(got), requests(PIPELINED.replace(b"{host}", b"b.example")))
        body = random.Random(2).randbytes(500_000)
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n"
        self.assertEqual(self.rewritten(router, head + body), head.replace(b": a", b": b.example") + body)
        self.assertEqual(router.receive()["method"], "stream_end")
        self.assertEqual(router.stderr(), "")

    @unittest.skipUnless(HAS_H11, "needs examples/requirements.txt")
    def test_httprewrite_does_not_let_two_lengths_through(self) -> None:
        router = self.example("httprewrite.py")
        got = self.rewritten(
            router,
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        )
        self.assertNotIn(b"Content-Length", got)
        self.assertEqual(router.receive()["method"], "stream_end")

    @unittest.skipUnless(HAS_H11, "needs examples/requirements.txt")
    def test_httprewrite_leaves_when_http_does(self) -> None:
        router = self.example("httprewrite.py")
        for head in (
            b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: x, Upgrade\r\nUpgrade: WebSocket\r\n\r\n",
            b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        ):
            with self.subTest(head), self.worker.stream(router) as stream:
                stream.send(head + b"\x81\x05he")
                self.assertEqual(router.receive()["method"], "detach")
                stream.send(b"llo")
                stream.end()
                self.assertEqual(stream.rest(), head.replace(b"Host: a", b"Host: b.example") + b"\x81\x05hello")
                self.assertEqual(router.receive()["method"], "stream_end")

    @unittest.skipUnless(HAS_H11, "needs examples/requirements.txt")
    def test_httprewrite_does_not_offer_what_it_would_not_understand_and_goes_on(self) -> None:
        router = self.example("httprewrite.py", HOST="b.example")
        follows = b"GET /two HTTP/1.1\r\nHost: a.example\r\nConnection: close,TE\r\n\r\n"
        for offered, passed_on in (
            # As curl --http2 does.
            (b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAA\r\n", b""),
            (b"connection: keep-alive,upgrade\r\nUPGRADE: foo/2, h2c\r\n", b"connection: keep-alive\r\n"),
            (b"Upgrade: websocket\r\n", b""),  # without the Connection that makes it an offer
        ):
            with self.subTest(offered):
                head = b"POST /one HTTP/1.1\r\nHost: %b\r\n%bX-Empty: \r\nContent-Length: 2\r\n\r\nhi"
                got = self.rewritten(router, head % (b"a.example", offered) + follows)
                self.assertEqual(got, head % (b"b.example", passed_on) + follows.replace(b"a.example", b"b.example"))
                self.assertEqual(router.receive()["method"], "stream_end")

    @unittest.skipUnless(HAS_H11, "needs examples/requirements.txt")
    def test_what_is_no_http_or_is_cut_off_is_an_abort(self) -> None:
        router = self.example("httprewrite.py")
        for data in (
            b"\x16\x03\x01 hello\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000,
        ):
            with self.subTest(data[:20]):
                self.rewritten(router, data)
                self.assertIn("result", router.call(router.question(b"x")))  # and no stream_end before it
        self.assertNotIn("Traceback", router.stderr())
        self.assertEqual(router.stderr().count("connection 1.7: "), 3)

    @unittest.skipUnless(HAS_H11, "needs examples/requirements.txt")
    def test_httpproxy_decides_by_the_first_line(self) -> None:
        router = self.example("httpproxy.py")
        self.assertIsNone(router.ask(b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n"))
        for url, origin in (
            ("http://a.example/x", ["a.example", 80]),
            ("HTTP://u:p@A.Example:81?q", ["a.example", 81]),
            ("http://[::1]:82/", ["::1", 82]),
        ):
            verdict = router.ask(f"GET {url} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            self.assertEqual(verdict, {"remote": origin, "extra": origin})
        connect = b"CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n"
        verdict = router.ask(connect + b"\x16\x03")
        self.assertEqual(verdict.pop("reply"), "HTTP/1.1 200 Connection established\r\n\r\n")
        self.assertEqual(verdict, {"remote": "b.example:443", "consume": len(connect), "rewrite": False})
        for line in (
            b"GET / HTTP/1.1",
            b"GET https://a/ HTTP/1.1",
            b"GET http://a:b/ HTTP/1.1",
            b"hello",
            b"GET http:///x HTTP/1.1",
        ):
            self.assertTrue(router.ask(line + b"\r\n\r\n")["close"].startswith("HTTP/1.1 400 "), line)
        error = router.call(router.request("proxy_error", type="dns", message="no", client=None, listener="x"))
        for verdict in (error["result"], router.ask(b"\r\n\r\n")):
            head, _, body = verdict["close"].partition("\r\n\r\n")
            self.assertIn(f"Content-Length: {len(body)}\r\n", head + "\r\n")

    @unittest.skipUnless(HAS_H11, "needs examples/requirements.txt")
    def test_httpproxy_asks_the_server_as_servers_are_asked(self) -> None:
        router = self.example("httpproxy.py")
        one = b"GET http://u:p@a.example:81/x?y=1#z HTTP/1.1\r\nHost: no\r\nProxy-Connection: close\r\nA: b\r\n\r\n"
        two = b"POST http://a.example:81 HTTP/1.1\r\nProxy-Authorization: x\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
        other = b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n"
        got = self.rewritten(router, one + two, extra=["a.example", 81])
        self.assertEqual(
            got,
            b"GET /x?y=1 HTTP/1.1\r\nHost: a.example:81\r\nA: b\r\n\r\n"
            b"POST / HTTP/1.1\r\nHost: a.example:81\r\nContent-Length: 2\r\n\r\nhi",
        )
        self.assertEqual(router.receive()["method"], "stream_end")
        # Another server's request goes nowhere, and what came before it is whole.
        with self.worker.stream(router, extra=["a.example", 81]) as stream:
            stream.send(two + other)
            self.assertTrue(stream.rest().endswith(b"\r\n\r\nhi"))
            self.assertEqual(router.receive()["method"], "stream_end")


def requests(data: bytes) -> list[Any]:
    """What they say, however their bodies are cut into chunks."""
    import h11

    found = []
    while data:
        parser = h11.Connection(h11.SERVER)
        parser.receive_data(data)
        request = parser.next_event()
        body = b""
        while isinstance(event := parser.next_event(), h11.Data):
            body += bytes(event.data)
        head = (request.method, request.target, request.http_version, request.headers.raw_items())
        found.append((*head, body, event.headers.raw_items()))
        data = parser.trailing_data[0]
    return found


if __name__ == "__main__":
    unittest.main()
