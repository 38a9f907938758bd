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
        self.assertGreaterEqual(names, {"socks5", "sni_router", "smtp_or_ssh", "balance"})
        self.assertGreaterEqual(names, {"tls_remote", "client_certificate"})
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

    def test_socks5(self) -> None:
        router = self.example("socks5.py")

        def answer(code: int) -> str:
            return "\x05" + chr(code) + "\x00\x01" + "\x00" * 6

        for greeting in (b"\5\1\0", b"\5\3\1\0\2"):
            for n in range(len(greeting)):
                if n:
                    self.assertIsNone(router.ask(greeting[:n]))
            verdict = {"reply": "\x05\x00", "consume": len(greeting), "state": "request"}
            self.assertEqual(router.ask(greeting), verdict)
            self.assertEqual(router.ask(greeting + b"\5\1\0"), verdict)  # which is asked about next
        self.assertEqual(router.ask(b"\5\1\2"), {"close": "\x05\xff"})
        self.assertEqual(router.ask(b"GET / HTTP/1.1\r\n"), {"close": True})

        def ask(data: bytes) -> Any:
            return router.ask(data, state="request")

        for kind, address, host in (
            (1, b"\x0a\x00\x00\x01", "10.0.0.1"),
            (3, b"\x0bexample.org", "example.org"),
            (4, bytes(15) + b"\1", "::1"),
        ):
            whole = bytes([5, 1, 0, kind]) + address + b"\1\xbb"
            for n in range(len(whole)):
                self.assertIsNone(ask(whole[:n]))
            verdict = {"remote": [host, 443], "reply": answer(0), "consume": len(whole)}
            self.assertEqual(ask(whole), verdict)
            self.assertEqual(ask(whole + b"early"), verdict)
        for wrong, code in (
            (b"\5\2\0\1\1\2\3\4\0\x50", 7),
            (b"\5\1\0\2\1\2\3\4\0\x50", 8),
            (b"\5\1\0\1\1\2\3\4\0\0", 1),
            (b"\5\1\0\3\0\0\x50", 1),
            (b"\5\1\0\3\3a b\0\x50", 1),
            (b"\5\1\0\3\3a\0b\0\x50", 1),
            (b"\5\1\0\3\1\xff\0\x50", 1),
        ):
            self.assertEqual(ask(wrong), {"close": answer(code)})
        for kind_of_error, code in (("connect_refused", 5), ("connect_timeout", 6), ("dns", 4), ("loop", 1)):
            result = router.call(router.request("proxy_error", type=kind_of_error))["result"]
            self.assertEqual(result, {"close": answer(code)})

    def test_sni_router(self) -> None:
        router = self.example("sni_router.py", ROUTES="a.example=h:1,*.b.example=h:2")

        def ask(**hello: Any) -> Any:
            return router.ask(b"\x16", client_hello=hello)

        def remote(address: str, name: str) -> dict[str, Any]:
            return {"remote": address, "note": name, "cache": {"key": "sni", "ttl": 60}}

        self.assertEqual(ask(state="complete", sni="A.Example", alpn=["h2"]), remote("h:1", "a.example"))
        self.assertEqual(ask(state="complete", sni="x.b.example", alpn=[]), remote("h:2", "x.b.example"))
        self.assertIsNone(ask(state="need_more"))
        for sni in ("b.example", "y.x.b.example", "c", "*.b.example."):
            verdict = ask(state="complete", sni=sni, alpn=[])
            self.assertEqual(verdict, {"close": True, "note": f"unknown name {sni}"})
        no_name = {"close": True, "note": "no server name"}
        self.assertEqual(ask(state="complete", sni=None, sni_unusable=True, alpn=[]), no_name)
        for state in ("not_tls", "malformed", "too_large", "something_new"):
            self.assertEqual(ask(state=state), {"close": True, "note": "no TLS"})
        self.assertEqual(router.ask(b"GET / HTTP/1.1\r\n"), {"close": True, "note": "no TLS"})

    def test_tls_remote(self) -> None:
        router = self.example("tls_remote.py", SITE="a.example", CA_CERTS="ca.pem")
        verdict = {
            "remote": "a.example:443",
            "ssl": True,
            "ssl_args": {"server_hostname": "a.example", "alpn": ["http/1.1"], "ca_certs": "ca.pem"},
            "data": "POST /x HTTP/1.1\r\nX: y\r\nHost: a.example\r\nConnection: close\r\n\r\nbody\xff",
        }
        data = b"POST /x HTTP/1.1\r\nhost: 127.0.0.1\r\nX: y\r\nConnection: keep-alive\r\n\r\nbody\xff"
        self.assertEqual(router.ask(data), verdict)
        self.assertIsNone(router.ask(data[:30]))
        self.assertTrue(router.ask(b"x" * 16384)["close"].startswith("HTTP/1.1 400 "))
        page = router.call(router.request("proxy_error", type="tls", message="h:1: hostname mismatch"))["result"]
        self.assertTrue(page["close"].startswith("HTTP/1.1 502 "))
        self.assertTrue(page["close"].endswith("a.example: tls: h:1: hostname mismatch\n"))
        router = self.example("tls_remote.py", SITE="b.example", REMOTE="[::1]:8443")
        verdict = router.ask(b"GET / HTTP/1.0\r\n\r\n")
        self.assertEqual(verdict["remote"], "[::1]:8443")
        self.assertEqual(verdict["ssl_args"], {"server_hostname": "b.example", "alpn": ["http/1.1"]})

    def test_client_certificate(self) -> None:
        router = self.example("client_certificate.py", WHO="URI:x://a?b=c=h:1,DNS:d=h:2", SITES="s=h:3")

        def ask(names: list[str] | None, sni: str | None) -> Any:
            shown = names is not None and {"subject": "CN=a", "issuer": "", "names": names, "fingerprint": "0f" * 32}
            tls = {"version": "TLSv1.3", "cipher": "", "sni": sni, "alpn": None, "client_certificate": shown or None}
            return router.ask(b"x", tls=tls)

        self.assertEqual(ask(["IP:::1", "URI:x://a?b=c"], "s"), {"remote": "h:1", "note": "URI:x://a?b=c " + "0f" * 8})
        self.assertEqual(ask(["DNS:d"], None), {"remote": "h:2", "note": "DNS:d " + "0f" * 8})
        for names in (None, [], ["DNS:e"]):
            self.assertEqual(ask(names, "s"), {"remote": "h:3", "note": "s"})
        self.assertEqual(ask(["DNS:e"], "t"), {"close": True, "note": "nobody for CN=a"})
        self.assertEqual(ask(None, None), {"close": True, "note": "nobody for None"})
        self.assertEqual(router.ask(b"x"), {"close": True, "note": "came without TLS"})

    def test_smtp_or_ssh(self) -> None:
        router = self.example("smtp_or_ssh.py", SMTP="m:25", SSH="s:22", MAIL_FROM="192.0.2.0/24,2001:db8::/32")
        self.assertEqual(router.hello()["events"], ["connect", "silence"])
        for client in (["192.0.2.7", 1], ["2001:db8::7", 1]):
            self.assertEqual(router.ask(b"", event="connect", client=client), {"remote": "m:25", "note": "known"})
        for other in (["127.0.0.1", 1], ["fe80::1%lo", 1], None):
            self.assertIsNone(router.ask(b"", event="connect", client=other))
        self.assertEqual(router.ask(b"", event="silence"), {"remote": "m:25", "note": "silent"})
        for data in (b"S", b"SSH-"[:3]):
            self.assertIsNone(router.ask(data))
            self.assertEqual(router.ask(data, event="silence"), {"remote": "m:25", "note": "early"})
        self.assertEqual(router.ask(b"SSH-2.0-x\r\n"), {"remote": "s:22", "note": "ssh"})
        self.assertEqual(router.ask(b"EHLO x\r\n"), {"remote": "m:25", "note": "early"})

    def test_balance(self) -> None:
        router = self.example("balance.py", REMOTES="a:1,b:2")
        self.assertEqual(router.hello()["methods"], ["proxy", "proxy_error", "cancel", "shutdown", "closed"])

        def ask(connection: str) -> Any:
            return router.ask(b"x", connection=connection)["remote"]

        def closed(connection: str) -> None:
            router.notify(
                "closed", connection=connection, bytes_to_remote=0, bytes_to_client=0, duration_ms=1, reason="done"
            )

        def failed(connection: str, *remotes: str) -> Any:
            attempts = [{"remote": remote, "type": "connect_refused", "message": ""} for remote in remotes]
            message = router.request("proxy_error", type="connect_refused", connection=connection, attempts=attempts)
            return router.call(message)["result"]

        self.assertEqual([ask(f"1.{n}") for n in range(5)], ["a:1", "b:2", "a:1", "b:2", "a:1"])
        for connection in ("1.0", "1.2", "9.9", "1.2"):
            closed(connection)  # a: 1, b: 2; some we do not know, or not any more
        self.assertEqual([ask("1.5"), ask("1.6")], ["a:1", "a:1"])
        # What fails is replaced, counted where it is now, and left out.
        other = failed("1.6", "a:1")
        self.assertEqual(other, {"remote": "b:2", "connect_timeout": 2})
        self.assertEqual([ask("1.7"), ask("1.8")], ["b:2", "b:2"])
        self.assertIsNone(failed("1.8", "a:1", "b:2"))
        for n in range(9):
            closed(f"1.{n}")
        self.assertEqual([ask("2.0"), ask("2.1")], ["a:1", "b:2"])  # all have failed: all are tried
        self.assertEqual(router.stderr(), "")

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
