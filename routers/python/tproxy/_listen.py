"""Routers that tproxy does not start: they listen, and every worker of tproxy connects.

Each connection is one conversation, as if it were a process of its own, but all share what the
script knows.
"""

from __future__ import annotations

import os
import socket
import stat
import time
import weakref

from ._wire import Wire, log

#: The first descriptor that systemd hands over.
FIRST_INHERITED = 3

BACKLOG = 128

#: Who may connect, unless the address says otherwise: our own user.
MODE = 0o600

#: A pause when nobody can be accepted, for want of descriptors say.
PAUSE_SECONDS = 0.1

_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()


class Unusable(Exception):
    """The router cannot be served; the text says why."""


def listener_for(address: str | os.PathLike[str] | None) -> socket.socket | None:
    """The socket to listen on: at the path, or one that systemd handed over. None without either."""
    listener = inherited() if address is None else bound(os.fspath(address))
    if listener is not None:
        # A child that outlives us must not keep tproxy waiting for an answer.
        os.register_at_fork(after_in_child=close_all)
        _sockets.add(listener)
    return listener


def close_all() -> None:
    for sock in list(_sockets):
        sock.close()


def inherited() -> socket.socket | None:
    """The socket of a systemd ``.socket`` unit (``LISTEN_FDS``)."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    count = os.environ.get("LISTEN_FDS", "0")
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)  # they are for us, not for our children
    if count == "0":
        return None
    if count != "1":
        raise Unusable(f"systemd gave {count} sockets; a router listens on one")
    try:
        os.set_inheritable(FIRST_INHERITED, False)
        listener = socket.socket(fileno=FIRST_INHERITED)
        is_listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise Unusable(f"the socket of systemd cannot be used: {error}") from None
    if listener.family != socket.AF_UNIX or listener.type != socket.SOCK_STREAM or not is_listening:
        raise Unusable("the socket of systemd is no listening Unix stream socket (ListenStream=/path, Accept=no)")
    return listener


def bound(address: str) -> socket.socket:
    """A new socket at ``/path``, ``unix:/path`` or ``unix:/path?mode=0660``."""
    path, question, option = address.removeprefix("unix:").partition("?")
    mode = MODE
    if question:
        name, _, value = option.partition("=")
        try:
            mode = int(value, 8)
        except ValueError:
            mode = -1
        if name != "mode" or not 0 <= mode <= 0o777:
            raise Unusable(f"listen: {address!r} is not of the form unix:/path?mode=0660")
    listener = socket.socket(socket.AF_UNIX)
    # Nobody may connect between bind and chmod.
    umask = os.umask(0o177)
    try:
        try:
            listener.bind(path)
        except OSError:
            if not is_left_behind(path):
                raise
            os.unlink(path)
            listener.bind(path)
        os.chmod(path, mode)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise Unusable(f"cannot listen on {path}: {error.strerror or error}") from None
    finally:
        os.umask(umask)
    return listener


def is_left_behind(path: str) -> bool:
    """Whether a socket is there that nobody listens on any more."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(path)
    except ConnectionRefusedError:
        return True
    except OSError:
        pass
    return False


def accept(listener: socket.socket) -> Wire | None:
    """The next tproxy; None if it has left, or if there is no room for it."""
    try:
        sock, _ = listener.accept()
    except BlockingIOError:
        return None
    except OSError as error:
        log(f"cannot accept tproxy: {error}")
        time.sleep(PAUSE_SECONDS)
        return None
    sock.setblocking(True)
    _sockets.add(sock)
    return Wire(sock)
