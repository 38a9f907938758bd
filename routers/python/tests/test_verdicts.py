"""Every way to write a verdict in Python, and what it becomes on the wire."""

from __future__ import annotations

import array
import io
import json
import pathlib
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
