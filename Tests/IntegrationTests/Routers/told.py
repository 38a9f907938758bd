"""The router of most tests: the first line that a client sends is a JSON object that says what to answer.

{"answer": VERDICT}            this verdict; with "rest": true it gets `data`: what came behind the line
{"worker": true}               with "answer": its reply is the pid of the worker that asks, and a newline
{"error": "message"}           a JSON-RPC error
{"raw": "LINE"}                this line as it is, {id} in it replaced; then, with "answer", that
{"stderr": n}                  n lines to standard error first
{"report": true}               close with the question as JSON
{"do": "hang"}                 no answer, ever
{"do": "exit"}                 the router ends
{"do": "exit once", "file"}    it ends unless the file exists, which it makes first
{"do": "end"}                  it closes its socket and goes on running
{"do": "close input"}          it closes its standard input, then goes on: the socket has other names
{"on_error": RESULT}           what proxy_error of this connection gets; {"on_error": "report"} reports the question

TOLD_HELLO is the result of hello (JSON), or "bare" for a router that answers it with an error. TOLD_LOG is a file that
gets every line that was read.
"""

import json
import os
import socket
import sys
import time

tproxy = socket.socket(fileno=os.dup(0))
errors = {}
log = open(os.environ["TOLD_LOG"], "a") if "TOLD_LOG" in os.environ else None
HELLO = os.environ.get(
    "TOLD_HELLO",
    '{"protocol": 1, "name": "told", "methods": ["proxy", "proxy_error", "cancel", "shutdown"], "events": []}')


def write(text):
    tproxy.sendall(text.encode() + b"\n")


def answer(id, **what):
    write(json.dumps({"jsonrpc": "2.0", "id": id, **what}))


def proxy(id, question):
    data = question.get("data", "")
    line, newline, rest = data.partition("\n")
    if not newline:
        return answer(id, result=None)
    try:
        order = json.loads(line)
    except ValueError:
        return answer(id, result={"close": "not an order: " + line + "\n"})
    if "on_error" in order:
        errors[question["connection"]] = order["on_error"]
    for number in range(order.get("stderr", 0)):
        print("line", number, "x" * 50, file=sys.stderr)
    if "raw" in order:
        write(order["raw"].replace("{id}", str(id)))
    what = order.get("do")
    if what == "hang":
        return None
    if what == "exit":
        os._exit(1)
    if what == "exit once":
        if not os.path.exists(order["file"]):
            open(order["file"], "w").close()
            os._exit(1)
    if what == "close input":
        os.close(0)
    if what == "end":
        tproxy.shutdown(socket.SHUT_RDWR)
        for number in (0, 1):
            os.close(number)
        tproxy.close()
        while True:
            time.sleep(1000)
    if order.get("report"):
        return answer(id, result={"close": json.dumps(question) + "\n"})
    if "error" in order:
        return answer(id, error={"code": -32000, "message": order["error"]})
    if "answer" in order:
        verdict = order["answer"]
        if order.get("rest"):
            verdict = {**verdict, "data": rest}
        if order.get("worker"):
            # Whoever has started this process.
            verdict = {**verdict, "reply": f"{os.getppid()}\n"}
        return answer(id, result=verdict)
    return None


def proxy_error(id, question):
    result = errors.pop(question["connection"], None)
    if result == "report":
        result = {"close": json.dumps(question) + "\n"}
    answer(id, result=result)


def main():
    for line in tproxy.makefile("r", encoding="utf-8", newline="\n"):
        if log:
            log.write(line)
            log.flush()
        message = json.loads(line)
        method = message.get("method")
        if method == "hello":
            if HELLO == "bare":
                answer(message["id"], error={"code": -32601, "message": "method not found"})
            else:
                answer(message["id"], result=json.loads(HELLO))
        elif method == "proxy":
            proxy(message["id"], message["params"])
        elif method == "proxy_error":
            proxy_error(message["id"], message["params"])


main()
