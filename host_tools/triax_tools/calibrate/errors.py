"""Errors of calibration, and who is at fault.

CalibrateError
├── Refused: the data cannot carry the answer (operator: measure more, the message says what); exit code 1
├── BadInput: a file or argument cannot be used (caller); exit code 2
│   └── BadDocument: a calibration file is damaged, expired or of another sensor
└── DeviceError: the node did not do what was asked (device or broker); exit code 3
    └── NotValid: the node's calibration belongs to another sensor
"""

__all__ = ["BadDocument", "BadInput", "CalibrateError", "DeviceError", "NotValid", "Refused"]


class CalibrateError(Exception):
    """Says what, where, and what to do next; `exit_code` is what the command ends with."""

    exit_code = 2


class Refused(CalibrateError):
    """The data cannot carry the answer. `reasons` are sentences, each with what to do next."""

    exit_code = 1

    def __init__(self, *reasons: str) -> None:
        super().__init__(" ".join(reasons))
        self.reasons = reasons


class BadInput(CalibrateError):
    """A file or an argument cannot be used."""


class BadDocument(BadInput):
    """A calibration file must not be used: damaged, expired, or made for another sensor or range."""


class DeviceError(CalibrateError):
    """The node or the broker did not answer as asked."""

    exit_code = 3


class NotValid(DeviceError):
    """The calibration on the node was made for another part or another sensor than the one it carries now."""
