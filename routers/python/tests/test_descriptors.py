"""``file`` as a descriptor: it travels with its verdict, and our copy is gone afterwards."""

from __future__ import annotations

import os
import unittest

from harness import RouterTest

FILES = """
import os, tempfile
import tproxy

def open_file(text):
    file = tempfile.TemporaryFile()
    file.write(text)
    file.flush()
    file.seek(0)
    return file

class Both:
    def __init__(self, file):
        self.file = file
    def fileno(self):
        return self.file.fileno()
    def close(self):
        self.file.close()

{kind} proxy(data):
    if data == b"count":
        return {{"note": str(len(os.listdir("/proc/self/fd")))}}
    if data.startswith(b"int "):
        file = open_file(data[4:])
        return {{"file": os.dup(file.fileno()), "reply": "head"}}
    if data.startswith(b"object "):
        return {{"file": open_file(data[7:])}}
    if data.startswith(b"other "):
        return {{"file": Both(open_file(data[6:]))}}
    if data.startswith(b"unflushed "):
        file = tempfile.TemporaryFile()
        file.write(data[10:])
        return {{"file": file}}
    if data == b"wrong":
        return {{"file": open_file(b""), "note": b"no text"}}
    if data == b"beside":
        return {{"file": open_file(b""), "remote": "h:1"}}
    if data == b"closed":
        file = open_file(b"")
        file.close()
        return {{"file": file}}
    if data == b"memory":
        import io
        return {{"file": io.BytesIO()}}
    return {{"close": data}}

tproxy.run(proxy{options})
"""


class Plain(RouterTest):
    kind = "def"
    options = ""

    def setUp(self) -> None:
        super().setUp()
        self.router = self.program(FILES.format(kind=self.kind, options=self.options))

    def test_an_int_and_whatever_has_a_fileno_are_passed(self) -> None:
        for count, form in enumerate((b"int", b"object", b"other", b"unflushed")):
            verdict = self.router.ask(form + b" some bytes")
            self.assertIs(verdict["attached"], True)
            self.assertIsInstance(verdict["file"], int)
            self.assertEqual(len(self.router.descriptors), count + 1)
            self.assertEqual(os.pread(self.router.descriptors[-1], 100, 0), b"some bytes")

    def test_other_keys_go_along(self) -> None:
        self.assertEqual(self.router.ask(b"int x")["reply"], "head")

    def test_the_order_of_descriptors_is_that_of_their_verdicts(self) -> None:
        questions = [self.router.question(b"int %d" % n if n % 3 else b"plain %d" % n) for n in range(60)]
        self.router.send(*questions)
        numbers = {}
        for question in questions:
            numbers[question["id"]] = int(question["params"]["data"].split()[1])
        order = []
        for _ in questions:
            answer = self.router.receive()
            if "file" in answer["result"]:
                order.append(numbers[answer["id"]])
        self.assertEqual(len(order), 40)
        self.assertEqual([int(os.pread(fd, 100, 0)) for fd in self.router.descriptors], order)

    def test_a_thousand_descriptors_leave_none_behind(self) -> None:
        before = self.router.ask(b"count")
        for n in range(1000):
            form = (b"int x", b"object x", b"other x", b"wrong", b"beside")[n % 5]
            self.router.call(self.router.question(form))
            while self.router.descriptors:
                os.close(self.router.descriptors.pop())
        self.assertEqual(self.router.ask(b"count"), before)

    def test_a_file_that_cannot_be_passed_is_an_error_for_its_connection(self) -> None:
        self.assertIn("closed", self.router.ask_for_error(b"closed"))
        self.assertIn("fileno", self.router.ask_for_error(b"memory"))
        self.assertIn("note:", self.router.ask_for_error(b"wrong"))
        self.assertEqual(self.router.ask(b"x"), {"close": "x"})
        self.assertEqual(self.router.descriptors, [])

    def test_a_descriptor_beside_a_remote_is_not_sent(self) -> None:
        self.assertEqual(self.router.ask(b"beside"), {"remote": "h:1"})
        self.assertEqual(self.router.descriptors, [])

    def test_the_end_comes_after_a_descriptor_that_nobody_received(self) -> None:
        self.router.send(self.router.question(b"int x"))
        self.assertEqual(self.router.end(), 0)


class Threads(Plain):
    options = ", threads=4"


class Tasks(Plain):
    kind = "async def"


if __name__ == "__main__":
    unittest.main()
