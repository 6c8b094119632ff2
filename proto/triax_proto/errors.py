"""Errors of the wire format.

FrameError (ValueError): the peer's bytes are wrong
├── Truncated: they end before the message does
└── Malformed: they are no frame of ours
CalibrationError (ValueError): a calibration's bytes are cut off, changed, or none
└── UnknownVersion: of a later program
"""

__all__ = ["CalibrationError", "FrameError", "Malformed", "Truncated", "UnknownVersion"]


class FrameError(ValueError):
    """Bytes from a peer are not what the contract says; the message tells what and at which byte."""


class Truncated(FrameError):
    """The bytes end inside a message."""


class Malformed(FrameError):
    """The bytes are no message of ours."""


class CalibrationError(ValueError):
    """A calibration's container is damaged; the message says how."""


class UnknownVersion(CalibrationError):
    """The container is of a later version: a newer program is needed, nothing is damaged."""
