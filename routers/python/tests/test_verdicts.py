"""Every way to write a verdict in Python, and what it becomes on the wire."""

from __future__ import annotations

import array
import io
import json
import pathlib
import ssl
import sys
import types
import unittest
from typing import Any

from harness import PACKAGE

sys.path.insert(0, str(PACKAGE))

from tproxy._verdict import encode  # noqa: E402


def result(verdict: Any) -> Any:
    text, attachment = encode(verdict)
    assert attachment is None
    return json.loads(text)


class Verdicts(unittest.TestCase):
    def test_remotes(self) -> None:
        for remote, expected in (
            ("127.0.0.1:8000", "127.0.0.1:8000"),
            (b"example.org:80", "example.org:80"),
            (("127.0.0.1", 8000), ["127.0.0.1", 8000]),
            (["::1", 8000], ["::1", 8000]),
            ((b"example.org", "80"), ["example.org", 80]),
            (("::1", 8000, 0, 0), ["::1", 8000]),
            ("unix:/run/x.sock", "unix:/run/x.sock"),
        ):
            with self.subTest(remote):
                self.assertEqual(result({"remote": remote}), {"remote": expected})
        self.assertEqual(result({"remotes": [("a", 1), "b:2"]}), {"remotes": [["a", 1], "b:2"]})
        self.assertEqual(result({"remotes": (r for r in ["b:2"])}), {"remotes": ["b:2"]})

    def test_byte_strings_of_every_type(self) -> None:
        every = bytes(range(256))
        text = every.decode("latin-1")
        for key in ("data", "reply", "close"):
            for value in (
                every,
                bytearray(every),
                memoryview(every),
                memoryview(array.array("I", every)),
                text,
                [every[:100], text[100:200], bytearray(every[200:])],
                (every,),
                iter([every]),
                (bytes([byte]) for byte in every),
                io.BytesIO(every),
                io.StringIO(text),
            ):
                with self.subTest(key, type=type(value).__name__):
                    self.assertEqual(result({key: value}), {key: text})
        self.assertEqual(result({"reply": []}), {"reply": ""})

    def test_a_file_as_reply_is_sent_whole_each_time(self) -> None:
        page = io.BytesIO(b"page")
        for _ in range(2):
            self.assertEqual(result({"reply": page}), {"reply": "page"})

    def test_close_as_a_bool_stays_one(self) -> None:
        self.assertEqual(result({"close": True}), {"close": True})
        self.assertEqual(result({"close": False}), {"close": False})

    def test_paths(self) -> None:
        for path, expected in (
            ("relative/é", "relative/é"),
            ("/a/é".encode(), "/a/é"),
            (pathlib.Path("/a/b"), "/a/b"),
        ):
            self.assertEqual(result({"file": path}), {"file": expected})

    def test_how_to_speak_tls_to_a_remote(self) -> None:
        for given, expected in (
            ({}, {}),
            ({"certfile": pathlib.Path("a/b.pem"), "keyfile": b"k", "ca_certs": "c"}, ["a/b.pem", "k", "c"]),
            ({"certfile": None, "cert_reqs": ssl.CERT_NONE, "alpn": (b"h2", "\xff")}, [None, 0, ["h2", "\xff"]]),
            ({"ssl_version": ssl.PROTOCOL_TLS_CLIENT, "ciphers": b"AES"}, [2, "AES"]),
            ({"ssl_version": 5, "server_hostname": b"a.example", "alpn": "h2"}, [5, "a.example", "h2"]),
            ({"server_side": False, "unknown": [1]}, [False, [1]]),
        ):
            arguments = dict(zip(given, expected))
            verdict = {"remote": "h:1", "ssl": True, "ssl_args": types.MappingProxyType(given), "proxy_protocol": 2}
            self.assertEqual(result(verdict), {**verdict, "ssl_args": arguments})
        for wrong, kind, text in (
            ([("certfile", "c")], TypeError, "ssl_args: a dict is needed, not list"),
            ({"alpn": [1]}, TypeError, "ssl_args.alpn: a chunk must be bytes, not int"),
            ({"alpn": ["\u0100"]}, ValueError, "ssl_args.alpn: the character U\\+0100"),
            ({"certfile": b"\xff"}, ValueError, "ssl_args.certfile: the path is not UTF-8"),
            ({1: 2}, TypeError, "ssl_args: the key 1 is not a str"),
            ({"ca_certs": {1}}, TypeError, "ssl_args: .*set"),
        ):
            with self.assertRaisesRegex(kind, text):
                encode({"remote": "h:1", "ssl": True, "ssl_args": wrong})

    def test_what_is_not_changed(self) -> None:
        verdict = {"wait": 5, "consume": 3, "state": {"a": [1, None, "é"]}, "connect_timeout": 0.5, "file": None}
        self.assertEqual(result(verdict), verdict)
        self.assertIsNone(result(None))
        self.assertEqual(result({}), {})

    def test_any_mapping_is_a_verdict(self) -> None:
        self.assertEqual(result(types.MappingProxyType({"close": True})), {"close": True})

    def test_bytes_above_0x7f_take_two_bytes_on_the_wire(self) -> None:
        text, _ = encode({"close": b"\xff" * 100})
        self.assertEqual(len(text.encode()), len('{"close":""}') + 200)


if __name__ == "__main__":
    unittest.main()
