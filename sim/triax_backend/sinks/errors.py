"""Errors of the sinks.

SinkError (RuntimeError)
├── SinkDown: the server is away, full or refuses; the same write is tried again, nothing is lost
└── Moved: another instance has written these partitions since; read from where it is now
"""

__all__ = ["Moved", "SinkDown", "SinkError"]


class SinkError(RuntimeError):
    """A flush was not written; its offsets stay where they were."""


class SinkDown(SinkError):
    """The server behind the sink does not take the write now; the message says why and what helps."""


class Moved(SinkError):
    """The stored offsets are not where this instance left them."""
