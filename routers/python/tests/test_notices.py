"""Events, what a question says of TLS, what ends, and what a router tells without being asked."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import unittest
from typing import Any

from harness import PACKAGE, RouterTest

sys.path.insert(0, str(PACKAGE))

import tproxy  # noqa: E402

#: One function, however it is called.
KINDS = (("def", ""), ("def", ", threads=2"), ("async def", ""))


def notice(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


class Events(RouterTest):
    def test_hello_tells_the_events_that_run_was_given(self) -> None:
        for given, told in (
            ("['connect', 'silence', 'eof', 'timeout']", ["connect", "silence", "eof", "timeout"]),
            ("('data', 'eof', 'eof')", ["eof"]),
            ("[]", []),
        ):
            with self.subTest(given):
                router = self.program(f"import tproxy\ntproxy.run(lambda data: None, events={given})\n")
                self.assertEqual(router.hello()["events"], told)

    def test_an_event_that_is_none_ends_the_program_with_a_sentence(self) -> None:
        for given, text in (
            ("['conect']", "ValueError: events: 'conect' is none of data, connect, silence, eof, timeout"),
            ("'connect'", "TypeError: events must be a list, as in events=['connect']"),
        ):
            router = self.program(f"import tproxy\ntproxy.run(lambda data: None, events={given})\n")
            self.assertEqual(router.wait(), 1)
            self.assertIn(text, router.stderr())

    def test_the_question_says_which_event_it_is(self) -> None:
        for kind, options in KINDS:
            with self.subTest(kind + options):
                router = self.program(
                    f"""
                    import tproxy
                    {kind} proxy(data, question):
                        return {{"close": question.event + " " + data.decode()}}
                    tproxy.run(proxy, events=["connect", "eof"]{options})
                    """
                )
                for event, data in (("connect", b""), ("data", b"x"), ("eof", b"y")):
                    self.assertEqual(router.ask(data, event=event), {"close": f"{event} {data.decode()}"})

    def test_a_script_has_them_by_name(self) -> None:
        router = self.classic("events = ['connect']\ndef proxy(data, question): return {'close': question.event}\n")
        self.assertEqual(router.hello()["events"], ["connect"])
        self.assertEqual(router.ask(b"", event="connect"), {"close": "connect"})
        for other in ("{'connect': 1}", "7", "None", "[1]", "[]"):  # a script's own affair
            router = self.classic(f"events = {other}\ndef proxy(data): return None\n")
            self.assertEqual(router.hello()["events"], [])
        router = self.classic("events = ['connected']\ndef proxy(data): return None\n")
        self.assertEqual(router.wait(), 1)
        self.assertIn("events: 'connected' is none of", router.stderr())


class ClientHello(RouterTest):
    def test_a_question_tells_what_the_client_says_with_bytes_for_alpn(self) -> None:
        router = self.program(
            """
            import tproxy
            tproxy.run(lambda data, question: {"close": repr(question.client_hello and tuple(question.client_hello))})
            """
        )
        for given, seen in (
            ({"state": "complete", "sni": "A.example", "alpn": ["h2", "\xff"]}, ("A.example", (b"h2", b"\xff"), False)),
            ({"state": "complete", "sni": None, "sni_unusable": True, "alpn": []}, (None, (), True)),
            ({"state": "complete", "alpn": None}, (None, (), False)),
            ({"state": "need_more"}, (None, (), False)),
            ({"state": "malformed", "new": 1}, (None, (), False)),
        ):
            with self.subTest(given):
                verdict = router.ask(b"\x16", client_hello=given)
                self.assertEqual(verdict, {"close": repr((given["state"], *seen))})
        self.assertEqual(router.ask(b"x"), {"close": "None"})
        self.assertEqual(router.ask(b"x", client_hello=None), {"close": "None"})


class EndedHere(RouterTest):
    def test_a_question_tells_what_was_agreed_with_a_client_whose_tls_ends_at_tproxy(self) -> None:
        router = self.program(
            """
            import tproxy
            def proxy(data, question):
                return {"close": repr(question.tls and tuple(question.tls))}
            tproxy.run(proxy)
            """
        )
        shown = {"subject": "CN=a", "issuer": "CN=b", "names": ["DNS:a", "IP:::1"], "fingerprint": "00ff", "new": 1}
        certificate = tproxy.ClientCertificate("CN=a", "CN=b", ("DNS:a", "IP:::1"), "00ff")
        agreed = {"version": "TLSv1.3", "cipher": "X", "sni": "a.example", "alpn": "h2"}
        seen = ("TLSv1.3", "X", "a.example", "h2")
        for given, told in (
            ({**agreed, "client_certificate": shown}, (*seen, certificate)),
            ({**agreed, "client_certificate": None}, (*seen, None)),
            ({**agreed, "sni": None, "alpn": None, "new": {}}, ("TLSv1.3", "X", None, None, None)),
            ({"version": "TLSv1.4"}, ("TLSv1.4", "", None, None, None)),
        ):
            with self.subTest(given):
                self.assertEqual(router.ask(b"x", tls=given), {"close": repr(told)})
        self.assertEqual(router.ask(b"x"), {"close": "None"})
        self.assertEqual(router.ask(b"x", tls=None), {"close": "None"})


class Cached(RouterTest):
    def test_a_cache_and_labels_go_through_as_they_are(self) -> None:
        router = self.program("import tproxy\ntproxy.run(lambda data: eval(data))\n")
        for code, verdict in (
            (
                "{'remote': 'h:1', 'cache': {'key': 'sni', 'ttl': 60}, 'tags': ['a'], 'note': 'n'}",
                {"remote": "h:1", "cache": {"key": "sni", "ttl": 60}, "tags": ["a"], "note": "n"},
            ),
            (
                "{'close': b'x', 'cache': {'key': ('host', 'client'), 'ttl': 0.5}}",
                {"close": "x", "cache": {"key": ["host", "client"], "ttl": 0.5}},
            ),
        ):
            self.assertEqual(router.ask(code.encode()), verdict)
        self.assertIn("TypeError: cache:", router.ask_for_error(b"{'remote': 'h:1', 'cache': {'key': {1}, 'ttl': 1}}"))


class Failover(RouterTest):
    def test_proxy_error_may_answer_with_other_remotes(self) -> None:
        for kind, options in KINDS:
            with self.subTest(kind + options):
                router = self.program(
                    f"""
                    import tproxy
                    {kind} proxy(data):
                        return None
                    {kind} proxy_error(client, error):
                        tried = [attempt["remote"] for attempt in error.attempts]
                        if len(tried) == 1:
                            return {{"remote": ("b", 2), "connect_timeout": 1}}
                        return {{"remotes": [("c", 3), "d:4"]}} if len(tried) == 2 else None
                    tproxy.run(proxy, proxy_error=proxy_error{options})
                    """
                )

                for count, result in (
                    (1, {"remote": ["b", 2], "connect_timeout": 1}),
                    (2, {"remotes": [["c", 3], "d:4"]}),
                    (3, None),
                ):
                    attempts = [{"remote": "a:1", "type": "dns", "message": ""}] * count
                    answer = router.call(router.request("proxy_error", type="dns", attempts=attempts))
                    self.assertEqual(answer["result"], result)


class ClosedConnections(RouterTest):
    def test_a_callback_is_told_of_each_end(self) -> None:
        for kind, options in (*KINDS, ("sync", ""), ("awaiting", "")):
            with self.subTest(kind + options):
                tell = "async def" if kind == "awaiting" else "def" if kind == "sync" else kind
                script = self.write("closed.py", "")
                script.write_text(
                    "import asyncio, tproxy\n"
                    "seen = []\n"
                    f"{kind if 'def' in kind else 'async def'} proxy(data):\n"
                    "    return {'close': str(seen)}\n"
                    f"{tell} closed(c):\n"
                    f"    {'await asyncio.sleep(0)' if kind == 'awaiting' else 'pass'}\n"
                    "    seen.append((c.connection, c.bytes_to_remote, c.bytes_to_client, c.duration, c.reason))\n"
                    "    print('told')\n"
                    f"tproxy.run(proxy, closed=closed{options})\n"
                )
                router = self.start(sys.executable, script)
                self.assertEqual(router.hello()["methods"], ["proxy", "cancel", "shutdown", "closed"])
                router.notify(
                    "closed", connection="1.7", bytes_to_remote=1, bytes_to_client=2, duration_ms=12, reason="done"
                )
                while "told" not in router.stderr():
                    router.ask(b"x")
                self.assertEqual(router.ask(b"x"), {"close": "[('1.7', 1, 2, 0.012, 'done')]"})

    def test_without_a_callback_it_is_not_asked_for_and_does_no_harm(self) -> None:
        router = self.program("import tproxy\ntproxy.run(lambda data: {'close': True})\n")
        self.assertNotIn("closed", router.hello()["methods"])
        router.notify("closed", connection="1.7")
        self.assertEqual(router.ask(b"x"), {"close": True})
        self.assertEqual(router.stderr(), "")

    def test_an_exception_in_it_is_logged_and_hurts_nobody(self) -> None:
        for kind, options in KINDS:
            with self.subTest(kind + options):
                router = self.program(
                    f"""
                    import tproxy
                    {kind} proxy(data):
                        return {{"close": True}}
                    {kind} closed(connection):
                        raise KeyError(connection.connection)
                    tproxy.run(proxy, closed=closed{options})
                    """
                )
                router.notify("closed", connection="1.7")
                self.assertEqual(router.ask(b"x"), {"close": True})
                while "KeyError: '1.7'" not in router.stderr():
                    router.ask(b"x")
                self.assertNotIn("_router.py", router.stderr())
                self.assertEqual(router.end(), 0)

    def test_it_comes_after_the_question_about_its_connection(self) -> None:
        router = self.classic(
            """
            live = set()
            def proxy(data, question):
                live.add(question.connection)
                return {"close": str(len(live))}
            def closed(connection):
                live.discard(connection.connection)
            """
        )
        router.hello()
        router.process.send_signal(signal.SIGSTOP)  # so that all of it is one read
        for n in range(20):
            router.send(router.question(b"x", connection=f"1.{n}"))
            router.notify("closed", connection=f"1.{n}")
        router.process.send_signal(signal.SIGCONT)
        self.assertEqual([router.receive()["result"]["close"] for _ in range(20)], ["1"] * 20)

    def test_a_script_with_a_variable_of_that_name_still_works(self) -> None:
        router = self.classic("closed = False\ndef proxy(data): return {'close': True}\n")
        self.assertNotIn("closed", router.hello()["methods"])
        self.assertEqual(router.ask(b"x"), {"close": True})


class Telling(RouterTest):
    def test_proxy_tells_ahead_of_its_own_answer_and_behind_those_before(self) -> None:
        for kind, options in KINDS:
            with self.subTest(kind + options):
                router = self.program(
                    f"""
                    import tproxy
                    {kind} proxy(data):
                        if data == b"all":
                            tproxy.invalidate(all=True)
                        elif data == b"tag":
                            tproxy.close(tag="old")
                        return {{"remote": "h:1", "tags": ["old"]}}
                    tproxy.run(proxy{options})
                    """
                )
                router.hello()
                first, second = router.question(b"x"), router.question(b"tag")
                if options:  # with threads, those before are those that are answered
                    router.call(first)
                    router.send(second)
                else:
                    router.send(first, second)
                    self.assertEqual(router.receive()["id"], first["id"])
                self.assertEqual(router.receive(), notice("close", tag="old"))
                self.assertEqual(router.receive()["id"], second["id"])
                third = router.question(b"all")
                router.send(third)
                self.assertEqual(router.receive(), notice("invalidate", all=True))
                self.assertEqual(router.receive()["id"], third["id"])

    def test_other_threads_tell_at_once_while_nobody_is_asked(self) -> None:
        fifo = self.folder / "fifo"
        os.mkfifo(fifo)
        for kind, options in KINDS:
            with self.subTest(kind + options):
                router = self.program(
                    f"""
                    import threading, tproxy
                    def tell():
                        for line in open({str(fifo)!r}):
                            tproxy.invalidate(key="host", value=line.strip())
                    threading.Thread(target=tell, daemon=True).start()
                    {kind} proxy(data):
                        return {{"close": True}}
                    tproxy.run(proxy{options})
                    """
                )
                router.hello()
                with open(fifo, "w", buffering=1) as words:
                    for n in range(3):
                        print(f"h{n}", file=words)
                        self.assertEqual(router.receive(), notice("invalidate", key="host", value=f"h{n}"))
                self.assertEqual(router.ask(b"x"), {"close": True})

    def test_a_signal_handler_tells_without_waiting_for_a_question(self) -> None:
        for kind, options in KINDS:
            with self.subTest(kind + options):
                router = self.program(
                    f"""
                    import signal, tproxy
                    signal.signal(signal.SIGUSR1, lambda *_: tproxy.invalidate(all=True))
                    {kind} proxy(data):
                        return {{"close": True}}
                    tproxy.run(proxy{options})
                    """
                )
                router.hello()
                # Again and again: one that comes just before Python begins to read waits for what is read.
                while not select.select([router.sock], [], [], 0.1)[0]:
                    router.process.send_signal(signal.SIGUSR1)
                self.assertEqual(router.receive(), notice("invalidate", all=True))

    def test_what_is_told_before_hello_comes_after_its_answer(self) -> None:
        router = self.program(
            """
            import tproxy
            tproxy.invalidate(all=True)
            tproxy.close(remote=("::1", 80))
            tproxy.run(lambda data: None)
            """
        )
        self.assertEqual(router.hello()["protocol"], 1)
        self.assertEqual(router.receive(), notice("invalidate", all=True))
        self.assertEqual(router.receive(), notice("close", remote="[::1]:80"))

    def test_lines_of_many_threads_stay_whole_and_none_is_lost(self) -> None:
        for kind, options in KINDS:
            with self.subTest(kind + options):
                router = self.program(
                    f"""
                    import threading, tproxy
                    start = threading.Event()
                    def tell(name):
                        start.wait()
                        for n in range(300):
                            tproxy.close(tag=f"{{name}}.{{n}}." + "x" * 2000)
                    for name in range(4):
                        threading.Thread(target=tell, args=(name,), daemon=True).start()
                    {kind} proxy(data):
                        start.set()
                        return {{"close": data}}
                    tproxy.run(proxy{options})
                    """
                )
                router.hello()
                questions = [router.question(b"y" * 3000) for _ in range(600)]
                sender = threading.Thread(target=router.send, args=questions)
                sender.start()
                ids, tags = set(), []
                for _ in range(600 + 1200):
                    message = router.receive()
                    if "id" in message:
                        ids.add(message["id"])
                    else:
                        tags.append(tuple(map(int, message["params"]["tag"].split(".")[:2])))
                sender.join()
                self.assertEqual(ids, {question["id"] for question in questions})
                for name in range(4):  # each thread's in its own order
                    self.assertEqual([n for thread, n in tags if thread == name], list(range(300)))
                self.assertEqual(router.end(), 0)


class Arguments(unittest.TestCase):
    """What goes over the wire; nobody is connected, so that it waits."""

    def setUp(self) -> None:
        tproxy._notices._waiting.clear()

    def told(self) -> list[str]:
        return [line.split('"params":')[1].rstrip("}\n") for line in tproxy._notices._waiting]

    def test_invalidate(self) -> None:
        tproxy.invalidate(all=True)
        tproxy.invalidate(key="sni", value="a.example")
        tproxy.invalidate(key="client", value=("10.0.0.1", 4000))
        tproxy.invalidate(key="data", value=b"\xff")
        tproxy.invalidate(key="host", value=b"a")
        self.assertEqual(
            self.told(),
            [
                '{"all":true',
                '{"key":"sni","value":"a.example"',
                '{"key":"client","value":"10.0.0.1"',
                '{"key":"data","value":"\xff"',
                '{"key":"host","value":"a"',
            ],
        )
        wrong: list[tuple[dict[str, Any], type[Exception]]] = [
            ({}, TypeError),
            ({"all": True, "key": "sni", "value": "x"}, TypeError),
            ({"all": False}, TypeError),
            ({"key": "sni"}, TypeError),
            ({"value": "x"}, TypeError),
            ({"key": "path", "value": "x"}, ValueError),
            ({"key": "sni", "value": 7}, TypeError),
            ({"key": "sni", "value": "\ud800"}, ValueError),
            ({"key": "data", "value": "\u20ac"}, ValueError),
        ]
        for arguments, error in wrong:
            with self.subTest(arguments):
                self.assertRaises(error, tproxy.invalidate, **arguments)
        self.assertEqual(len(self.told()), 5)

    def test_close(self) -> None:
        tproxy.close(connection="1.7", reset=True)
        tproxy.close(tag="blue")
        tproxy.close(remote="h:1")
        tproxy.close(remote=("h", 1))
        tproxy.close(remote=b"unix:/x")
        self.assertEqual(
            self.told(),
            ['{"connection":"1.7","reset":true', '{"tag":"blue"', '{"remote":"h:1"', '{"remote":"h:1"']
            + ['{"remote":"unix:/x"'],
        )
        wrong: list[dict[str, Any]] = [{}, {"tag": "a", "remote": "b"}, {"connection": 7}, {"remote": 7}]
        for arguments in wrong:
            with self.subTest(arguments):
                self.assertRaises(TypeError, tproxy.close, **arguments)
        self.assertEqual(len(self.told()), 5)

    def test_what_waits_is_bounded(self) -> None:
        for n in range(3000):
            tproxy.close(tag=str(n))
        self.assertEqual(len(self.told()), 1024)
        self.assertEqual(self.told()[-1], '{"tag":"2999"')
        tproxy._notices._waiting.clear()


if __name__ == "__main__":
    unittest.main()
