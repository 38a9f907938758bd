"""Replays the protocol's transcripts against the conformance router."""

from __future__ import annotations

import json
import pathlib
import sys
import unittest
from typing import Any

from harness import EXAMPLES, PACKAGE, RouterTest

FOLDERS = [pathlib.Path(__file__).parent / "transcripts", PACKAGE.parent.parent / "protocol" / "transcripts"]


def replay_all(test: RouterTest, *command: Any) -> None:
    """Replay every transcript that is about the conformance router, which the command starts."""
    paths = [path for folder in FOLDERS for path in sorted(folder.glob("*.jsonl"))]
    test.assertTrue(paths)
    for path in paths:
        about, *steps = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        if about["router"] == "conformance":
            with test.subTest(path.name, about=about["about"], command=command):
                replay(test, steps, *command)


def comparable(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without the text of its error, which is the router's own."""
    if "error" in answer:
        return {**answer, "error": answer["error"]["code"]}
    return answer


def replay(test: RouterTest, steps: list[dict[str, Any]], *command: Any) -> None:
    router = test.start(*command)
    wanted: list[Any] = []
    for step in [*steps, {"to": "end"}]:
        if "from" in step:
            wanted.append(comparable(step["line"]))
            continue
        while wanted:  # in any order between two lines of ours
            answer = comparable(router.receive())
            test.assertIn(answer, wanted)
            wanted.remove(answer)
        if "line" in step:
            router.send(step["line"])
    test.assertEqual(router.end(), 0, router.stderr())
    test.assertEqual(router.receive_line(), b"", "more than the transcript has")


class Transcripts(RouterTest):
    def test_the_conformance_router_answers_every_transcript_as_it_says(self) -> None:
        replay_all(self, sys.executable, EXAMPLES / "conformance.py")


if __name__ == "__main__":
    unittest.main()
