"""Answers every HTTP request with a file, which the kernel copies to the client.

    tproxy sendfile.py
    curl http://127.0.0.1:5000/
"""

import os

WELCOME_FILE = os.path.join(os.path.dirname(__file__), "welcome.txt")

HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"


def proxy(data):
    if b"\r\n\r\n" not in data:
        return None
    # The descriptor is tproxy's once it is returned: nothing is left to close here. The file's
    # path, {"file": WELCOME_FILE}, would do as well.
    fd = os.open(WELCOME_FILE, os.O_RDONLY)
    return {"file": fd, "reply": HEAD % os.fstat(fd).st_size}
