"""Rewriting: streams that a router dials back for, with a worker played by the test."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import io
import os
import random
import re
import secrets
import socket
import sys
import textwrap
import threading
import time
import unittest
from typing import Any

from harness import FEW_THREADS, PACKAGE, TIMEOUT, Link, Router, RouterTest

sys.path.insert(0, str(PACKAGE))

import tproxy  # noqa: E402
from tproxy.rewrite import RewriteIO  # noqa: E402

#: One script, however it is served, and however its functions are written.
KINDS = (("def", "", ""), ("def", "", ", threads=2"), ("async def", "await ", ""))

IDENTITY = """
import tproxy

def proxy(data):
    return {{"remote": "127.0.0.1:9"}}

{kind} rewrite_request(req):
    while True:
        data = {wait}req.recv()
        if not data:
            break
        {wait}req.writeall(data)

tproxy.run(proxy, rewrite_request=rewrite_request{options})
"""


class Worker:
    """Where streams are dialled back to, as in a worker of tproxy."""

    def __init__(self, path: str | None = None) -> None:
        name = f"tproxy-test-{secrets.token_hex(16)}".ljust(107, "-")
        self.address = f"unix:{path}" if path else f"unix:@{name}"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.settimeout(TIMEOUT)
        self.listener.bind(path or f"\0{name}")
        self.listener.listen(1024)
        self._early: dict[str, socket.socket] = {}

    def close(self) -> None:
        self.listener.close()
        for sock in self._early.values():
            sock.close()

    def hello(self, router: Link) -> Any:
        hello = router.request("hello", protocol=1, tproxy="0.1.0", worker="1", generation=1, streams=self.address)
        return router.call(hello)["result"]

    def stream(self, router: Link, method: str = "rewrite_request", connection: str = "1.7", **params: Any) -> Stream:
        """Tell a router of a stream, and wait until it has dialled back."""
        return self.arrived(self.tell(router, method, connection, **params))

    def tell(self, router: Link, method: str = "rewrite_request", connection: str = "1.7", **params: Any) -> str:
        token = secrets.token_hex(16)
        direction = "to_remote" if method == "rewrite_request" else "to_client"
        router.notify(method, token=token, direction=direction, connection=connection, **params)
        return token

    def arrived(self, token: str) -> Stream:
        while token not in self._early:
            sock, _ = self.listener.accept()
            sock.settimeout(TIMEOUT)
            line = b""
            while not line.endswith(b"\n"):
                line += sock.recv(1)
            self._early[line.decode().strip()] = sock
        return Stream(token, self._early.pop(token))


class Stream:
    """tproxy's end of one."""

    def __init__(self, token: str, sock: socket.socket) -> None:
        self.token = token
        self.sock = sock

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: Any) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def end(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def receive(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = self.sock.recv(count - len(data))
            assert piece, f"the stream ended after {bytes(data)!r}"
            data += piece
        return bytes(data)

    def rest(self) -> bytes:
        """All to the end."""
        data = bytearray()
        with contextlib.suppress(ConnectionResetError):  # it had not read all that was sent to it
            while piece := self.sock.recv(1 << 18):
                data += piece
        return bytes(data)


class RewriteTest(RouterTest):
    def setUp(self) -> None:
        super().setUp()
        self.worker = Worker()
        self.addCleanup(self.worker.close)

    def rewriter(self, text: str, **values: str) -> Router:
        router = self.program(text.format(**{"kind": "def", "wait": "", "options": "", **values}))
        self.worker.hello(router)
        return router

    def assert_said(self, router: Link, method: str, stream: Stream) -> None:
        said = router.receive()
        self.assertEqual(said, {"jsonrpc": "2.0", "method": method, "params": {"token": stream.token}})

    def assert_silent(self, router: Link) -> None:
        """Nothing was said that we have not read: the next line answers our question."""
        self.assertIn("result", router.call(router.question(b"x")))


class Ends(RewriteTest):
    def test_hello_lists_the_functions_there_are(self) -> None:
        for given in ([], ["rewrite_request"], ["rewrite_response"], ["rewrite_request", "rewrite_response"]):
            options = "".join(f", {name}=lambda req: None" for name in given)
            router = self.program(f"import tproxy\ntproxy.run(lambda data: None{options})\n")
            self.assertEqual(self.worker.hello(router)["methods"], ["proxy", "cancel", "shutdown", *given])

    def test_what_is_read_and_written_comes_through_and_the_end_is_said_before_it_comes(self) -> None:
        for kind, wait, options in KINDS:
            with self.subTest(kind + options):
                router = self.rewriter(IDENTITY, kind=kind, wait=wait, options=options)
                with self.worker.stream(router) as stream:
                    for text in (b"a", b"\x00\xff\n", b"b" * 100_000):
                        stream.send(text)
                        self.assertEqual(stream.receive(len(text)), text)
                    self.assert_silent(router)
                    stream.end()
                    self.assertEqual(stream.rest(), b"")
                    router.sock.setblocking(False)  # it has been said already
                    self.assert_said(router, "stream_end", stream)
                    router.sock.settimeout(TIMEOUT)
                self.assertEqual(router.end(), 0)
                self.assertEqual(router.stderr(), "")

    def test_a_listening_router_dials_back_to_the_tproxy_that_told_it(self) -> None:
        for kind, wait, options in KINDS:
            with self.subTest(kind + options):
                path = self.folder / "route.sock"
                self.rewriters(kind, wait, options + f", listen={str(path)!r}")
                others = [Worker(str(self.folder / f"streams-{n}")) for n in range(2)]
                links = [self.connect(path) for _ in others]
                for other, link in zip(others, links):
                    other.hello(link)
                for other, link in zip(reversed(others), reversed(links)):
                    with other.stream(link) as stream:
                        stream.send(b"x")
                        self.assertEqual(stream.receive(1), b"x")
                        stream.end()
                        self.assertEqual(stream.rest(), b"")
                        self.assert_said(link, "stream_end", stream)
                for other in others:
                    other.close()
                    os.unlink(other.address.removeprefix("unix:"))

    def rewriters(self, kind: str, wait: str, options: str) -> Router:
        return self.program(IDENTITY.format(kind=kind, wait=wait, options=options))

    def connect(self, path: Any) -> Link:
        deadline = time.monotonic() + TIMEOUT
        while True:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                sock.close()
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.01)
                continue
            link = Link(sock)
            self.addCleanup(link.close)
            return link

    def test_the_functions_get_extra_if_they_want_it(self) -> None:
        for parameters, expected in (
            ("req", "None"),
            ("req, extra", "{'host': 'b'}"),
            ("req, extra=0", "{'host': 'b'}"),
            ("req, other=0", "0"),
            ("*rest", "one"),
        ):
            with self.subTest(parameters):
                shown = {"req": "None", "req, other=0": "other", "*rest": "'one'[:3 * len(rest)]"}.get(
                    parameters, "extra"
                )
                router = self.program(
                    f"""
                    import tproxy
                    def rewrite_response({parameters}):
                        {"req = rest[0]" if parameters == "*rest" else ""}
                        req.write(str({shown}))
                    tproxy.run(lambda data: None, rewrite_response=rewrite_response)
                    """
                )
                self.worker.hello(router)
                with self.worker.stream(router, "rewrite_response", extra={"host": "b"}) as stream:
                    self.assertEqual(stream.rest().decode(), expected)
        router = self.program("import tproxy\ntproxy.run(lambda d: None, rewrite_request=lambda a, b, c: None)\n")
        self.assertEqual(router.wait(), 1)
        self.assertIn("rewrite_request must be rewrite_request(req) or rewrite_request(req, extra)", router.stderr())

    def test_the_stream_says_whose_it_is(self) -> None:
        router = self.rewriter(
            """
            import tproxy
            def show(req):
                req.write(f"{{req.connection}} {{req.direction}} {{req.extra}} {{req.fileno() > 2}}")
            tproxy.run(lambda data: None, rewrite_request=show, rewrite_response=show)
            """
        )
        with self.worker.stream(router, connection="3.4", extra=[1]) as stream:
            self.assertEqual(stream.rest(), b"3.4 to_remote [1] True")
        with self.worker.stream(router, "rewrite_response") as stream:
            self.assertEqual(stream.rest(), b"1.7 to_client None True")

    def test_a_function_that_returns_early_ends_the_stream_as_it_should(self) -> None:
        for kind, wait, options in KINDS:
            with self.subTest(kind + options):
                router = self.rewriter(
                    """
                    import tproxy
                    {kind} rewrite_request(req):
                        {wait}req.write(b"enough of " + {wait}req.recv(5))
                    tproxy.run(lambda data: None, rewrite_request=rewrite_request{options})
                    """,
                    kind=kind,
                    wait=wait,
                    options=options,
                )
                with self.worker.stream(router) as stream:
                    stream.send(b"this, and there is more")
                    self.assertEqual(stream.rest(), b"enough of this,")
                    self.assert_said(router, "stream_end", stream)

    def test_an_exception_is_an_abort_with_its_traceback_in_the_log(self) -> None:
        for kind, wait, options in KINDS:
            for raised in ("ValueError('no good')", "SystemExit(3)", "ConnectionError('elsewhere')"):
                with self.subTest(f"{kind}{options} {raised}"):
                    router = self.rewriter(
                        """
                        import tproxy
                        {kind} rewrite_request(req):
                            {wait}req.recv(1)
                            {wait}req.write(b"half")
                            raise {raised}
                        tproxy.run(lambda data: None, rewrite_request=rewrite_request{options})
                        """,
                        kind=kind,
                        wait=wait,
                        options=options,
                        raised=raised,
                    )
                    with self.worker.stream(router) as stream:
                        stream.send(b"x, unread")
                        self.assertEqual(stream.rest(), b"half")
                        self.assert_silent(router)
                    log = router.stderr()
                    self.assertIn(raised.partition("(")[0], log)
                    self.assertIn('program.py", line', log)
                    self.assertNotIn("_streams.py", log)
                    self.assertEqual(router.end(), 0)

    def test_abort_is_an_abort_without_a_word(self) -> None:
        for kind, _wait, options in KINDS:
            for then in ("return", "raise OSError('quiet')"):
                with self.subTest(f"{kind}{options} {then}"):
                    router = self.rewriter(
                        """
                        import tproxy
                        {kind} rewrite_request(req):
                            req.abort()
                            {then}
                        tproxy.run(lambda data: None, rewrite_request=rewrite_request{options})
                        """,
                        kind=kind,
                        options=options,
                        then=then,
                    )
                    with self.worker.stream(router) as stream:
                        self.assertEqual(stream.rest(), b"")
                        self.assert_silent(router)
                    self.assertEqual(router.stderr(), "")

    def test_a_connection_that_goes_away_is_no_fault_of_the_function(self) -> None:
        for kind, wait, options in KINDS:
            with self.subTest(kind + options):
                router = self.rewriter(
                    """
                    import tproxy
                    {kind} rewrite_response(req):
                        while True:
                            {wait}req.write(b"x" * 65536)
                    tproxy.run(lambda data: None, rewrite_response=rewrite_response{options})
                    """,
                    kind=kind,
                    wait=wait,
                    options=options,
                )
                with self.worker.stream(router, "rewrite_response") as stream:
                    stream.receive(100_000)
                self.assert_silent(router)
                self.assertEqual(router.end(), 0)
                self.assertEqual(router.stderr(), "")

    def test_half_closes_in_every_order(self) -> None:
        for kind, wait, options in KINDS:
            with self.subTest(kind + options):
                router = self.rewriter(
                    """
                    import tproxy
                    {kind} upper(req):
                        data = {wait}req.read()
                        {wait}req.writeall(data.upper() + b".")
                    {kind} back(res):
                        {wait}res.writeall(b"hello\\n")
                        data = {wait}res.read()
                        {wait}res.writeall(data[::-1])
                    tproxy.run(lambda data: None, rewrite_request=upper, rewrite_response=back{options})
                    """,
                    kind=kind,
                    wait=wait,
                    options=options,
                )
                for first in (0, 1):
                    streams = [self.worker.stream(router), self.worker.stream(router, "rewrite_response")]
                    self.assertEqual(streams[1].receive(6), b"hello\n")
                    for stream in streams:
                        stream.send(b"abc")
                    for n in (first, 1 - first):
                        streams[n].end()
                        self.assertEqual(streams[n].rest(), (b"ABC.", b"cba")[n])
                        self.assert_said(router, "stream_end", streams[n])
                        streams[n].sock.close()

    def test_a_classic_script_has_its_functions_called(self) -> None:
        router = self.classic(
            """
            def proxy(data):
                return {"remote": "127.0.0.1:9"}
            def rewrite_request(req, extra):
                req.writeall(req.read(5) + str(extra))
            def rewrite_response(resp):
                while True:
                    data = resp.read(8192)
                    if not data:
                        break
                    resp.sendall(data.swapcase())
            """.replace("str(extra)", "str(extra).encode()")
        )
        methods = self.worker.hello(router)["methods"]
        self.assertEqual(methods, ["proxy", "cancel", "shutdown", "rewrite_request", "rewrite_response"])
        with self.worker.stream(router, extra=1) as stream:
            stream.send(b"12345678")
            self.assertEqual(stream.rest(), b"123451")
            self.assert_said(router, "stream_end", stream)
        with self.worker.stream(router, "rewrite_response") as stream:
            stream.send(b"Hello")
            stream.end()
            self.assertEqual(stream.rest(), b"hELLO")

    def test_a_tproxy_that_cannot_be_dialled_is_logged_and_the_router_goes_on(self) -> None:
        router = self.rewriter(IDENTITY)
        self.worker.close()
        self.worker.tell(router)
        self.assert_silent(router)
        self.assertIn("cannot dial back to tproxy at unix:@tproxy-test-", router.stderr())
        plain = self.program(IDENTITY.format(kind="def", wait="", options=""))
        plain.hello()
        self.worker.tell(plain)
        self.assert_silent(plain)
        self.assertIn("cannot dial back to tproxy at no address", plain.stderr())

    def test_a_router_ends_although_a_function_hangs(self) -> None:
        for kind, wait in (("def", ""), ("async def", "await ")):
            with self.subTest(kind):
                router = self.rewriter(
                    """
                    import asyncio, time, tproxy
                    {kind} rewrite_request(req):
                        {sleep}(1000)
                    tproxy.run(lambda data: None, rewrite_request=rewrite_request)
                    """,
                    kind=kind,
                    sleep="await asyncio.sleep" if wait else "time.sleep",
                )
                with self.worker.stream(router):
                    self.assertEqual(router.end(), 0)


class Leaving(RewriteTest):
    DETACH = """
        import io, tproxy
        def rewrite_request(req):
            reader = io.BufferedReader(req, 4096)
            head = reader.readline()
            req.write(b"X-First: 1\\r\\n" + head)
            req.detach(reader)
        async def rewrite_async(req):
            head = await req.reader.readline()
            await req.write(b"X-First: 1\\r\\n" + head)
            await req.detach()
        def rewrite_raw(req):
            data = req.recv(16)
            req.write(b"X-First: 1\\r\\n" + data)
            req.detach()
            try:
                req.read(1)
            except ValueError:
                return
            raise AssertionError("it could be read")
        tproxy.run(lambda data: None, rewrite_request={function})
        """

    def test_what_was_given_before_arrives_once_and_in_order_and_then_the_end_is_said(self) -> None:
        for function in ("rewrite_request", "rewrite_async", "rewrite_raw"):
            for seed in range(8):
                with self.subTest(f"{function} {seed}"):
                    self.detaches(function, random.Random(seed))

    def detaches(self, function: str, chance: random.Random) -> None:
        router = self.rewriter(self.DETACH, function=function)
        data = b"GET / HTTP/1.1\r\n" + chance.randbytes(chance.randrange(1, 600_000))
        got = bytearray()
        with self.worker.stream(router) as stream:
            reader = threading.Thread(target=lambda: got.extend(stream.rest()))
            reader.start()
            sent = 0
            # As a worker: until it is told to give no more.
            router.sock.setblocking(False)
            while sent < len(data):
                piece = chance.choice((1, 7, 16, 1000, 65536))
                stream.send(data[sent : sent + piece])
                sent = min(len(data), sent + piece)
                if sent > 16 and chance.random() < 0.3:
                    break
            router.sock.settimeout(TIMEOUT)
            self.assert_said(router, "detach", stream)
            stream.end()
            reader.join(TIMEOUT)
            self.assert_said(router, "stream_end", stream)
        self.assertEqual(bytes(got), b"X-First: 1\r\n" + data[:sent])
        router.close()
        router.process.wait(TIMEOUT)

    def leaves(self, functions: str, **options: str) -> Router:
        """What the source still sends after the router has said that it leaves comes out, and then the end is said."""
        router = self.rewriter(
            "import asyncio, io, time, tproxy\n"
            + textwrap.dedent(functions)
            + "\ntproxy.run(lambda data: None, rewrite_request=rewrite{options})",
            **options,
        )
        with self.worker.stream(router) as stream:
            stream.send(b"a")
            self.assert_said(router, "detach", stream)
            stream.send(b"bc")
            stream.end()
            self.assertEqual(stream.rest(), b"abc")
            self.assert_said(router, "stream_end", stream)
        return router

    def test_what_a_function_does_after_it_has_left_does_not_hold_the_connection_up(self) -> None:
        for kind, wait, options in KINDS:
            with self.subTest(kind + options):
                self.leaves(
                    """
                    {kind} rewrite(req):
                        {wait}req.detach()
                        {sleep}(1000)
                    """,
                    kind=kind,
                    wait=wait,
                    options=options,
                    sleep="await asyncio.sleep" if wait else "time.sleep",
                )

    def test_after_it_has_left_a_stream_can_be_used_no_more_and_an_exception_is_only_logged(self) -> None:
        for kind, wait, options in KINDS:
            for use in ("{wait}req.read(1)", "{wait}req.write(b'x')", "{wait}req.detach()"):
                with self.subTest(f"{kind}{options} {use}"):
                    router = self.leaves(
                        """
                        {kind} rewrite(req):
                            {wait}req.detach()
                            {use}
                        """,
                        kind=kind,
                        wait=wait,
                        options=options,
                        use=use.format(wait=wait),
                    )
                    self.assertEqual(router.end(), 0)
                    self.assertIn("ValueError: I/O operation on a stream that was detached", router.stderr())

    def test_a_task_that_is_over_while_it_leaves_has_not_ended_the_stream(self) -> None:
        for then in ("return", "raise RuntimeError('no good')", "leaving.cancel()"):
            with self.subTest(then):
                router = self.leaves(
                    """
                    async def rewrite(req):
                        leaving = asyncio.ensure_future(req.detach())
                        await asyncio.sleep(0)
                        {then}
                    """,
                    then=then,
                )
                self.assertEqual(router.end(), 0)
                self.assertEqual("no good" in router.stderr(), "no good" in then)

    def test_a_function_that_could_not_give_all_back_has_not_ended_the_stream(self) -> None:
        router = self.rewriter(
            """
            import io, tproxy
            class Failing(io.BufferedReader):
                def read1(self, size):
                    raise OSError("lost")
            def rewrite_request(req):
                try:
                    req.detach(Failing(req))
                except OSError:
                    pass
            tproxy.run(lambda data: None, rewrite_request=rewrite_request)
            """
        )
        with self.worker.stream(router) as stream:
            self.assert_said(router, "detach", stream)
            self.assertEqual(stream.rest(), b"")
            self.assert_silent(router)

    def test_a_rewriter_that_dies_while_it_leaves_has_not_ended_the_stream(self) -> None:
        router = self.rewriter(
            """
            import os, tproxy
            def rewrite_request(req):
                class Dying:
                    def read1(self, size):
                        os._exit(1)
                req.detach(Dying())
            tproxy.run(lambda data: None, rewrite_request=rewrite_request)
            """
        )
        with self.worker.stream(router) as stream:
            self.assert_said(router, "detach", stream)
            self.assertEqual(stream.rest(), b"")
        self.assertEqual(router.receive_line(), b"")


class Many(RewriteTest):
    def test_two_hundred_streams_at_once(self) -> None:
        for kind, wait, options in KINDS:
            with self.subTest(kind + options):
                router = self.rewriter(IDENTITY, kind=kind, wait=wait, options=options)
                tokens = [self.worker.tell(router, connection=f"1.{n}") for n in range(200)]
                streams = [self.worker.arrived(token) for token in tokens]
                texts = [secrets.token_bytes(1000 + n) for n in range(200)]
                for stream, text in zip(streams, texts):
                    stream.send(text)
                for stream, text in zip(reversed(streams), reversed(texts)):
                    self.assertEqual(stream.receive(len(text)), text)
                for stream in streams:
                    stream.end()
                for stream in streams:
                    self.assertEqual(stream.rest(), b"")
                    stream.sock.close()
                said = {router.receive()["params"]["token"] for _ in streams}
                self.assertEqual(said, set(tokens))

    def test_more_streams_than_threads_wait_and_both_directions_of_one_connection_run_together(self) -> None:
        router = self.rewriter(
            """
            import tproxy
            def rewrite(req):
                while data := req.recv():
                    req.write(data)
            tproxy.run(lambda data: None, rewrite_request=rewrite, rewrite_response=rewrite, stream_threads=4)
            """
        )
        pairs = []
        for n in range(6):
            methods = ("rewrite_request", "rewrite_response")
            tokens = [self.worker.tell(router, method, connection=f"1.{n}") for method in methods]
            # Dialled back at once, however long they then wait.
            pairs.append([self.worker.arrived(token) for token in tokens])
        for pair in pairs:
            for stream in pair:
                stream.send(b"x")
        for pair in pairs[:2]:
            for stream in pair:
                self.assertEqual(stream.receive(1), b"x")
        for stream in pairs[2]:
            stream.sock.settimeout(0.2)
            self.assertRaises(socket.timeout, stream.sock.recv, 1)
            stream.sock.settimeout(TIMEOUT)
        for pair in pairs:
            for stream in pair:
                stream.end()
            for stream in pair:
                self.assertTrue(stream.rest() in (b"", b"x"))
                stream.sock.close()
        said = "tproxy: streams wait for a thread: stream_threads=4 is for 2 connections at a time\n"
        self.assertEqual(router.stderr(), said)  # and once, although four connections did

    def test_there_is_a_thread_for_both_directions_of_all_connections_that_a_worker_has(self) -> None:
        row = re.search(r"`--worker-connections NUMBER` \| `(\d+)`", (PACKAGE.parent.parent / "README.md").read_text())
        assert row is not None
        default = inspect.signature(tproxy.run).parameters["stream_threads"].default
        self.assertEqual(default, 2 * int(row[1]))
        self.assertIn(f"stream_threads={default},", (PACKAGE / "README.md").read_text())

    def test_a_low_limit_of_descriptors_is_raised_for_the_streams(self) -> None:
        limit = "import resource as r\nr.setrlimit(r.RLIMIT_NOFILE, (64, r.getrlimit(r.RLIMIT_NOFILE)[1]))\n"
        router = self.rewriter(limit + textwrap.dedent(IDENTITY))
        streams = [self.worker.arrived(self.worker.tell(router, connection=f"1.{n}")) for n in range(100)]
        for stream in streams:
            stream.send(b"x")
            self.assertEqual(stream.receive(1), b"x")
            stream.sock.close()

    def test_threads_are_used_again(self) -> None:
        # One at a time, for the next may come before the thread is free again.
        router = self.rewriter(IDENTITY, options=", stream_threads=1")
        for n in range(50):
            with self.worker.stream(router, connection=f"1.{n}") as stream:
                stream.end()
                self.assertEqual(stream.rest(), b"")
                self.assert_said(router, "stream_end", stream)
        threads = len(os.listdir(f"/proc/{router.process.pid}/task"))
        self.assertLessEqual(threads, 2)

    def test_who_does_not_read_holds_up_who_writes(self) -> None:
        total = 24 << 20
        for kind, wait, options in KINDS:
            with self.subTest(kind + options):
                router = self.rewriter(IDENTITY, kind=kind, wait=wait, options=options)
                with self.worker.stream(router) as stream:
                    block = bytes(1 << 16)
                    stream.sock.settimeout(0.5)
                    sent = 0
                    with contextlib.suppress(socket.timeout):
                        while sent < total:
                            sent += stream.sock.send(block)
                    self.assertLess(sent, 8 << 20, "it is stored somewhere")
                    stream.sock.settimeout(TIMEOUT)
                    digest, count = hashlib.sha256(), 0

                    def pour(stream: Stream = stream, block: bytes = block, sent: int = sent) -> None:
                        while sent < total:
                            sent += stream.sock.send(block[: total - sent])
                        stream.end()

                    writer = threading.Thread(target=pour)
                    writer.start()
                    while piece := stream.sock.recv(1 << 16):
                        digest.update(piece)
                        count += len(piece)
                    writer.join(TIMEOUT)
                    self.assertEqual((count, digest.hexdigest()), (total, hashlib.sha256(bytes(total)).hexdigest()))
                    self.assert_said(router, "stream_end", stream)


class FewThreads(RewriteTest):
    """Where the system starts no more threads."""

    def rewriter_of(self, count: int, *methods: str, options: str = "") -> Router:
        few = FEW_THREADS.format(name="stream", count=count)
        functions = "".join(f", {method}=rewrite" for method in methods)
        router = self.program(
            f"""{few}
import tproxy
def rewrite(req):
    while data := req.recv():
        req.write(data)
tproxy.run(lambda data: None{functions}{options})
"""
        )
        self.worker.hello(router)
        return router

    def both(self, router: Router, connection: str) -> list[Stream]:
        return [self.worker.stream(router, method, connection) for method in ("rewrite_request", "rewrite_response")]

    def assert_runs(self, *streams: Stream) -> None:
        for stream in streams:
            stream.send(b"x")
            self.assertEqual(stream.receive(1), b"x")

    def assert_ends(self, *streams: Stream) -> None:
        for stream in streams:
            stream.end()
            self.assertEqual(stream.rest(), b"")
            stream.sock.close()

    def test_a_stream_is_aborted_if_there_is_no_thread_for_it_and_will_be_none(self) -> None:
        for options in ("", ", threads=2"):
            with self.subTest(options):
                router = self.rewriter_of(0, "rewrite_request", options=options)
                for _ in range(3):
                    with self.worker.stream(router) as stream:
                        self.assertEqual(stream.rest(), b"")
                        self.assert_silent(router)  # no stream_end, but answers
                self.assertEqual(router.stderr(), "tproxy: streams are aborted: can't start new thread\n")
                self.assertEqual(router.end(), 0)

    def test_a_stream_waits_for_the_thread_of_another(self) -> None:
        router = self.rewriter_of(1, "rewrite_request")
        one, two = (self.worker.stream(router, connection=f"1.{n}") for n in range(2))
        self.assert_runs(one)
        self.assert_silent(router)
        self.assertEqual(router.stderr(), "tproxy: streams wait for a thread: can't start new thread\n")
        self.assert_ends(one)
        self.assert_runs(two)
        self.assert_ends(two)

    def test_a_connection_whose_request_runs_is_the_first_to_get_a_thread(self) -> None:
        router = self.rewriter_of(3, "rewrite_request", "rewrite_response")
        one, two, three = (self.both(router, f"1.{n}") for n in range(3))
        self.assert_runs(*one, two[0])
        self.assert_ends(one[0])
        self.assert_runs(one[1], *two)
        self.assert_ends(one[1], *two)
        self.assert_runs(*three)
        self.assert_ends(*three)

    def test_a_response_does_not_wait_for_the_end_of_its_own_request(self) -> None:
        router = self.rewriter_of(1, "rewrite_request", "rewrite_response")
        one, two = (self.both(router, f"1.{n}") for n in range(2))
        for request, response in (one, two):
            self.assertEqual(response.rest(), b"")
            response.sock.close()
            self.assert_runs(request)
            self.assert_ends(request)


class Files(unittest.TestCase):
    """RewriteIO by itself, as a file."""

    def setUp(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.said: list[str] = []
        self.stream = RewriteIO(ours, {"connection": "1.1", "direction": "to_remote"}, self.said.append)
        self.addCleanup(self.theirs.close)
        self.addCleanup(ours.close)

    def test_it_is_a_raw_file(self) -> None:
        self.assertIsInstance(self.stream, io.RawIOBase)
        self.assertTrue(self.stream.readable() and self.stream.writable())
        self.assertFalse(self.stream.seekable() or self.stream.isatty())
        self.theirs.sendall(b"one\ntwo\nthree")
        self.assertEqual(self.stream.read(2), b"on")
        buffer = bytearray(2)
        self.assertEqual(self.stream.readinto(buffer), 2)
        self.assertEqual(buffer, b"e\n")
        self.assertEqual(self.stream.readline(), b"two\n")
        self.assertEqual(self.stream.recv(), b"three")
        self.theirs.shutdown(socket.SHUT_WR)
        self.assertEqual((self.stream.read(), self.stream.recv(), self.stream.read(5)), (b"", b"", b""))

    def test_read_and_recv_take_what_the_classic_took(self) -> None:
        self.theirs.sendall(b"abcdef")
        self.assertEqual(self.stream.recv(2), b"ab")
        self.assertEqual(self.stream.recv(None), b"cdef")
        self.assertEqual(self.stream.write(b"a"), 1)
        self.assertEqual(self.stream.write(memoryview(b"bcd")), 3)
        self.assertEqual(self.stream.write(bytearray(b"e")), 1)
        self.assertEqual(self.stream.send("\xff"), 1)
        self.stream.sendall(b"f")
        self.stream.writeall(b"g")
        self.assertEqual(self.theirs.recv(100), b"abcde\xfffg")
        with self.assertRaises(UnicodeEncodeError):
            self.stream.write("€")

    def test_it_goes_under_buffers_and_closing_those_is_not_the_end(self) -> None:
        self.theirs.sendall(b"a: 1\r\nb: 2\r\n\r\nbody")
        self.theirs.shutdown(socket.SHUT_WR)
        with io.BufferedReader(self.stream) as reader, io.BufferedWriter(self.stream) as writer:
            self.assertEqual(reader.readline(), b"a: 1\r\n")
            self.assertEqual(reader.read(6), b"b: 2\r\n")
            self.assertEqual(reader.read(), b"\r\nbody")
            writer.write(b"x" * 20_000)
        self.assertEqual(len(self.theirs.recv(100_000)), 20_000)
        with self.assertRaises(ValueError):
            self.stream.read(1)
        with self.assertRaises(ValueError):
            self.stream.write(b"x")
        self.assertEqual(self.said, [])
        self.stream._end(True)
        self.assertEqual(self.said, ["stream_end"])
        self.assertEqual(self.theirs.recv(1), b"")

    def test_writing_to_a_connection_that_is_gone_says_so(self) -> None:
        self.theirs.close()
        with self.assertRaises(BrokenPipeError):
            self.stream.write(b"x")
        self.assertEqual(self.stream.read(1), b"")


if __name__ == "__main__":
    unittest.main()
