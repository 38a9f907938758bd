"""The import name of the classic tproxy for its timeout."""

from .client import InactivityTimeout

__all__ = ["InactivityTimeout"]
