"""Write the routing logic of the tproxy TCP proxy in Python.

A router is one function::

    import tproxy

    def proxy(data):
        return {"remote": "127.0.0.1:8000"}

    tproxy.run(proxy)

started by ``tproxy --router 'python3 route.py'``. ``proxy`` gets the bytes that a client has
sent so far and returns a verdict: None (not yet), a remote to connect to, bytes to close with,
or a file to send.
"""

from ._notices import close, invalidate
from ._question import TLS, ClientCertificate, ClientHello, Closed, Event, Question
from ._run import run
from ._verdict import ByteString, Cache, CacheKey, Remote, SSLArgs, Verdict

__version__ = "0.1.0"

__all__ = [
    "ByteString",
    "Cache",
    "CacheKey",
    "ClientCertificate",
    "ClientHello",
    "Closed",
    "Event",
    "Question",
    "Remote",
    "SSLArgs",
    "TLS",
    "Verdict",
    "__version__",
    "close",
    "invalidate",
    "run",
]
