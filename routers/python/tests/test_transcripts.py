"""Replays the protocol's transcripts against the conformance router."""

from __future__ import annotations

import json
import sys
import unittest
from typing import Any

from harness import EXAMPLES, PACKAGE, RouterTest

FOLDER = PACKAGE.parent.parent / "protocol" / "transcripts"


def replay_all(test: RouterTest, *command: Any) -> None:
    """Replay every transcript that is about the conformance router, which the command starts."""
    paths = sorted(FOLDER.glob("*.jsonl"))
    test.assertTrue(paths, f"no transcripts in {FOLDER}")
    for path in paths:
        about, *steps = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        if about["router"] == "conformance":
            with test.subTest(path.name, about=about["about"], command=command):
                replay(test, steps, *command)


def is_match(answer: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether an answer is the one of the transcript, where that has anything to say about it."""
    if "error" in answer and "error" in wanted:  # its text is the router's own
        return bool(answer["id"] == wanted["id"] and answer["error"]["code"] == wanted["error"]["code"])
    result, wanted_result = answer.get("result"), wanted.get("result")
    if isinstance(result, dict) and isinstance(wanted_result, dict) and "protocol" in result:
        return (
            answer["id"] == wanted["id"]
            and all(result.get(key) == wanted_result.get(key) for key in ("protocol", "name"))
            and set(result["methods"]) >= set(wanted_result["methods"])
        )
    return answer == wanted


def replay(test: RouterTest, steps: list[dict[str, Any]], *command: Any) -> None:
    router = test.start(*command)
    wanted: list[Any] = []
    for step in [*steps, {"to": "end"}]:
        if "from" in step:
            wanted.append(step["line"])
            continue
        while wanted:  # in any order between two lines of ours
            answer = router.receive()
            match = next((line for line in wanted if is_match(answer, line)), None)
            test.assertIsNotNone(match, f"{answer} is none of {wanted}")
            wanted.remove(match)
        if "line" in step:
            router.send(step["line"])
    test.assertEqual(router.end(), 0, router.stderr())
    test.assertEqual(router.receive_line(), b"", "more than the transcript has")


class Transcripts(RouterTest):
    def test_the_conformance_router_answers_every_transcript_as_it_says(self) -> None:
        replay_all(self, sys.executable, EXAMPLES / "conformance.py")


if __name__ == "__main__":
    unittest.main()
