"""Errors of the stack.

StackError (RuntimeError): the stack cannot start or is not what the caller thinks
├── NotInstalled: a program or package is missing; the message has the command that installs it
├── PortTaken: another process listens on a port that was asked for
├── NoDisk: too little room where the data would go
└── ServerFailed: a server ended or does not answer; the message has the end of its log
"""

__all__ = ["NoDisk", "NotInstalled", "PortTaken", "ServerFailed", "StackError"]


class StackError(RuntimeError):
    """The stack cannot be started, found or stopped."""


class NotInstalled(StackError):
    """A program or package is missing."""


class PortTaken(StackError):
    """A port that was asked for is in use."""


class NoDisk(StackError):
    """The file system of the stack's directory is too full to start."""


class ServerFailed(StackError):
    """A server ended, or did not answer in time."""
