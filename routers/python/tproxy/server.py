"""The import name of the classic tproxy for its timeout."""

from .client import RemoteError


class InactivityTimeout(RemoteError):
    """The remote sent nothing for longer than the verdict's ``inactivity_timeout``."""
