"""Errors of the wire format.

FrameError (ValueError): the peer's bytes are wrong
├── Truncated: they end before the message does
└── Malformed: they are no frame of ours
"""

__all__ = ["FrameError", "Malformed", "Truncated"]


class FrameError(ValueError):
    """Bytes from a peer are not what the contract says; the message tells what and at which byte."""


class Truncated(FrameError):
    """The bytes end inside a message."""


class Malformed(FrameError):
    """The bytes are no message of ours."""
