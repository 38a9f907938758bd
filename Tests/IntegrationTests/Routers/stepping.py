"""A router without a library, whose rewriters take the steps that the client's first line tells them.

{"verdict": VERDICT, "request": [STEP, ...], "response": [STEP, ...]}; with "whole": true the line is left to the remote.
A direction without steps is copied. Steps:

echo N         copy N bytes                 echo           copy to the end
read N         read N bytes                 drop           read to the end
write TEXT                                  saw            say on standard error how many bytes were read, and whether they ended
end            write stream_end             detach         write detach
shut           end the writing side         close          close the socket (so does the last step)
deaf           end the reading side
wait PATH      until this file is there     later PATH     the same, before dialling back; then say whether one was let in
hold           do nothing more              die            the process ends
die once PATH  the process ends before it dials back, unless this file is there, which it makes first

STEPPING_METHODS is the list of methods. With STEPPING_AGAIN, a path, only the first router begins at once: those after it wait
until that file is there.
"""

import json
import os
import socket
import threading
import time

tproxy = socket.socket(fileno=os.dup(0))
lock = threading.Lock()
address = None
METHODS = os.environ.get("STEPPING_METHODS", "rewrite_request,rewrite_response").split(",")
COPIED = ["echo", "end", "close"]


def only_once(path):
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def write(message):
    with lock:
        tproxy.sendall((json.dumps({"jsonrpc": "2.0", **message}) + "\n").encode())


def until_there(path):
    while not os.path.exists(path):
        time.sleep(0.01)


class Stream:
    def __init__(self, token, name):
        self.token, self.name = token, name
        self.socket = None
        self.read_count = 0
        self.has_ended = False
        self.buffer = memoryview(bytearray(1 << 18))

    def say(self, text):
        # In one piece: the streams' threads speak at once.
        os.write(2, f"{self.name} {text}\n".encode())

    def receive(self, most):
        count = self.socket.recv_into(self.buffer[:most])
        self.read_count += count
        self.has_ended = count == 0
        return self.buffer[:count]

    def copy(self, count, target):
        while count > 0:
            data = self.receive(min(count, len(self.buffer)))
            if not data:
                return
            count -= len(data)
            target(data)

    def dial(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(address)
        self.socket.sendall(self.token.encode() + b"\n")

    def run(self, steps):
        for step in steps:
            word, _, argument = step.partition(" ")
            if word == "later":
                until_there(argument)
                self.dial()
                self.socket.settimeout(10)
                try:
                    self.say("is let in" if self.socket.recv(1) else "is turned away")
                except ConnectionError:
                    self.say("is turned away")
                return
            if argument.startswith("once "):
                if only_once(argument.removeprefix("once ")):
                    os._exit(4)
                continue
            if word in ("detach", "end") and self.socket is None:
                self.notify(word)
                continue
            if self.socket is None:
                self.dial()
            getattr(self, word)(argument)

    def notify(self, word):
        write({"method": "stream_end" if word == "end" else word, "params": {"token": self.token}})

    def echo(self, count):
        self.copy(int(count or 1 << 62), self.socket.sendall)

    def read(self, count):
        self.copy(int(count), lambda data: None)

    def drop(self, _):
        self.copy(1 << 62, lambda data: None)

    def write(self, text):
        self.socket.sendall(text.encode())

    def saw(self, _):
        self.say(f"saw {self.read_count}{' and the end' if self.has_ended else ''}")

    def end(self, _):
        self.notify("end")

    def detach(self, _):
        self.notify("detach")

    def shut(self, _):
        self.socket.shutdown(socket.SHUT_WR)

    def deaf(self, _):
        self.socket.shutdown(socket.SHUT_RD)

    def close(self, _):
        self.socket.close()

    def wait(self, path):
        until_there(path)

    def hold(self, _):
        threading.Event().wait()

    def die(self, _):
        os._exit(3)


def rewrite(params, name):
    stream = Stream(params["token"], name)
    try:
        stream.run((params.get("extra") or {}).get(name) or COPIED)
    except ConnectionError:
        stream.say("broke off")
    if stream.socket is not None:
        stream.socket.close()


def question(message):
    line, newline, _ = message["params"]["data"].partition("\n")
    result = None
    if newline:
        order = json.loads(line)
        result = {"extra": order, **({} if order.get("whole") else {"consume": len(line) + 1}), **order["verdict"]}
    write({"id": message["id"], "result": result})


if "STEPPING_AGAIN" in os.environ and not only_once(os.environ["STEPPING_AGAIN"] + ".first"):
    until_there(os.environ["STEPPING_AGAIN"])
for line in tproxy.makefile("r", encoding="utf-8", newline="\n"):
    message = json.loads(line)
    method = message["method"]
    if method == "hello":
        address = message["params"]["streams"].removeprefix("unix:").replace("@", "\0", 1)
        write({"id": message["id"], "result": {"protocol": 1, "methods": ["proxy", *METHODS]}})
    elif method == "proxy":
        question(message)
    elif method.startswith("rewrite_"):
        threading.Thread(
            target=rewrite, args=(message["params"], method.removeprefix("rewrite_")), daemon=True).start()
