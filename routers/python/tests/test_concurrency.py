"""``async def proxy`` and ``threads=N``: several questions at once."""

from __future__ import annotations

import signal
import sys
import unittest

from harness import FEW_THREADS, RUNNER, RouterTest

CANCELLED = {"code": -32000, "message": "cancelled"}

ASYNC = """
import asyncio, os
import tproxy

events = {}

def event(name):
    return events.setdefault(name, asyncio.Event())

async def proxy(data):
    word, _, rest = data.partition(b" ")
    if word == b"wait":
        print("waiting", rest.decode())
        try:
            await event(rest).wait()
        except asyncio.CancelledError:
            print("cancelled", rest.decode())
            raise
    elif word == b"set":
        event(rest).set()
    elif word == b"fail":
        await asyncio.sleep(0)
        raise KeyError(rest)
    elif word == b"none":
        return None
    elif word == b"big":
        return {"close": bytes(int(rest))}
    elif word == b"limit":
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)
    return {"close": data}

async def proxy_error(client, error):
    await asyncio.sleep(0)
    return {"close": error.type}

tproxy.run(proxy, proxy_error=proxy_error)
"""

THREADS = """
import signal, threading
import tproxy

together = threading.Barrier(4)
events = {name: threading.Event() for name in (b"a", b"b")}
signal.signal(signal.SIGUSR1, lambda *_: [event.set() for event in events.values()])

def proxy(data):
    word, _, rest = data.partition(b" ")
    if word == b"together":
        together.wait()
    elif word == b"wait":
        print("waiting", rest.decode())
        events[rest].wait()
    elif word == b"set":
        events[rest].set()
    elif word == b"fail":
        raise KeyError(rest)
    elif word == b"exit":
        raise SystemExit(3)
    return {"close": data}

tproxy.run(proxy, threads=4)
"""


class Tasks(RouterTest):
    def test_hello_allows_many_questions(self) -> None:
        hello = self.program(ASYNC).hello()
        self.assertEqual(hello["max_in_flight"], 1024)
        self.assertEqual(hello["methods"], ["proxy", "proxy_error", "cancel", "shutdown"])

    def test_questions_overlap_and_answers_come_in_any_order(self) -> None:
        router = self.program(ASYNC)
        waiting = [router.question(b"wait a") for _ in range(500)]
        last = router.question(b"set a")
        router.send(*waiting, last)
        answers = [router.receive() for _ in range(501)]
        self.assertEqual(answers[0]["id"], last["id"])
        self.assertEqual({answer["id"] for answer in answers}, {q["id"] for q in [*waiting, last]})
        self.assertEqual(router.end(), 0)

    def test_an_exception_hurts_one_connection(self) -> None:
        router = self.program(ASYNC)
        self.assertEqual(router.ask_for_error(b"fail x"), "KeyError: b'x'")
        self.assertEqual(router.ask(b"y"), {"close": "y"})
        self.assertIsNone(router.ask(b"none"))
        self.assertIn("in proxy", router.stderr())

    def test_proxy_error_may_be_async(self) -> None:
        router = self.program(ASYNC)
        answer = router.call(router.request("proxy_error", type="dns", message="no such name"))
        self.assertEqual(answer["result"], {"close": "dns"})

    def test_cancel_ends_the_task_and_is_answered(self) -> None:
        router = self.program(ASYNC)
        left, stays = router.question(b"wait a"), router.question(b"wait a")
        router.send(left, stays)
        self.assertEqual(router.ask(b"x"), {"close": "x"})  # so both have begun
        router.cancel(left)
        self.assertEqual(router.receive(), {"jsonrpc": "2.0", "id": left["id"], "error": CANCELLED})
        self.assertEqual(router.ask(b"x"), {"close": "x"})
        last = router.question(b"set a")
        router.send(last)
        self.assertEqual({router.receive()["id"] for _ in range(2)}, {stays["id"], last["id"]})
        router.cancel(left)  # too late: nothing happens
        self.assertEqual(router.ask(b"x"), {"close": "x"})
        self.assertEqual(router.stderr().count("cancelled a"), 1)

    def test_progress_is_told_ahead_of_the_answer(self) -> None:
        for kind, options in (("async def", ""), ("def", ", threads=2"), ("def", "")):
            with self.subTest(kind + options):
                router = self.program(
                    f"""
                    import tproxy

                    {kind} proxy(data, question):
                        question.progress(float(data))
                        return {{"close": True}}

                    tproxy.run(proxy{options})
                    """
                )
                question = router.question(b"2.5")
                router.send(question)
                params = {"id": question["id"], "seconds": 2.5}
                self.assertEqual(router.receive(), {"jsonrpc": "2.0", "method": "progress", "params": params})
                self.assertEqual(router.receive()["result"], {"close": True})
                for wrong in (b"0", b"-1", b"nan", b"inf", b"86401"):
                    self.assertIn("seconds must be", router.ask_for_error(wrong))

    @unittest.skipIf(sys.version_info < (3, 11), "asyncio.timeout is new in 3.11")
    def test_timeouts_work_in_a_function_that_is_started_at_once(self) -> None:
        self.assertIn("TimeoutError", self.program(ASYNC).ask_for_error(b"limit"))

    def test_what_is_open_when_no_more_questions_come_is_answered(self) -> None:
        router = self.program(ASYNC)
        questions = [router.question(b"wait a"), router.question(b"set a")]
        router.send(*questions, {"jsonrpc": "2.0", "method": "shutdown"})
        self.assertEqual(router.end(), 0)
        self.assertEqual({router.receive()["id"] for _ in range(2)}, {q["id"] for q in questions})
        self.assertEqual(router.receive_line(), b"")

    def test_what_is_open_when_tproxy_is_gone_is_cancelled(self) -> None:
        router = self.program(ASYNC)
        router.send(router.question(b"wait a"))
        self.assertEqual(router.ask(b"x"), {"close": "x"})
        router.sock.close()
        self.assertEqual(router.wait(), 0)
        self.assertEqual(router.stderr().split(), ["waiting", "a", "cancelled", "a"])

    def test_answers_that_the_socket_does_not_take_wait_without_stopping_the_loop(self) -> None:
        router = self.program(ASYNC)
        size = 2_000_000  # NULs: six characters each
        router.send(*(router.question(b"big %d" % size) for _ in range(3)))
        for _ in range(3):
            self.assertEqual(len(router.receive()["result"]["close"]), size)
        self.assertEqual(router.ask(b"x"), {"close": "x"})

    def test_a_script_may_be_async(self) -> None:
        script = self.write("route.py", "import asyncio\nasync def proxy(data, question):\n  return {'close': data}\n")
        router = self.start(sys.executable, RUNNER, script)
        self.assertEqual(router.hello()["max_in_flight"], 1024)
        self.assertEqual(router.ask(b"x"), {"close": "x"})

    def test_forms_of_async_functions_are_recognised(self) -> None:
        forms = {
            "wrapped": "import functools\nasync def f(data): return {'close': data}\n"
            "@functools.wraps(f)\ndef proxy(*args): return f(*args)\n",
            "partial": "import functools\nasync def f(table, data): return {'close': data}\n"
            "proxy = functools.partial(f, {})\n",
            "object": "class P:\n  async def __call__(self, data): return {'close': data}\nproxy = P()\n",
        }
        for name, form in forms.items():
            with self.subTest(name):
                router = self.program(f"import tproxy\n{form}tproxy.run(proxy)\n")
                self.assertEqual(router.hello()["max_in_flight"], 1024)
                self.assertEqual(router.ask(b"x"), {"close": "x"})

    def test_a_plain_function_that_returns_something_to_await_is_told_so(self) -> None:
        router = self.program("import tproxy\nasync def f(d): pass\ntproxy.run(lambda data: f(data))\n")
        self.assertIn("async def", router.ask_for_error(b"x"))


class Threads(RouterTest):
    def test_as_many_as_there_are_threads_run_at_once(self) -> None:
        router = self.program(THREADS)
        questions = [router.question(b"together") for _ in range(8)]
        router.send(*questions)
        self.assertEqual({router.receive()["id"] for _ in questions}, {q["id"] for q in questions})
        self.assertEqual(router.end(), 0)

    def test_an_exception_and_even_an_exit_hurt_one_connection(self) -> None:
        router = self.program(THREADS)
        for _ in range(8):
            self.assertEqual(router.ask_for_error(b"fail x"), "KeyError: b'x'")
            self.assertEqual(router.ask_for_error(b"exit"), "SystemExit: 3")
        self.assertEqual(router.ask(b"y"), {"close": "y"})

    def test_a_question_whose_client_left_while_it_waited_is_not_asked(self) -> None:
        router = self.program(THREADS.replace("threads=4", "threads=2"))
        self.assertEqual(router.hello()["max_in_flight"], 64)
        busy = [router.question(b"wait a"), router.question(b"wait b")]
        left = router.question(b"left")
        router.send(*busy, left)
        router.cancel(left)
        self.assertEqual(router.hello()["protocol"], 1)  # so the cancel has been read
        router.process.send_signal(signal.SIGUSR1)
        answers = {answer["id"]: answer for answer in (router.receive() for _ in range(3))}
        self.assertEqual(answers.pop(left["id"])["error"], CANCELLED)
        self.assertEqual(set(answers), {question["id"] for question in busy})

    def test_the_end_waits_for_what_is_open_and_does_not_wait_when_tproxy_is_gone(self) -> None:
        router = self.program(THREADS)
        questions = [router.question(b"wait a"), router.question(b"set a")]
        router.send(*questions)
        self.assertEqual(router.end(), 0)
        self.assertEqual({router.receive()["id"] for _ in questions}, {q["id"] for q in questions})
        router = self.program(THREADS)
        router.send(router.question(b"wait a"))
        router.hello()
        router.sock.close()
        self.assertEqual(router.wait(), 0)

    def test_fewer_threads_than_wanted_are_better_than_none(self) -> None:
        text = "import tproxy\ntproxy.run(lambda data: {'close': data}, threads=4)\n"
        router = self.program(FEW_THREADS.format(name="router", count=2) + text)
        self.assertEqual(router.ask(b"x"), {"close": "x"})
        self.assertEqual(router.end(), 0)
        self.assertEqual(router.stderr(), "tproxy: 2 threads instead of 4: can't start new thread\n")
        router = self.program(FEW_THREADS.format(name="router", count=0) + text)
        self.assertEqual(router.wait(), 1)
        self.assertIn("RuntimeError: can't start new thread", router.stderr())

    def test_ten_thousand_questions_are_answered_each_once(self) -> None:
        router = self.program(THREADS)
        seen = set()
        for start in range(0, 10_000, 50):
            questions = [router.question(b"%d" % n) for n in range(start, start + 50)]
            router.send(*questions)
            for _ in questions:
                seen.add(int(router.receive()["result"]["close"]))
        self.assertEqual(seen, set(range(10_000)))
        self.assertEqual(router.end(), 0)


if __name__ == "__main__":
    unittest.main()
