"""The classic's import names."""

from __future__ import annotations

import sys
import unittest

from harness import PACKAGE

sys.path.insert(0, str(PACKAGE))

from tproxy.util import is_ipv6, parse_address  # noqa: E402


class ParseAddress(unittest.TestCase):
    def test_addresses(self) -> None:
        for text, expected in (
            ("127.0.0.1:80", ("127.0.0.1", 80)),
            (b"Example.ORG:80", ("example.org", 80)),
            ("example.org", ("example.org", 5000)),
            ("", ("0.0.0.0", 5000)),
            (":80", ("0.0.0.0", 80)),
            ("[::1]:80", ("::1", 80)),
            ("[::1]", ("::1", 5000)),
            ("::1", ("::1", 5000)),
            (("a", 1), ("a", 1)),
        ):
            with self.subTest(text):
                self.assertEqual(parse_address(text), expected)
        self.assertEqual(parse_address("example.org", 80), ("example.org", 80))

    def test_what_is_none_raises_what_the_classic_raised(self) -> None:
        for text in ("a:b", "a:99999", "[::1", "[::1]80", "a:1:2", "a:\u0661"):
            with self.subTest(text):
                self.assertRaises(RuntimeError, parse_address, text)
                self.assertRaises(ValueError, parse_address, text)

    def test_is_ipv6(self) -> None:
        self.assertTrue(is_ipv6("::1"))
        self.assertFalse(is_ipv6("127.0.0.1"))
        self.assertFalse(is_ipv6("a\0b"))


if __name__ == "__main__":
    unittest.main()
