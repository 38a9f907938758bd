"""tproxy.run(): the conversation, with plain functions."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import unittest

from harness import PACKAGE, TIMEOUT, RouterTest

ROUTE = """
import tproxy

def proxy(data):
    return {"remote": "127.0.0.1:8000"}

tproxy.run(proxy)
"""


class Conversation(RouterTest):
    def test_hello_tells_what_the_router_is(self) -> None:
        router = self.program(ROUTE)
        self.assertEqual(
            router.hello(),
            {
                "protocol": 1,
                "name": "program.py",
                "methods": ["proxy", "cancel", "shutdown"],
                "events": [],
                "max_in_flight": 64,
            },
        )

    def test_hello_tells_what_run_was_told(self) -> None:
        router = self.program(
            """
            import tproxy
            tproxy.run(lambda data: None, proxy_error=lambda client, error: None, name="mine", max_in_flight=1)
            """
        )
        hello = router.hello()
        self.assertEqual((hello["name"], hello["max_in_flight"]), ("mine", 1))
        self.assertIn("proxy_error", hello["methods"])

    def test_a_question_is_answered_and_the_end_is_status_0(self) -> None:
        router = self.program(ROUTE)
        self.assertEqual(router.ask(b"x"), {"remote": "127.0.0.1:8000"})
        self.assertEqual(router.ask(b"y"), {"remote": "127.0.0.1:8000"})
        self.assertEqual(router.end(), 0)
        self.assertEqual(router.receive_line(), b"")
        self.assertEqual(router.stderr(), "")

    def test_eof_without_a_word_is_status_0(self) -> None:
        self.assertEqual(self.program(ROUTE).end(), 0)

    def test_a_socket_that_is_closed_altogether_ends_it_quietly(self) -> None:
        router = self.program(ROUTE)
        router.hello()
        router.send(*(router.question(b"x") for _ in range(50)))
        router.sock.close()
        self.assertEqual(router.wait(), 0)
        self.assertEqual(router.stderr(), "")

    def test_what_is_open_at_shutdown_is_answered(self) -> None:
        router = self.program(ROUTE)
        question = router.question(b"x")
        router.send(question, {"jsonrpc": "2.0", "method": "shutdown"})
        self.assertEqual(router.receive()["id"], question["id"])
        self.assertEqual(router.end(), 0)

    def test_an_unknown_method_is_answered_as_such_and_an_unknown_notification_not_at_all(self) -> None:
        router = self.program(ROUTE)
        router.send({"jsonrpc": "2.0", "method": "closed", "params": {}})
        self.assertEqual(router.call(router.request("nonsense"))["error"]["code"], -32601)
        self.assertEqual(router.call(router.request("proxy_error"))["error"]["code"], -32601)

    def test_a_question_without_data_is_refused_alone(self) -> None:
        router = self.program(ROUTE)
        self.assertEqual(router.call(router.request("proxy", connection="1.1"))["error"]["code"], -32602)
        self.assertEqual(router.call(router.request("proxy", data=7))["error"]["code"], -32602)
        self.assertEqual(router.call(router.request("proxy", data="\u20ac"))["error"]["code"], -32000)
        self.assertEqual(router.ask(b"x"), {"remote": "127.0.0.1:8000"})

    def test_lines_that_are_no_messages_are_skipped_and_logged(self) -> None:
        router = self.program(ROUTE)
        router.send_raw(b'nonsense\n\n{"half":\n[1]\n"text"\n\xff\xfe\n{"jsonrpc":"2.0","id":5}\n{"id":6,"method":7}\n')
        self.assertEqual(router.ask(b"x"), {"remote": "127.0.0.1:8000"})
        self.assertEqual(router.end(), 0)
        self.assertIn("skipped a line that is not JSON", router.stderr())
        self.assertNotIn("Traceback", router.stderr())

    def test_a_line_in_another_spelling_of_json_is_understood(self) -> None:
        router = self.program("import tproxy\ntproxy.run(lambda data: {'close': data})\n")
        router.send_raw(
            b' { "params" : {"data":"\\u0041\\u00ff\xc3\xbf","new":[1.5e3]},'
            b' "method":"proxy","id":9,"jsonrpc":"2.0"} \r\n'
        )
        self.assertEqual(router.receive(), {"jsonrpc": "2.0", "id": 9, "result": {"close": "A\xff\xff"}})

    def test_ids_that_are_no_integers_come_back_as_they_are(self) -> None:
        router = self.program(ROUTE)
        question = router.question(b"x")
        question["id"] = "seven"
        self.assertEqual(router.call(question)["result"], {"remote": "127.0.0.1:8000"})

    def test_all_256_bytes_arrive_and_leave_unchanged(self) -> None:
        router = self.program("import tproxy\ntproxy.run(lambda data: {'close': data[::-1]})\n")
        every = bytes(range(256))
        self.assertEqual(router.ask(every), {"close": every[::-1].decode("latin-1")})

    def test_a_socket_that_does_not_block_is_made_to(self) -> None:
        script = self.write("program.py", ROUTE)
        code = "import os, sys; os.set_blocking(0, False); os.execv(sys.executable, [sys.executable, sys.argv[1]])"
        router = self.start(sys.executable, "-c", code, script)
        router.hello()
        # Found in the kernel's words: no file of the router's has O_NONBLOCK (04000).
        for path in pathlib.Path(f"/proc/{router.process.pid}/fdinfo").iterdir():
            flags = next(line.split()[1] for line in path.read_text().splitlines() if line.startswith("flags:"))
            self.assertFalse(int(flags, 8) & os.O_NONBLOCK, path.name)

    def test_questions_behind_a_slow_one_are_dropped_when_tproxy_is_gone(self) -> None:
        fifo = self.folder / "fifo"
        router = self.program(
            f"""
            import os, time, tproxy
            os.mkfifo({str(fifo)!r})

            def proxy(data):
                print("asked", data)
                open({str(fifo)!r}).read()
                time.sleep(0.01)

            tproxy.run(proxy)
            """
        )
        router.hello()
        router.process.send_signal(signal.SIGSTOP)
        router.send(*(router.question(b"%d" % n) for n in range(50)))
        router.process.send_signal(signal.SIGCONT)
        with open(fifo, "w"):
            router.sock.close()
        self.assertEqual(router.wait(), 0)
        self.assertEqual(router.stderr().count("asked"), 1)

    def test_sigint_is_ignored_and_sigterm_ends_it(self) -> None:
        router = self.program(ROUTE)
        router.hello()
        router.process.send_signal(signal.SIGINT)
        self.assertEqual(router.ask(b"x"), {"remote": "127.0.0.1:8000"})
        router.process.send_signal(signal.SIGTERM)
        self.assertEqual(router.wait(), -signal.SIGTERM)

    def test_without_a_socket_it_says_how_to_start_it(self) -> None:
        script = self.write("route.py", ROUTE)
        for stdin in (subprocess.DEVNULL, subprocess.PIPE):
            result = subprocess.run(
                [sys.executable, str(script)],
                stdin=stdin,
                capture_output=True,
                env={"PYTHONPATH": str(PACKAGE)},
                timeout=TIMEOUT,
            )
            self.assertEqual(result.returncode, 1)
            self.assertIn(b"tproxy --router 'python3 route.py'", result.stderr)

    def test_a_proxy_that_cannot_be_called_is_an_error_at_once(self) -> None:
        for wrong in ("7", "lambda: None", "lambda a, b, c: None"):
            router = self.program(f"import tproxy\ntproxy.run({wrong})\n")
            self.assertEqual(router.wait(), 1)
            self.assertIn("TypeError: proxy must be", router.stderr())
            self.assertEqual(router.receive_line(), b"")


class Parameters(RouterTest):
    def test_the_question_is_given_to_who_has_a_place_for_it(self) -> None:
        forms = {
            "def proxy(data): return {'note': 'data'}": "data",
            "def proxy(data, question): return {'note': question.connection}": "1.7",
            "def proxy(data, question=None): return {'note': question.connection}": "1.7",
            "def proxy(data, cache={}): return {'note': str(cache)}": "{}",
            "def proxy(*args): return {'note': str(len(args))}": "1",
            "def proxy(data, *, question=None): return {'note': str(question)}": "None",
            "import functools\n@functools.partial\ndef proxy(data, question): return {'note': question.event}": "data",
            "class P:\n    def __call__(self, data, q): return {'note': q.listener}\nproxy = P()": "127.0.0.1:5000",
            "class P:\n    def route(self, data): return {'note': 'bound'}\nproxy = P().route": "bound",
        }
        for form, note in forms.items():
            with self.subTest(form):
                router = self.program(f"import tproxy\n{form}\ntproxy.run(proxy)\n")
                self.assertEqual(router.ask(b"x"), {"note": note})

    def test_the_question_has_every_field(self) -> None:
        router = self.program(
            """
            import time
            import tproxy

            def proxy(data, question):
                assert question.data == data == b"\\x00\\xff", data
                left = question.deadline - time.monotonic()
                assert 0 < left <= 5, left
                return {"state": [question.connection, question.event, question.client, question.local,
                                  question.listener, question.state, question.replay, question.params["new"]]}

            tproxy.run(proxy)
            """
        )
        self.assertEqual(
            router.ask(b"\x00\xff", state={"a": 1}, replay=2, new="later"),
            {
                "state": ["1.7", "data", ["127.0.0.1", 40000], ["127.0.0.1", 5000], "127.0.0.1:5000", {"a": 1}, 2]
                + ["later"]
            },
        )

    def test_a_question_that_waited_behind_a_slow_one_has_the_deadline_it_came_with(self) -> None:
        router = self.program(
            """
            import time
            import tproxy

            def proxy(data, question):
                left = question.deadline - time.monotonic()
                time.sleep(0.05)
                return {"state": left}

            tproxy.run(proxy)
            """
        )
        router.hello()
        router.send(*(router.question(b"x") for _ in range(5)))
        left = [router.receive()["result"]["state"] for _ in range(5)]
        # Together they came, so each has what the one before it used less.
        self.assertEqual(left, sorted(left, reverse=True))
        self.assertLess(left[-1], 5 - 0.15)

    def test_a_unix_client_has_no_address(self) -> None:
        router = self.program(
            """
            import tproxy
            tproxy.run(lambda data, question: {"state": [question.client, question.local, question.state]})
            """
        )
        self.assertEqual(router.ask(b"", client=None, local=None), {"state": [None, None, None]})


class Failures(RouterTest):
    def test_an_exception_hurts_one_connection_and_is_logged_with_the_users_frames(self) -> None:
        router = self.program(
            """
            import tproxy

            def lookup(data):
                return {}[data]

            def proxy(data):
                if data == b"good":
                    return {"close": True}
                return lookup(data)

            tproxy.run(proxy)
            """
        )
        questions = [router.question(data) for data in (b"good", b"bad", b"good")]
        router.send(*questions)
        answers = [router.receive() for _ in questions]
        self.assertEqual([answer.get("result") for answer in answers], [{"close": True}, None, {"close": True}])
        self.assertEqual(answers[1]["error"], {"code": -32000, "message": "KeyError: b'bad'"})
        log = router.stderr()
        self.assertIn("in lookup", log)
        self.assertNotIn("_router.py", log)
        self.assertEqual(router.end(), 0)

    def test_any_exception_gets_its_text_across(self) -> None:
        router = self.program(
            """
            import tproxy

            class Odd(Exception):
                def __str__(self):
                    raise ValueError

            def proxy(data):
                raise {b"long": ValueError("x" * 10000), b"half": ValueError("\\ud800\\u20ac"), b"odd": Odd(),
                       b"bare": StopIteration()}[data]

            tproxy.run(proxy)
            """
        )
        self.assertLess(len(router.ask_for_error(b"long")), 1000)
        self.assertEqual(router.ask_for_error(b"half"), "ValueError: \\ud800\u20ac")
        self.assertEqual(router.ask_for_error(b"odd"), "Odd: (no text)")
        self.assertEqual(router.ask_for_error(b"bare"), "StopIteration")

    def test_a_verdict_that_is_none_is_an_error_that_names_the_key(self) -> None:
        router = self.program(
            """
            import tproxy

            def proxy(data):
                return eval(data)

            tproxy.run(proxy)
            """
        )
        wrong = {
            "True": "TypeError: proxy() must return a dict or None, not bool",
            "[1]": "TypeError: proxy() must return a dict or None, not list",
            "b'x'": "TypeError: proxy() must return a dict or None, not bytes",
            "{1: 2}": "TypeError: the key 1 is not a str",
            "{'remote': 7}": "TypeError: remote:",
            "{'remote': ('h',)}": "TypeError: remote:",
            "{'remote': ('h', True)}": "TypeError: remote:",
            "{'remote': {}}": "TypeError: remote:",
            "{'remotes': 'h:1'}": "TypeError: remotes:",
            "{'remotes': [7]}": "TypeError: remotes:",
            "{'reply': 7}": "TypeError: reply:",
            "{'data': {}}": "TypeError: data:",
            "{'close': 1.5}": "TypeError: close:",
            "{'close': [7]}": "TypeError: close:",
            "{'close': '\\u20ac'}": "ValueError: close: the character U+20AC at 0 is no byte",
            "{'reply': ['ok', '\\u0100']}": "ValueError: reply: the character U+0100",
            "{'state': b'x'}": "TypeError: state:",
            "{'note': '\\ud800'}": "ValueError: note:",
            "{'connect_timeout': float('nan')}": "ValueError: connect_timeout:",
            "{'file': 1.5}": "TypeError: file:",
            "{'file': True}": "TypeError: file:",
            "{'file': 1}": "ValueError: file:",
            "{'file': -1}": "ValueError: file:",
            "{'file': 1000}": "ValueError: file: descriptor 1000 is not open",
            "{'file': 10 ** 30}": "ValueError: file:",
            "{'file': b'/\\xff'}": "ValueError: file: the path is not UTF-8",
            "{'file': 'x', 'attached': True}": "ValueError: attached:",
            "{'reply': (bytes(1 << 20) for _ in iter(int, 1))}": "ValueError: reply: more than",
            "{'reply': bytes(1 << 22)}": "ValueError: the verdict is longer than tproxy reads",
        }
        for code, text in wrong.items():
            with self.subTest(code):
                self.assertTrue(router.ask_for_error(code.encode()).startswith(text))
        self.assertEqual(router.ask(b"{'close': True}"), {"close": True})

    def test_exit_in_a_script_ends_the_router_and_those_before_it_have_their_answers(self) -> None:
        router = self.program(
            """
            import sys, tproxy

            def proxy(data):
                if data == b"exit":
                    sys.exit(7)
                return {"close": True}

            tproxy.run(proxy)
            """
        )
        first = router.question(b"x")
        router.send(first, router.question(b"exit"))
        self.assertEqual(router.receive()["id"], first["id"])
        self.assertEqual(router.wait(), 7)

    def test_proxy_error_gets_the_client_and_the_error(self) -> None:
        router = self.program(
            """
            import tproxy
            from tproxy.client import ConnectionError as Failure

            def proxy_error(client, error):
                assert isinstance(error, Failure) and isinstance(error, ConnectionError), error
                return {"close": "%s %s %s %s %s %s" % (client.addr, client.remote, client.connection, error.type,
                                                      error.errno, len(error.attempts))}

            tproxy.run(lambda data: None, proxy_error=proxy_error)
            """
        )
        answer = router.call(
            router.request(
                "proxy_error",
                connection="1.7",
                type="connect_refused",
                message="connect to 127.0.0.1:9: Connection refused",
                errno=111,
                attempts=[{"remote": "127.0.0.1:9", "type": "connect_refused", "message": "refused"}],
                client=["127.0.0.1", 40000],
                remote="127.0.0.1:9",
                listener="127.0.0.1:5000",
                replay=0,
                deadline_ms=5000,
            )
        )
        self.assertEqual(answer["result"], {"close": "('127.0.0.1', 40000) 127.0.0.1:9 1.7 connect_refused 111 1"})

    def test_proxy_error_may_return_nothing_bytes_or_raise(self) -> None:
        router = self.program(
            """
            import tproxy

            def proxy_error(client, error):
                return {"dns": None, "tls": b"\\xff", "reset": "text"}[error.type]

            tproxy.run(lambda data: None, proxy_error=proxy_error)
            """
        )
        for kind, result in {"dns": None, "tls": {"close": "\xff"}, "reset": {"close": "text"}}.items():
            self.assertEqual(router.call(router.request("proxy_error", type=kind))["result"], result)
        error = router.call(router.request("proxy_error", type="loop"))["error"]
        self.assertEqual(error, {"code": -32000, "message": "KeyError: 'loop'"})


class Prints(RouterTest):
    def test_stray_output_and_input_do_not_touch_the_protocol(self) -> None:
        router = self.program(
            """
            import os, subprocess, sys
            import tproxy

            def proxy(data):
                print("printed")
                os.write(1, b"written\\n")
                subprocess.run(["echo", "echoed"])
                assert sys.stdin.read() == ""
                return {"close": True}

            tproxy.run(proxy)
            """,
            env={"PYTHONUNBUFFERED": ""},
        )
        self.assertEqual(router.ask(b"x"), {"close": True})
        self.assertEqual(router.stderr().split(), ["printed", "written", "echoed"])
        self.assertEqual(router.end(), 0)
        self.assertEqual(router.receive_line(), b"")

    def test_children_do_not_inherit_the_socket(self) -> None:
        router = self.program(
            """
            import os, subprocess
            import tproxy

            def proxy(data):
                out = subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, close_fds=False).stdout
                return {"close": str(out.count(b"socket:"))}

            tproxy.run(proxy)
            """
        )
        self.assertEqual(router.ask(b"x"), {"close": "0"})

    def test_a_forked_child_does_not_keep_the_socket(self) -> None:
        router = self.program(
            """
            import os, signal
            import tproxy

            def proxy(data):
                child = os.fork()
                if not child:
                    print("forked")
                    signal.pause()
                return {"state": child}

            tproxy.run(proxy)
            """
        )
        child = router.ask(b"x")["state"]
        self.addCleanup(os.kill, child, signal.SIGKILL)
        self.assertEqual(router.end(), 0)
        self.assertEqual(router.receive_line(), b"")


class Pipelining(RouterTest):
    def test_100_000_questions_in_a_stream_are_answered_in_order(self) -> None:
        router = self.program(
            """
            import tproxy
            tproxy.run(lambda data: {"remote": ("127.0.0.1", int(data))})
            """
        )
        count = 100_000
        wrong: list[object] = []

        def read() -> None:
            for n in range(count):
                answer = router.receive()
                if answer["id"] != n or answer["result"]["remote"] != ["127.0.0.1", n % 5000]:
                    wrong.append(answer)

        reader = threading.Thread(target=read)
        reader.start()
        line = '{"jsonrpc":"2.0","id":%d,"method":"proxy","params":{"connection":"1.%d","event":"data","data":"%d"}}\n'
        for start in range(0, count, 1000):
            router.send_raw("".join(line % (n, n, n % 5000) for n in range(start, start + 1000)).encode())
        reader.join()
        self.assertEqual(wrong, [])
        self.assertEqual(router.end(), 0)

    def test_a_line_may_be_split_at_every_byte(self) -> None:
        router = self.program("import tproxy\ntproxy.run(lambda data: {'close': data})\n")
        router.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        questions = [router.question(data) for data in (b"first\x00\xff", b'"\\', bytes(range(256)))]
        raw = "".join(json.dumps(question, ensure_ascii=False) + "\n" for question in questions).encode()
        for n in range(len(raw)):
            router.send_raw(raw[n : n + 1])
        for question in questions:
            self.assertEqual(router.receive()["result"], {"close": question["params"]["data"]})
        for n in range(1, len(raw)):
            router.send_raw(raw[:n])
            router.send_raw(raw[n:])
            for question in questions:
                self.assertEqual(router.receive()["result"], {"close": question["params"]["data"]})

    def test_the_answers_of_one_read_leave_in_one_write(self) -> None:
        router = self.program(ROUTE)
        router.hello()
        # A stopped process finds them all at once when it goes on.
        router.process.send_signal(signal.SIGSTOP)
        router.send(*(router.question(b"x") for _ in range(40)))
        router.process.send_signal(signal.SIGCONT)
        self.assertEqual(router.sock.recv(1 << 18).count(b"\n"), 40)

    def test_a_long_line_is_read_in_pieces(self) -> None:
        router = self.program("import tproxy\ntproxy.run(lambda data: {'close': str(len(data))})\n")
        self.assertEqual(router.ask(bytes(2_000_000)), {"close": "2000000"})

    def test_a_slow_function_does_not_hold_back_the_answers_before_it(self) -> None:
        fifo = self.folder / "fifo"
        router = self.program(
            f"""
            import os, tproxy
            os.mkfifo({str(fifo)!r})

            def proxy(data):
                if data == b"slow":
                    return {{"close": open({str(fifo)!r}).read()}}
                import time
                time.sleep(0.01)
                return {{"close": "quick"}}

            tproxy.run(proxy)
            """
        )
        router.hello()
        quick, slow = router.question(b"quick"), router.question(b"slow")
        router.send(quick, slow)
        self.assertEqual(router.receive(), {"jsonrpc": "2.0", "id": quick["id"], "result": {"close": "quick"}})
        fifo.write_text("done")
        self.assertEqual(router.receive()["result"], {"close": "done"})

    def test_questions_behind_a_slow_one_are_dropped_when_their_client_leaves(self) -> None:
        fifo = self.folder / "fifo"
        router = self.program(
            f"""
            import os, time, tproxy
            os.mkfifo({str(fifo)!r})

            def proxy(data):
                print("asked", data)
                if data == b"slow":
                    open({str(fifo)!r}).read()
                    time.sleep(0.01)  # slow is what takes longer than a batch may
                return {{"close": data}}

            tproxy.run(proxy)
            """
        )
        router.hello()
        slow, left, stays = router.question(b"slow"), router.question(b"left"), router.question(b"stays")
        router.process.send_signal(signal.SIGSTOP)
        router.send(slow, left, stays)
        router.process.send_signal(signal.SIGCONT)
        with open(fifo, "w"):  # opens when the slow one is being decided
            router.cancel(left)
        self.assertEqual(router.receive()["result"], {"close": "slow"})
        self.assertEqual(router.receive(), {**{"jsonrpc": "2.0", "id": left["id"]}, "error": CANCELLED})
        self.assertEqual(router.receive()["result"], {"close": "stays"})
        self.assertEqual(router.ask(b"next"), {"close": "next"})
        self.assertNotIn("left", router.stderr())


CANCELLED = {"code": -32000, "message": "cancelled"}

if __name__ == "__main__":
    unittest.main()
