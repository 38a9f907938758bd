"""Replays the protocol's transcripts against the conformance router."""

from __future__ import annotations

import json
import pathlib
import sys
import unittest
from typing import Any

from harness import EXAMPLES, PACKAGE, RouterTest

FOLDERS = [pathlib.Path(__file__).parent / "transcripts", PACKAGE.parent.parent / "protocol" / "transcripts"]


class Transcripts(RouterTest):
    def test_the_conformance_router_answers_every_transcript_as_it_says(self) -> None:
        paths = [path for folder in FOLDERS for path in sorted(folder.glob("*.jsonl"))]
        self.assertTrue(paths)
        for path in paths:
            steps = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
            if steps[0]["router"] != "conformance":
                continue
            with self.subTest(path.name, about=steps[0]["about"]):
                self.replay(steps[1:])

    def replay(self, steps: list[dict[str, Any]]) -> None:
        router = self.start(sys.executable, EXAMPLES / "conformance.py")
        wanted: list[Any] = []
        for step in [*steps, {"to": "end"}]:
            if "from" in step:
                wanted.append(step["line"])
                continue
            while wanted:  # in any order between two lines of ours
                answer = router.receive()
                self.assertIn(answer, wanted)
                wanted.remove(answer)
            if "line" in step:
                router.send(step["line"])
        self.assertEqual(router.end(), 0, router.stderr())
        self.assertEqual(router.receive_line(), b"", "more than the transcript has")


if __name__ == "__main__":
    unittest.main()
