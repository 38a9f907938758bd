"""The shell and jq routers over a real socketpair."""

from __future__ import annotations

import os
import pathlib
import shutil
import sys
import unittest
from typing import Any

ROUTERS = pathlib.Path(__file__).resolve().parent.parent.parent
SHELL = ROUTERS / "shell"
sys.path.insert(0, str(ROUTERS / "python" / "tests"))

from harness import RouterTest  # noqa: E402
from test_transcripts import replay_all  # noqa: E402

#: Each shell once, whatever `sh` is.
SHELLS = list({os.path.realpath(path): path for path in map(shutil.which, ("sh", "dash", "bash")) if path}.values())


def setUpModule() -> None:
    if shutil.which("jq") is None:
        # The shell routers are not tested without it; that must not look like success.
        print("\n*** jq is missing: NO SHELL ROUTER WAS TESTED (apt-get install jq) ***", file=sys.stderr)
        raise unittest.SkipTest("jq is missing")


class Transcripts(RouterTest):
    def test_jq_answers_every_transcript_as_it_says(self) -> None:
        replay_all(self, "jq", "-c", "--unbuffered", "-f", SHELL / "examples" / "conformance.jq")

    def test_a_shell_answers_every_transcript_as_it_says(self) -> None:
        replay_all(self, "sh", SHELL / "examples" / "conformance.sh")


class Routes(RouterTest):
    def test_the_routers_route_by_host(self) -> None:
        for command in (["jq", "-c", "--unbuffered", "-f", "route.jq"], *([shell, "route.sh"] for shell in SHELLS)):
            with self.subTest(command):
                self.check(command)

    def check(self, command: list[str]) -> None:
        router = self.start(*command, cwd=SHELL)
        hello = router.hello()
        self.assertEqual((hello["protocol"], hello["methods"]), (1, ["proxy"]))

        def ask(host: bytes) -> Any:
            return router.ask(b"GET /\xff\0 HTTP/1.1\r\nX: y\r\nHost:" + host + b"\r\n\r\n")

        self.assertEqual(ask(b" one.localhost"), {"remote": "127.0.0.1:8001"})
        self.assertEqual(ask(b"\tTWO.localhost:5000"), {"remote": "127.0.0.1:8002"})
        for strange in (b" three", b" *", b" $(id)", b" `id`", b" a b", b" \\", b' "', b" one.localhost\0", b" \xff"):
            self.assertIn("404", ask(strange)["close"], strange)
        self.assertIsNone(router.ask(b""))
        head = b"GET / HTTP/1.1\r\nHost: one.localhost\r\n"
        for n in range(1, len(head)):
            self.assertIsNone(router.ask(head[:n]))
        router.send({"jsonrpc": "2.0", "method": "cancel", "params": {"id": 1, "connection": "1.7"}})
        self.assertEqual(router.call(router.request("nonsense"))["error"]["code"], -32601)
        router.send({"jsonrpc": "2.0", "method": "shutdown"})
        self.assertEqual(router.end(), 0)
        self.assertEqual(router.receive_line(), b"")
        self.assertEqual(router.stderr(), "")


if __name__ == "__main__":
    unittest.main()
