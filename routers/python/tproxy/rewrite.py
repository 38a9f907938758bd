"""The import name of the classic tproxy for rewriting, which this version cannot do yet."""

import io
from typing import Any


class RewriteIO(io.RawIOBase):
    """The stream that ``rewrite_request`` and ``rewrite_response`` get, once there is rewriting."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        raise NotImplementedError("rewriting requests and responses is not available in this version of tproxy")
