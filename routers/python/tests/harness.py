"""Talks to a router process over a real socketpair, as tproxy does."""

from __future__ import annotations

import array
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import textwrap
import unittest
from collections.abc import Iterable
from typing import Any

PACKAGE = pathlib.Path(__file__).resolve().parent.parent
RUNNER = PACKAGE / "tproxy" / "runner.py"
EXAMPLES = PACKAGE / "examples"

#: Far beyond what anything here takes: only a router that hangs meets it.
TIMEOUT = 20

#: Ahead of a program: so many threads of these names can be started, as under a limit of the system's.
FEW_THREADS = """
import threading
start_thread = threading.Thread.start
def start_one_of_few(thread):
    others = [other for other in threading.enumerate() if other.name.startswith("{name}")]
    if thread.name.startswith("{name}") and len(others) >= {count}:
        raise RuntimeError("can't start new thread")
    start_thread(thread)
threading.Thread.start = start_one_of_few
"""


class Link:
    """Our end of a router's socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(TIMEOUT)
        self._rest = bytearray()
        self._lines: list[bytes] = []
        self._id = 0
        #: Descriptors received, in order.
        self.descriptors: list[int] = []

    def close(self) -> None:
        self.sock.close()
        for fd in self.descriptors:
            os.close(fd)
        self.descriptors = []

    def stderr(self) -> str:
        return "(not ours)"

    def send(self, *messages: dict[str, Any]) -> None:
        self.send_raw("".join(json.dumps(message) + "\n" for message in messages).encode())

    def send_raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def question(self, data: bytes, **params: Any) -> dict[str, Any]:
        """A question with the next id, as it goes over the wire."""
        return self.request(
            "proxy",
            **{
                "connection": "1.7",
                "event": "data",
                "data": data.decode("latin-1"),
                "client": ["127.0.0.1", 40000],
                "local": ["127.0.0.1", 5000],
                "listener": "127.0.0.1:5000",
                "replay": 0,
                "deadline_ms": 5000,
                **params,
            },
        )

    def request(self, method: str, **params: Any) -> dict[str, Any]:
        self._id += 1
        return {"jsonrpc": "2.0", "id": self._id, "method": method, "params": params}

    def receive_line(self) -> bytes:
        """One line; empty at the end of the stream."""
        while not self._lines:
            data, control, _, _ = self.sock.recvmsg(1 << 18, socket.CMSG_SPACE(4 * 16))
            for _level, kind, rights in control:
                if kind == socket.SCM_RIGHTS:
                    fds = array.array("i")
                    fds.frombytes(rights)
                    self.descriptors += fds
            if not data:
                return b""
            *self._lines, rest = (bytes(self._rest) + data).split(b"\n")
            self._rest = bytearray(rest)
        return self._lines.pop(0)

    def receive(self) -> Any:
        line = self.receive_line()
        if not line:
            raise AssertionError("the router closed its socket; its stderr:\n" + self.stderr())
        return json.loads(line)

    def call(self, message: dict[str, Any]) -> dict[str, Any]:
        self.send(message)
        answer: dict[str, Any] = self.receive()
        assert answer["jsonrpc"] == "2.0" and answer["id"] == message["id"], answer
        return answer

    def ask(self, data: bytes, **params: Any) -> Any:
        """The verdict on some bytes."""
        answer = self.call(self.question(data, **params))
        assert "result" in answer, answer
        return answer["result"]

    def ask_for_error(self, data: bytes, **params: Any) -> str:
        """The text of the error that is the answer."""
        answer = self.call(self.question(data, **params))
        assert answer["error"]["code"] == -32000 and "result" not in answer, answer
        text: str = answer["error"]["message"]
        return text

    def hello(self) -> Any:
        return self.call(self.request("hello", protocol=1, tproxy="0.1.0", worker="1", generation=1))["result"]

    def cancel(self, question: dict[str, Any]) -> None:
        params = {"id": question["id"], "connection": question["params"]["connection"]}
        self.send({"jsonrpc": "2.0", "method": "cancel", "params": params})

    def notify(self, method: str, **params: Any) -> None:
        self.send({"jsonrpc": "2.0", "method": method, "params": params})


class Router(Link):
    """A running router and our end of its socket."""

    def __init__(
        self, *command: Any, env: dict[str, str] | None = None, cwd: Any = None, keep: Iterable[socket.socket] = ()
    ) -> None:
        ours, theirs = socket.socketpair()
        super().__init__(ours)
        self._stderr = tempfile.TemporaryFile()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TPROXY_")}
        environment.update(PYTHONUNBUFFERED="1", PYTHONPATH=str(PACKAGE), PYTHONDONTWRITEBYTECODE="1")
        environment.update(env or {})
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [str(part) for part in command],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=self._stderr.fileno(),
            env=environment,
            cwd=cwd,
            pass_fds=[sock.fileno() for sock in keep],
        )
        theirs.close()

    def __enter__(self) -> Router:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._stderr.close()

    def end(self) -> int:
        """Say that no more will come; the exit status."""
        self.sock.shutdown(socket.SHUT_WR)
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(TIMEOUT)

    def stderr(self) -> str:
        """What it has written to stderr so far; all of it once it has ended."""
        # Not by seek: the router writes where the shared offset is.
        return os.pread(self._stderr.fileno(), 1 << 24, 0).decode(errors="replace")


class RouterTest(unittest.TestCase):
    """A folder for scripts, and routers that are gone after the test."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def write(self, name: str, text: str) -> pathlib.Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def start(self, *command: Any, **options: Any) -> Router:
        router = Router(*command, **options)
        self.addCleanup(router.__exit__, None, None, None)
        return router

    def classic(self, text: str, *options: str, **keywords: Any) -> Router:
        """A script under the runner."""
        return self.start(sys.executable, RUNNER, *options, self.write("route.py", text), **keywords)

    def program(self, text: str, **keywords: Any) -> Router:
        """A program that calls tproxy.run()."""
        return self.start(sys.executable, self.write("program.py", text), **keywords)
