"""Errors of the node, by who is at fault.

OSError: the bus, the disk or the network, as MicroPython and Linux raise it (never wrapped: its number is the diagnosis)
TriaxError
├── BadSetting: the caller asked for what the part or the frame does not have
├── PeerError: bytes from the network are wrong
│   ├── ProtocolError: not MQTT 3.1.1, or not what was asked of the broker
│   ├── WireError: no protobuf message of ours, or too large a one
│   └── TimeReplyError: an SNTP reply that must not be believed
├── LinkError: no connection to be had, and what to check
└── PartError: the part answers, but not as its data sheet says
    ├── WrongPart: the identity registers belong to another part, or nothing drives the bus
    └── NotTaken: a reset or a register write had no effect
"""


class TriaxError(Exception):
    """Anything that this package raises by itself."""


class BadSetting(TriaxError):
    """A setting is outside of what is possible; the message names it and what is possible."""


class PartError(TriaxError):
    """The part does not behave as its data sheet says; the message names register, value read and value wanted."""


class WrongPart(PartError):
    """Identity registers differ. All ones or all zeros: check wiring, supply and chip select first."""


class NotTaken(PartError):
    """A reset did not finish or a register did not keep what was written."""


class PeerError(TriaxError):
    """Bytes from the network are wrong; the message tells what and at which byte."""


class ProtocolError(PeerError):
    """The broker broke MQTT 3.1.1."""


class WireError(PeerError):
    """The bytes are no message of ours."""


class TimeReplyError(PeerError):
    """A reply that tells no time."""


class LinkError(TriaxError):
    """The network gave no connection; the message names the address, the cause and what to check."""
