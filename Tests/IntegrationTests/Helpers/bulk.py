"""A gibibyte of pseudo-random bytes each way at once (or BULK_MEGABYTES), hashed at both ends.

    bulk.py origin                 serves one connection on a free port, which it prints
    bulk.py client PORT ORDER      sends the order as a line, then the bytes
"""

import hashlib
import os
import random
import socket
import sys
import threading

COUNT = int(os.environ.get("BULK_MEGABYTES", 1024)) << 20
CHUNK = 1 << 20


def send(peer, seed):
    numbers = random.Random(seed)
    sent = hashlib.sha256()
    for index in range(COUNT // CHUNK):
        chunk = numbers.randbytes(CHUNK)
        sent.update(chunk)
        peer.sendall(chunk)
        if index == COUNT // CHUNK // 2:
            print("half", flush=True)
    peer.shutdown(socket.SHUT_WR)
    print("sent", sent.hexdigest(), flush=True)


def receive(peer):
    received = hashlib.sha256()
    count = 0
    while chunk := peer.recv(CHUNK):
        received.update(chunk)
        count += len(chunk)
    print("received", count, received.hexdigest(), flush=True)
    if count != COUNT:
        sys.exit(1)


if sys.argv[1] == "origin":
    listener = socket.create_server(("127.0.0.1", 0))
    print("port", listener.getsockname()[1], flush=True)
    peer = listener.accept()[0]
    seed = 1
else:
    peer = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
    peer.sendall(sys.argv[3].encode() + b"\n")
    seed = 2
peer.settimeout(120)
sender = threading.Thread(target=send, args=(peer, seed))
sender.start()
receive(peer)
sender.join()
