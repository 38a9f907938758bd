"""The Node package over real sockets: verdicts, notices, streams, and the protocol's transcripts."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import random
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
import unittest
from typing import Any

ROUTERS = pathlib.Path(__file__).resolve().parent.parent.parent
NODE = ROUTERS / "node"
sys.path.insert(0, str(ROUTERS / "python" / "tests"))

from harness import TIMEOUT, Link, Router  # noqa: E402
from test_rewrite import RewriteTest, Stream  # noqa: E402
from test_transcripts import replay_all  # noqa: E402

#: Older ones cannot connect to where rewriters dial back.
VERSION_MIN = 20


def setUpModule() -> None:
    node = shutil.which("node")
    version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout if node else "v0"
    if int(version.strip("v\n").partition(".")[0]) < VERSION_MIN:
        # It is not tested without it; that must not look like success.
        print(f"\n*** there is no Node.js {VERSION_MIN} or later: NO NODE ROUTER WAS TESTED ***", file=sys.stderr)
        raise unittest.SkipTest("node is missing")


class NodeTest(RewriteTest):
    def node(self, text: str, **options: Any) -> Router:
        imports = f"import {{ close, invalidate, run }} from {str(NODE / 'src' / 'index.mjs')!r};\n"
        return self.start("node", self.write("route.mjs", imports + text), **options)

    def rewriter(self, text: str, **_: str) -> Router:
        router = self.node(text)
        self.worker.hello(router)
        return router


class Transcripts(NodeTest):
    def test_the_conformance_router_answers_every_transcript_as_it_says(self) -> None:
        replay_all(self, "node", NODE / "examples" / "conformance.mjs")


class Verdicts(NodeTest):
    def test_bytes_travel_as_one_character_each_and_come_as_a_buffer(self) -> None:
        router = self.node(
            """
            run((data) => ({ remote: 'h:1', data: [data, 'é', new Uint8Array([0, 255])], reply: Buffer.from([128]) }));
            """
        )
        everything = bytes(range(256))
        self.assertEqual(
            router.ask(everything),
            {"remote": "h:1", "data": everything.decode("latin-1") + "é\0ÿ", "reply": "\x80"},
        )

    def test_the_question_says_who_asks(self) -> None:
        router = self.node(
            """
            run(async (data, q) => ({ close: JSON.stringify([
              q.connection, q.event, q.client, q.local, q.listener, q.state, q.replay, q.clientHello,
              q.deadline > performance.now(), String(q.data), q.signal.aborted]) }));
            """
        )
        self.assertEqual(
            router.ask(b"x", state={"a": 1}, client_hello={"state": "complete"})["close"],
            '["1.7","data",["127.0.0.1",40000],["127.0.0.1",5000],"127.0.0.1:5000",{"a":1},0,{"state":"complete"},'
            'true,"x",false]',
        )

    def test_what_cannot_be_sent_is_an_error_for_its_connection_alone(self) -> None:
        router = self.node(
            """
            const wrong = {
              text: () => 'x', list: () => [], number: () => 1, bytes: () => Buffer.from('x'),
              euro: () => ({ close: '€' }), parts: () => ({ reply: ['a', 1] }), data: () => ({ remote: 'h:1', data: {} }),
              thrown: () => { throw new RangeError('too \\ud800 far'); }, rejected: () => Promise.reject(new Error('no')),
              odd: () => { throw 'odd'; },
            };
            run((data) => wrong[data] ? wrong[data]() : null);
            """
        )
        for data, text in (
            ("text", "not string"),
            ("list", "not a list"),
            ("number", "not number"),
            ("bytes", "not bytes"),
            ("euro", 'close: "€" is no byte'),
            ("parts", "reply: bytes or a string, not number"),
            ("data", "data: bytes or a string, not object"),
            ("thrown", "RangeError: too \ufffd far"),
            ("rejected", "Error: no"),
            ("odd", "odd"),
        ):
            self.assertIn(text, router.ask_for_error(data.encode()), data)
        self.assertIsNone(router.ask(b"x"))
        self.assertIn("route.mjs:", router.stderr())

    def test_a_descriptor_is_closed_once_it_is_taken(self) -> None:
        router = self.node(
            """
            import fs from 'node:fs';
            import { open } from 'node:fs/promises';
            run(async (data) => ({
              number: () => ({ file: fs.openSync('/etc/hostname') }),
              handle: async () => ({ file: await open('/etc/hostname'), offset: 1 }),
              path: () => ({ file: '/etc/hostname' }),
            })[data]());
            """
        )
        self.assertIn("taken", router.hello()["methods"])
        self.assertEqual(router.ask(b"path"), {"file": "/etc/hostname"})
        for kind, more in ((b"number", {}), (b"handle", {"offset": 1})):
            question = router.question(kind)
            verdict = router.call(question)["result"]
            number = verdict.pop("file")
            self.assertEqual(verdict, more)
            link = f"/proc/{router.process.pid}/fd/{number}"
            self.assertEqual(os.readlink(link), os.path.realpath("/etc/hostname"))
            router.notify("taken", id=question["id"])
            deadline = time.monotonic() + TIMEOUT
            while os.path.lexists(link) and time.monotonic() < deadline:
                router.ask(b"path")
            self.assertFalse(os.path.lexists(link))

    def test_prints_are_lines_of_the_log(self) -> None:
        router = self.node("run(() => { console.log('{seen}'); process.stdout.write('raw\\n'); return null; });")
        self.assertIsNone(router.ask(b"x"))
        self.assertEqual(router.stderr(), "{seen}\nraw\n")

    def test_answers_come_in_any_order_and_the_end_waits_for_them(self) -> None:
        router = self.node("run((data) => new Promise((done) => setTimeout(done, Number(data), { close: data })));")
        slow, quick = router.question(b"300"), router.question(b"1")
        router.send(slow, quick)
        self.assertEqual(router.receive()["id"], quick["id"])
        router.sock.shutdown(socket.SHUT_WR)
        self.assertEqual(router.receive(), {"jsonrpc": "2.0", "id": slow["id"], "result": {"close": "300"}})
        self.assertEqual(router.wait(), 0)

    def test_a_question_that_is_cancelled_says_so_by_its_signal(self) -> None:
        router = self.node(
            """
            run((data, { signal }) => data.length === 0 ? null
              : new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))));
            """
        )
        question = router.question(b"x")
        router.send(question)
        self.assertIsNone(router.ask(b""))
        router.cancel(question)
        answer = router.receive()
        self.assertEqual((answer["id"], answer["error"]["message"]), (question["id"], "cancelled"))
        self.assertEqual(router.stderr(), "")

    def test_lines_may_be_cut_anywhere_and_what_is_no_message_is_skipped(self) -> None:
        router = self.node("run((data) => ({ close: data }));")
        line = json.dumps(router.question("é\u2028".encode()), ensure_ascii=False).encode() + b"\n"
        for n in range(len(line)):
            router.send_raw(line[n : n + 1])
        self.assertEqual(router.receive()["result"], {"close": "é\u2028".encode().decode("latin-1")})
        router.send_raw(b"{\n[]\n\nnull\n" + line.replace(b'"id": 1', b'"id": 2') + line[:5])
        self.assertEqual(router.receive()["id"], 2)
        self.assertEqual(router.end(), 0)
        self.assertEqual(router.stderr().count("skipped"), 3)

    def test_proxy_error_and_closed(self) -> None:
        router = self.node(
            """
            let ends = 0;
            run({
              proxy: () => ({ close: String(ends) }),
              proxyError: (error) => error.type === 'dns' ? { remote: 'other:1' } : Buffer.from(error.type),
              closed: (connection) => { ends += connection.bytes_to_client; },
              events: ['data', 'connect'], maxInFlight: 7, name: 'mine',
            });
            """
        )
        hello = router.hello()
        self.assertEqual((hello["events"], hello["max_in_flight"], hello["name"]), (["connect"], 7, "mine"))
        self.assertEqual(hello["methods"], ["proxy", "proxy_error", "cancel", "shutdown", "taken", "closed"])
        self.assertEqual(router.call(router.request("proxy_error", type="dns"))["result"], {"remote": "other:1"})
        self.assertEqual(router.call(router.request("proxy_error", type="x"))["result"], {"close": "x"})
        router.notify("closed", connection="1.1", bytes_to_client=5)
        self.assertEqual(router.ask(b""), {"close": "5"})
        self.assertEqual(router.call(router.request("proxy"))["error"]["code"], -32602)
        self.assertEqual(router.call(router.request("new"))["error"]["code"], -32601)

    def test_what_is_told_without_being_asked(self) -> None:
        router = self.node(
            """
            invalidate({ all: true });
            run((data, { progress }) => {
              progress(2.5);
              close({ tag: 'blue', reset: true });
              invalidate({ key: 'data', value: Buffer.from([255]) });
              for (const wrong of [() => close({}), () => close({ tag: 'a', remote: 'b' }), () => invalidate({ key: 'sni' })]) {
                try { wrong(); return { close: 'it was taken' }; } catch (error) { if (!(error instanceof TypeError)) throw error; }
              }
              return null;
            });
            """
        )
        router.hello()

        def told() -> Any:
            message = router.receive()
            return message["method"], message["params"]

        self.assertEqual(told(), ("invalidate", {"all": True}))
        question = router.question(b"x")
        router.send(question)
        self.assertEqual(told(), ("progress", {"id": question["id"], "seconds": 2.5}))
        self.assertEqual(told(), ("close", {"tag": "blue", "reset": True}))
        self.assertEqual(told(), ("invalidate", {"key": "data", "value": "ÿ"}))
        self.assertIsNone(router.receive()["result"])

    def test_a_router_that_is_not_started_by_tproxy_says_how(self) -> None:
        script = self.write("route.mjs", f"import {{ run }} from {str(NODE / 'src' / 'index.mjs')!r}; run(() => null);")
        for given in (os.open(os.devnull, os.O_RDONLY), os.open(script, os.O_RDONLY)):
            done = subprocess.run(["node", script], stdin=given, capture_output=True, timeout=TIMEOUT, text=True)
            os.close(given)
            self.assertEqual(done.returncode, 1)
            self.assertIn("start this router with: tproxy --router 'node route.mjs'", done.stderr)


class Listening(NodeTest):
    def connect(self, path: pathlib.Path) -> Link:
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

    def test_several_workers_share_what_the_script_knows(self) -> None:
        path = self.folder / "route.sock"
        left = socket.socket(socket.AF_UNIX)
        left.bind(str(path))
        left.close()  # a socket that nobody listens on any more
        text = f"""
            let count = 0;
            run({{
              proxy: () => ({{ close: String(++count) }}), listen: {str(path)!r},
              rewriteRequest: async (stream) => {{ for await (const data of stream) stream.write(data); }},
            }});
            """
        self.node(text)
        links = [self.connect(path) for _ in range(3)]
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        for n, link in enumerate(links, 1):
            self.worker.hello(link)
            self.assertEqual(link.ask(b"x"), {"close": str(n)})
        links[0].close()
        with self.worker.stream(links[1]) as stream:
            stream.send(b"abc")
            stream.end()
            self.assertEqual(stream.rest(), b"abc")
            self.assert_said(links[1], "stream_end", stream)
        second = self.node(text)
        self.assertEqual(second.wait(), 1)
        self.assertIn("cannot listen", second.stderr())
        self.assertEqual(links[2].ask(b"x"), {"close": "4"})


IDENTITIES = {
    "for await": "async (stream) => { for await (const data of stream) if (!stream.write(data)) await once(stream, 'drain'); }",
    "pipe": "(stream) => { stream.pipe(stream); }",
    "pipeline": "(stream) => pipeline(stream, new PassThrough(), stream)",
    "events": "(stream) => { stream.on('data', (data) => stream.write(data)).on('end', () => stream.end()); }",
}


def identity(function: str) -> str:
    return f"""
        import {{ once }} from 'node:events';
        import {{ PassThrough }} from 'node:stream';
        import {{ pipeline }} from 'node:stream/promises';
        const rewrite = {function};
        run({{ proxy: () => null, rewriteRequest: rewrite, rewriteResponse: rewrite }});
        """


class Streams(NodeTest):
    def pour(self, stream: Stream, data: bytes) -> None:
        stream.send(data)
        stream.end()

    def collect(self, stream: Stream, got: bytearray) -> None:
        got.extend(stream.rest())

    def test_what_is_read_and_written_comes_through_and_the_end_is_said_before_it_comes(self) -> None:
        for name, function in IDENTITIES.items():
            with self.subTest(name):
                router = self.rewriter(identity(function))
                data = secrets.token_bytes(300_000)
                with self.worker.stream(router) as stream:
                    stream.send(b"a")
                    self.assertEqual(stream.receive(1), b"a")
                    self.assert_silent(router)
                    writer = threading.Thread(target=self.pour, args=(stream, data))
                    writer.start()
                    self.assertEqual(hashlib.sha256(stream.rest()).digest(), hashlib.sha256(data).digest())
                    writer.join()
                    router.sock.setblocking(False)  # it has been said already
                    self.assert_said(router, "stream_end", stream)
                    router.sock.settimeout(TIMEOUT)
                self.assertEqual(router.end(), 0)
                self.assertEqual(router.stderr(), "")

    def test_the_stream_says_whose_it_is_and_extra_comes_along(self) -> None:
        router = self.rewriter(
            """
            const show = async (stream, extra) => {
              stream.end(JSON.stringify([stream.connection, stream.direction, stream.extra, extra]));
            };
            run({ proxy: () => null, rewriteRequest: show, rewriteResponse: show });
            """
        )
        with self.worker.stream(router, connection="3.4", extra={"a": 1}) as stream:
            self.assertEqual(stream.rest(), b'["3.4","to_remote",{"a":1},{"a":1}]')
        with self.worker.stream(router, "rewrite_response") as stream:
            self.assertEqual(stream.rest(), b'["1.7","to_client",null,null]')

    def test_a_function_that_returns_early_ends_the_stream_as_it_should(self) -> None:
        router = self.rewriter(
            """
            run({ proxy: () => null, rewriteRequest: async (stream) => {
              for await (const data of stream) { stream.write('enough'); break; }
            } });
            """
        )
        with self.worker.stream(router) as stream:
            stream.send(b"some")
            self.assertEqual(stream.rest(), b"enough")
            self.assert_said(router, "stream_end", stream)

    def test_an_exception_is_an_abort_with_its_trace_in_the_log(self) -> None:
        for function in (
            "async (stream) => { throw new RangeError('no good'); }",
            "(stream) => { throw new RangeError('no good'); }",
            "async (stream) => { stream.write('half'); for await (const data of stream) throw new RangeError('no good'); }",
        ):
            with self.subTest(function):
                router = self.rewriter(f"run({{ proxy: () => null, rewriteRequest: {function} }});")
                with self.worker.stream(router) as stream:
                    if "await" in function:
                        self.assertEqual(stream.receive(4), b"half")
                        stream.send(b"x, unread")
                    self.assertEqual(stream.rest(), b"")
                    self.assert_silent(router)
                self.assertIn("RangeError: no good", router.stderr())
                self.assertIn("route.mjs:", router.stderr())
                self.assertEqual(router.end(), 0)

    def test_destroying_the_stream_is_an_abort_without_a_word(self) -> None:
        router = self.rewriter("run({ proxy: () => null, rewriteRequest: (stream) => { stream.destroy(); } });")
        with self.worker.stream(router) as stream:
            self.assertEqual(stream.rest(), b"")
            self.assert_silent(router)
        self.assertEqual(router.stderr(), "")

    def test_a_connection_that_goes_away_is_no_fault_of_the_function(self) -> None:
        for name, function in IDENTITIES.items():
            with self.subTest(name):
                router = self.rewriter(identity(function))
                with self.worker.stream(router) as stream:
                    stream.send(b"x" * 100_000)
                    stream.receive(1)
                self.assert_silent(router)
                self.assertEqual(router.end(), 0)
                self.assertEqual(router.stderr(), "")

    def test_two_hundred_streams_at_once(self) -> None:
        router = self.rewriter(identity(IDENTITIES["pipe"]))
        tokens = [self.worker.tell(router, connection=f"1.{n}") for n in range(200)]
        streams = [self.worker.arrived(token) for token in tokens]
        texts = [secrets.token_bytes(1000 + n) for n in range(200)]
        for stream, text in zip(streams, texts):
            stream.send(text)
        for stream, text in zip(reversed(streams), reversed(texts)):
            self.assertEqual(stream.receive(len(text)), text)
            stream.end()
        for stream in streams:
            self.assertEqual(stream.rest(), b"")
            stream.sock.close()
        self.assertEqual({router.receive()["params"]["token"] for _ in streams}, set(tokens))

    def test_who_does_not_read_holds_up_who_writes(self) -> None:
        for name, function in IDENTITIES.items():
            if name == "events":
                continue  # which asks for trouble
            with self.subTest(name):
                router = self.rewriter(identity(function))
                with self.worker.stream(router) as stream:
                    stream.sock.settimeout(0.5)
                    sent = 0
                    with self.assertRaises(socket.timeout):
                        while sent < 24 << 20:
                            sent += stream.sock.send(bytes(1 << 16))
                    self.assertLess(sent, 8 << 20)
                    stream.sock.settimeout(TIMEOUT)
                    got = 0
                    while got < sent:
                        got += len(stream.sock.recv(1 << 18))
                    self.assertEqual(got, sent)

    def test_what_was_given_before_leaving_arrives_once_and_in_order(self) -> None:
        router = self.rewriter(
            """
            import { once } from 'node:events';
            run({ proxy: () => null, rewriteRequest: async (stream) => {
              await once(stream, 'readable');
              const data = stream.read();
              stream.write('first:');
              stream.write(data.subarray(0, 5));
              stream.unshift(data.subarray(5));
              await stream.detach();
            } });
            """
        )
        chance = random.Random(3)
        for _ in range(8):
            data = b"12345" + chance.randbytes(chance.randrange(1, 600_000))
            got = bytearray()
            with self.worker.stream(router) as stream:
                reader = threading.Thread(target=self.collect, args=(stream, got))
                reader.start()
                sent = 0
                while sent < len(data) and (sent < 5 or chance.random() > 0.2):
                    piece = chance.choice((5, 16, 1000, 65536))
                    stream.send(data[sent : sent + piece])
                    sent = min(len(data), sent + piece)
                self.assert_said(router, "detach", stream)
                stream.end()
                reader.join(TIMEOUT)
                self.assert_said(router, "stream_end", stream)
            self.assertEqual(bytes(got), b"first:" + data[:sent])

    def test_a_listener_that_leaves_loses_nothing_of_what_comes_until_tproxy_knows(self) -> None:
        for event, handler in (
            ("data", "(data) => { stream.write(data); stream.detach(); }"),
            ("data", "(data) => { stream.detach(); stream.unshift(data); }"),
            ("readable", "() => { stream.write(stream.read()); stream.detach(); }"),
        ):
            with self.subTest(handler):
                router = self.rewriter(
                    f"""
                    const long = 'x'.repeat(4 << 20);
                    const rewriteRequest = (stream) => {{ stream.on('{event}', {handler}); }};
                    run({{ proxy: () => ({{ close: long }}), rewriteRequest }});
                    """
                )
                # An answer that is not read: the word that it leaves waits behind it.
                router.send(router.question(b"x"))
                with self.worker.stream(router) as stream:
                    stream.send(b"a")
                    self.assertEqual(stream.receive(1), b"a")
                    stream.send(b"b")
                    self.assertIn("result", router.receive())
                    self.assert_said(router, "detach", stream)
                    stream.send(b"c")
                    stream.end()
                    self.assertEqual(stream.rest(), b"bc")
                    self.assert_said(router, "stream_end", stream)

    def test_a_function_that_is_over_while_it_leaves_has_not_ended_the_stream(self) -> None:
        for name, function in (
            ("returns", "async (stream) => { stream.detach(); }"),
            ("leaves twice", "async (stream) => { stream.detach(); stream.detach(); }"),
            ("ends a loop", "async (stream) => { for await (const d of stream) { stream.write(d); stream.detach(); } }"),
            ("throws", "(stream) => { stream.detach(); throw new RangeError('no good'); }"),
            ("rejects", "async (stream) => { await stream.detach(); throw new RangeError('no good'); }"),
        ):
            with self.subTest(name):
                router = self.rewriter(f"run({{ proxy: () => null, rewriteRequest: {function} }});")
                with self.worker.stream(router) as stream:
                    stream.send(b"a")
                    self.assert_said(router, "detach", stream)
                    stream.send(b"bc")
                    stream.end()
                    self.assertEqual(stream.rest(), b"abc")
                    self.assert_said(router, "stream_end", stream)
                self.assertEqual(router.end(), 0)
                self.assertEqual("RangeError" in router.stderr(), "RangeError" in function)

    def test_a_connection_that_goes_away_while_nobody_waits_for_the_leaving_is_no_fault_of_the_router(self) -> None:
        router = self.rewriter("run({ proxy: () => null, rewriteRequest: (stream) => { stream.detach(); } });")
        with self.worker.stream(router) as stream:
            self.assert_said(router, "detach", stream)
            stream.send(b"x" * 100_000)
            stream.receive(1)
        self.assert_silent(router)
        self.assertEqual(router.end(), 0)
        self.assertEqual(router.stderr(), "")

    def test_a_tproxy_that_cannot_be_dialled_is_logged_and_the_router_goes_on(self) -> None:
        router = self.rewriter(identity(IDENTITIES["pipe"]))
        self.worker.close()
        self.worker.tell(router)
        deadline = time.monotonic() + TIMEOUT
        while "cannot dial back" not in router.stderr() and time.monotonic() < deadline:
            self.assert_silent(router)
        self.assertIn("cannot dial back to tproxy at unix:@tproxy-test-", router.stderr())


class Examples(NodeTest):
    def test_route(self) -> None:
        router = self.start("node", NODE / "examples" / "route.mjs")
        self.assertEqual(
            router.ask(b"GET / HTTP/1.1\r\nHost: One.localhost:5000\r\n\r\n"), {"remote": "127.0.0.1:8001"}
        )
        self.assertEqual(router.ask(b"GET / HTTP/1.1\r\nhost:two.localhost\r\n"), {"remote": "127.0.0.1:8002"})
        self.assertIsNone(router.ask(b"GET / HTTP/1.1\r\nHost: one"))
        for head in (b"GET / HTTP/1.1\r\nHost: three\r\n\r\n", b"\xff\r\n\r\n"):
            text, _, body = router.ask(head)["close"].partition("\r\n\r\n")
            self.assertIn(f"404 Not Found\r\nContent-Length: {len(body)}\r\n", text)

    def test_via(self) -> None:
        router = self.start("node", NODE / "examples" / "via.mjs", env={"REMOTE": "h:1"})
        self.assertEqual(self.worker.hello(router)["methods"][-1], "rewrite_response")
        self.assertEqual(router.ask(b"x"), {"remote": "h:1"})
        for head, more in (
            (b"HTTP/1.1 200 OK\r\n", b"Via: 1.1 tproxy\r\n"),
            (b"HTTP/1.1 100 Continue\r\n", b""),
            (b"SSH-2.0-x\n", b""),
            (b"x" * 9000, b""),
        ):
            rest = b"A: b\r\n\r\n" + secrets.token_bytes(100_000)
            with self.worker.stream(router, "rewrite_response") as stream:
                stream.send(head[:3])
                stream.send(head[3:])
                self.assert_said_after(router, stream, rest)
                self.assertEqual(stream.rest(), head + more + rest)
                self.assert_said(router, "stream_end", stream)

    def assert_said_after(self, router: Router, stream: Any, rest: bytes) -> None:
        self.assert_said(router, "detach", stream)
        writer = threading.Thread(target=lambda: (stream.send(rest), stream.end()))
        writer.start()
        self.addCleanup(writer.join)


if __name__ == "__main__":
    unittest.main()
