"""Routers that tproxy connects to: at a path of their own, or on a socket of systemd's."""

from __future__ import annotations

import errno
import os
import pathlib
import select
import signal
import socket
import stat
import sys
import time
import unittest
from typing import Any

from harness import FEW_THREADS, RUNNER, TIMEOUT, Link, Router, RouterTest

KINDS = (("def", ""), ("def", ", threads=2"), ("async def", ""))

ROUTE = """
import os, socket, sys, tproxy

seen = set()

{kind} proxy(data):
    seen.add(data)
    if data == b"exit":
        sys.exit(7)
    if data == b"invalidate":
        tproxy.invalidate(all=True)
    if data == b"file":
        return {{"file": os.open(__file__, os.O_RDONLY)}}
    return {{"close": str(len(seen))}}

tproxy.run(proxy, listen=sys.argv[1]{options})
"""


def is_refused(path: pathlib.Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == errno.ECONNREFUSED


class Listening(RouterTest):
    def connect(self, path: pathlib.Path) -> Link:
        """As a worker does: again and again until the router is there."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                sock.close()
                self.assertLess(time.monotonic(), deadline, "nobody listens")
                select.select([], [], [], 0.01)
                continue
            link = Link(sock)
            self.addCleanup(link.close)
            return link

    def listening(self, kind: str = "def", options: str = "", address: Any = None) -> tuple[Router, pathlib.Path]:
        path = self.folder / "route.sock"
        script = self.write("program.py", ROUTE.format(kind=kind, options=options))
        return self.start(sys.executable, script, address or path), path

    def test_several_workers_share_what_the_script_knows(self) -> None:
        for kind, options in KINDS:
            with self.subTest(kind + options):
                router, path = self.listening(kind, options)
                links = [self.connect(path) for _ in range(3)]
                for n, link in enumerate(links, 1):
                    self.assertEqual(link.hello()["protocol"], 1)
                    self.assertEqual(link.ask(b"%d" % n), {"close": str(n)})
                # One leaves, with a question open or without; the others do not notice.
                links[0].send(links[0].question(b"1"))
                links[0].close()
                self.assertEqual(links[1].ask(b"1"), {"close": "3"})
                self.assertEqual(self.connect(path).ask(b"4"), {"close": "4"})
                self.assertEqual(links[2].ask(b"file")["attached"], True)
                self.assertEqual(len(links[2].descriptors), 1)
                router.process.send_signal(signal.SIGINT)
                self.assertEqual(router.wait(), 0)
                self.assertEqual(router.stderr(), "")

    def test_a_worker_that_ends_its_side_gets_its_answers_and_then_the_end(self) -> None:
        for kind, options in KINDS:
            with self.subTest(kind + options):
                _, path = self.listening(kind, options)
                link, other = self.connect(path), self.connect(path)
                questions = [link.question(b"x") for _ in range(50)]
                link.send(*questions)
                link.sock.shutdown(socket.SHUT_WR)
                answered = {link.receive()["id"] for _ in questions}
                self.assertEqual(answered, {question["id"] for question in questions})
                self.assertEqual(link.receive_line(), b"")
                self.assertEqual(other.ask(b"x"), {"close": "1"})

    def test_a_worker_that_no_thread_can_be_started_for_is_turned_away_and_the_others_stay(self) -> None:
        path = self.folder / "route.sock"
        few = FEW_THREADS.format(name="reader", count=1)
        text = few + ROUTE.format(kind="def", options=", threads=2")
        router = self.start(sys.executable, self.write("program.py", text), path)
        link = self.connect(path)
        self.assertEqual(link.ask(b"1"), {"close": "1"})
        self.assertEqual(self.connect(path).receive_line(), b"")
        self.assertEqual(link.ask(b"2"), {"close": "2"})
        self.assertIn("tproxy: cannot serve tproxy: can't start new thread\n", router.stderr())

    def test_what_is_told_goes_to_all_that_are_greeted(self) -> None:
        for kind, options in KINDS:
            with self.subTest(kind + options):
                _, path = self.listening(kind, options)
                links = [self.connect(path) for _ in range(3)]
                links[0].hello()
                links[1].hello()
                gone = self.connect(path)
                gone.hello()
                gone.close()
                links[2].send(links[2].question(b"invalidate"))
                told = {"jsonrpc": "2.0", "method": "invalidate", "params": {"all": True}}
                self.assertEqual(links[0].receive(), told)
                self.assertEqual(links[1].receive(), told)
                self.assertEqual(links[2].receive()["result"], {"close": "1"})

    def test_an_exit_in_the_function_ends_the_program(self) -> None:
        for kind, options in (KINDS[0], KINDS[2]):
            with self.subTest(kind + options):
                router, path = self.listening(kind, options)
                link = self.connect(path)
                link.send(link.question(b"exit"))
                self.assertEqual(router.wait(), 7)
                self.assertEqual(link.receive_line(), b"")

    def test_only_our_own_user_may_connect_unless_told_otherwise(self) -> None:
        path = self.folder / "route.sock"
        for address, mode in ((path, 0o600), (f"unix:{path}", 0o600), (f"unix:{path}?mode=0660", 0o660)):
            with self.subTest(address):
                router, _ = self.listening(address=address)
                self.connect(path).hello()
                self.assertEqual(stat.S_IMODE(path.stat().st_mode), mode)
                router.process.kill()  # the path stays, and does not hinder the next one
                router.wait()

    def test_what_cannot_be_listened_on_is_said_in_a_sentence(self) -> None:
        _, path = self.listening()
        self.connect(path).hello()
        (self.folder / "text").write_text("precious")
        for address, text in (
            (path, f"cannot listen on {path}: Address already in use"),
            (self.folder / "text", f"cannot listen on {self.folder}/text: Address already in use"),
            (self.folder / "no" / "where", "No such file or directory"),
            (self.folder / ("x" * 200), "AF_UNIX path too long"),
            (f"{path}?mode=9", "is not of the form unix:/path?mode=0660"),
            (f"{path}?owner=me", "is not of the form unix:/path?mode=0660"),
        ):
            with self.subTest(address):
                router, _ = self.listening(address=address)
                self.assertEqual(router.wait(), 1)
                self.assertIn(text, router.stderr())
                self.assertNotIn("Traceback", router.stderr())
        self.assertEqual((self.folder / "text").read_text(), "precious")

    def test_a_forked_child_does_not_keep_a_worker_waiting(self) -> None:
        path = self.folder / "route.sock"
        script = self.write(
            "program.py",
            """
            import os, signal, sys, tproxy

            def proxy(data):
                child = os.fork()
                if not child:
                    signal.pause()
                return {"state": child}

            tproxy.run(proxy, listen=sys.argv[1])
            """,
        )
        router = self.start(sys.executable, script, path)
        link = self.connect(path)
        self.addCleanup(os.kill, link.ask(b"x")["state"], signal.SIGKILL)
        router.process.kill()
        self.assertEqual(link.receive_line(), b"")
        deadline = time.monotonic() + TIMEOUT
        while not is_refused(path):  # the child may be a little later
            self.assertLess(time.monotonic(), deadline, "the child listens")

    def test_a_classic_script_listens_with_an_option_of_the_runner(self) -> None:
        path = self.folder / "route.sock"
        script = self.write(
            "route.py", "cfg = __tproxy_cfg__\ndef proxy(data): return {'state': [data.decode(), cfg]}\n"
        )
        for option in (["--listen", str(path)], [f"--listen={path}"]):
            with self.subTest(option):
                router = self.start(sys.executable, RUNNER, *option, "--cfg", '{"a":1}', script)
                link = self.connect(path)
                self.assertEqual(link.hello()["name"], "route.py")
                self.assertEqual(link.ask(b"x"), {"state": ["x", {"a": 1}]})
                router.process.kill()
                router.wait()

    def test_ten_thousand_questions_of_four_workers(self) -> None:
        for kind, options in KINDS:
            with self.subTest(kind + options):
                _, path = self.listening(kind, options)
                links = [self.connect(path) for _ in range(4)]
                for start in range(0, 2500, 50):
                    asked = [[link.question(b"%d" % n) for n in range(start, start + 50)] for link in links]
                    for link, questions in zip(links, asked):
                        link.send(*questions)
                    for link, questions in zip(links, asked):
                        answered = {link.receive()["id"] for _ in questions}
                        self.assertEqual(answered, {question["id"] for question in questions})


class Inherited(RouterTest):
    """As systemd starts a service that has a socket."""

    def handed_over(self, code: str, sock: socket.socket, **env: str) -> Router:
        script = self.write("program.py", code)
        launcher = (
            "import os, sys\n"
            f"os.dup2({sock.fileno()}, 3)\n"
            f"os.environ.update({{'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '1', **{env!r}}})\n"
            "os.execv(sys.executable, [sys.executable, sys.argv[1]])\n"
        )
        sock.set_inheritable(True)
        return self.start("sh", "-c", 'exec "$@" </dev/null', "sh", sys.executable, "-c", launcher, script, keep=[sock])

    def test_the_socket_of_systemd_is_served(self) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            path = str(self.folder / "route.sock")
            listener.bind(path)
            listener.listen()
            self.handed_over(
                "import os, tproxy\ntproxy.run(lambda data: {'state': [k for k in os.environ if 'LISTEN' in k]})\n",
                listener,
            )
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(path)
            link = Link(sock)
            self.addCleanup(link.close)
            self.assertEqual(link.hello()["protocol"], 1)
            self.assertEqual(link.ask(b"x"), {"state": []})

    def test_what_is_no_such_socket_is_said_in_a_sentence(self) -> None:
        code = "import tproxy\ntproxy.run(lambda data: None)\n"
        with socket.socket(socket.AF_INET) as tcp, socket.socket(socket.AF_UNIX) as unix:
            tcp.bind(("127.0.0.1", 0))
            tcp.listen()
            for sock in (tcp, unix):
                router = self.handed_over(code, sock)
                self.assertEqual(router.wait(), 1)
                self.assertIn("no listening Unix stream socket", router.stderr())
            router = self.handed_over(code, unix, LISTEN_FDS="2")
            self.assertEqual(router.wait(), 1)
            self.assertIn("systemd gave 2 sockets", router.stderr())

    def test_what_was_meant_for_another_process_is_ignored(self) -> None:
        router = self.program(
            "import tproxy\ntproxy.run(lambda data: {'close': True})\n", env={"LISTEN_PID": "1", "LISTEN_FDS": "1"}
        )
        self.assertEqual(router.ask(b"x"), {"close": True})


if __name__ == "__main__":
    unittest.main()
