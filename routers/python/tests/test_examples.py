"""The examples, as their first lines say to run them."""

from __future__ import annotations

import os
import sys
import unittest
from typing import Any

from harness import EXAMPLES, RUNNER, Router, RouterTest

GRANTED = "\x00\x5a" + "\x00" * 6
REJECTED = {"close": "\x00\x5b" + "\x00" * 6}


class Examples(RouterTest):
    def example(self, name: str, **env: str) -> Router:
        return self.start(sys.executable, RUNNER, EXAMPLES / name, env=env)

    def test_none_has_the_name_of_a_standard_module(self) -> None:
        names = {path.stem for path in EXAMPLES.glob("*.py")}
        self.assertGreaterEqual(names, {"transparent", "host_router", "socks4", "sendfile", "errors", "conformance"})
        if sys.version_info >= (3, 10):
            self.assertEqual(names & sys.stdlib_module_names, set())

    def test_transparent(self) -> None:
        self.assertEqual(self.example("transparent.py").ask(b"x"), {"remote": "127.0.0.1:8000"})
        self.assertEqual(self.example("transparent.py", REMOTE="[::1]:1").ask(b"x"), {"remote": "[::1]:1"})

    def test_host_router(self) -> None:
        router = self.example("host_router.py", ROUTES="a.example=h:1,b.example=[::1]:2")
        for host, remote in ((b"a.example", "h:1"), (b"B.Example:5000", "[::1]:2"), (b"  a.example  ", None)):
            verdict = router.ask(b"GET / HTTP/1.1\r\nUser-Agent: x\r\nhost:" + host + b"\r\n\r\n")
            if remote is None:
                continue
            self.assertEqual(verdict, {"remote": remote})
        self.assertIsNone(router.ask(b"GET / HTTP/1.1\r\nHost: a.exam"))
        self.assertTrue(router.ask(b"GET / HTTP/1.1\r\nHost: c\r\n\r\n")["close"].startswith("HTTP/1.1 404 "))
        self.assertTrue(router.ask(b"GET / HTTP/1.0\r\nX: y\r\n\r\n")["close"].startswith("HTTP/1.1 400 "))
        self.assertEqual(router.ask(b"GET / HTTP/1.1\r\nX-Host: b.example\r\nHost: a.example\r\n"), {"remote": "h:1"})
        for verdict in (router.ask(b"x\r\nHost: c\r\n\r\n"), router.ask(b"\r\n\r\n")):
            head, _, body = verdict["close"].partition("\r\n\r\n")
            self.assertIn(f"Content-Length: {len(body)}\r\n", head)

    def test_socks4(self) -> None:
        router = self.example("socks4.py")

        def request(port: int, address: bytes, rest: bytes, command: int = 1, version: int = 4) -> bytes:
            return bytes([version, command]) + port.to_bytes(2, "big") + address + rest

        def granted(remote: list[Any], data: str = "") -> dict[str, Any]:
            return {"remote": remote, "reply": GRANTED, "data": data}

        whole = request(80, b"\x0a\x00\x00\x01", b"user\0")
        for n in range(len(whole)):
            self.assertIsNone(router.ask(whole[:n]))
        self.assertEqual(router.ask(whole), granted(["10.0.0.1", 80]))
        self.assertEqual(router.ask(whole + b"\x00early"), granted(["10.0.0.1", 80], "\x00early"))
        self.assertEqual(router.ask(request(256, b"\x01\x02\x03\x04", b"\0")), granted(["1.2.3.4", 256]))
        # SOCKS4a
        named = request(443, b"\0\0\0\x01", b"user\0example.org\0")
        for n in range(len(named)):
            self.assertIsNone(router.ask(named[:n]))
        self.assertEqual(router.ask(named + b"x"), granted(["example.org", 443], "x"))
        # What is refused
        for wrong in (
            request(80, b"\x01\x02\x03\x04", b"\0", command=2),
            request(80, b"\x01\x02\x03\x04", b"\0", version=5),
            request(0, b"\x01\x02\x03\x04", b"\0"),
        ):
            self.assertEqual(router.ask(wrong), REJECTED)
        self.assertEqual(router.call(router.request("proxy_error", type="connect_refused"))["result"], REJECTED)

    def test_sendfile(self) -> None:
        router = self.example("sendfile.py")
        welcome = (EXAMPLES / "welcome.txt").read_bytes()
        self.assertIsNone(router.ask(b"GET / HTTP/1.1\r\n"))
        verdict = router.ask(b"GET / HTTP/1.1\r\n\r\n")
        self.assertTrue(verdict["attached"])
        self.assertIn(f"Content-Length: {len(welcome)}\r\n", verdict["reply"])
        self.assertEqual(os.pread(router.descriptors[0], 1000, 0), welcome)

    def test_errors(self) -> None:
        router = self.example("errors.py", REMOTE="h:1")
        self.assertEqual(router.ask(b"x")["remote"], "h:1")
        for kind, status in (("connect_refused", "502 Bad Gateway"), ("inactivity_timeout", "504 Gateway Timeout")):
            page = router.call(router.request("proxy_error", type=kind, message="no <luck>"))["result"]["close"]
            head, _, body = page.partition("\r\n\r\n")
            self.assertTrue(head.startswith(f"HTTP/1.1 {status}\r\n"))
            self.assertIn(f"Content-Length: {len(body)}\r\n", head)
            self.assertIn("no &lt;luck&gt;", body)
        self.assertIn("connect_refused: no <luck>", router.stderr())


if __name__ == "__main__":
    unittest.main()
