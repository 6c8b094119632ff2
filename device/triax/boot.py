"""The start counter: larger after every start, also after a reflash, also after a power cut at any byte.

Frames are identified by (device, boot, sequence), so a boot number that came back would make new frames look like repeats. The
counter stands in two slots of the store, each 12 bytes: "TXB1", counter, CRC-32 of both (little-endian). A start takes the
larger one that is whole, adds one, writes that to the *other* slot, reads it back, then writes the first slot too. So at any
moment one whole slot holds the last number that was used or a larger one; and after the start both do, so that one slot may rot.

Provisioning and flashing seed the counter with Unix seconds. A node starts less than once a second, so a later seed is larger
than any number counted from an earlier one. Without a readable slot (storage erased) the node numbers no frame until it has UTC,
then seeds.
"""

import struct
from binascii import crc32

SLOTS = ("boot0", "boot1")

_MAGIC = b"TXB1"
_LARGEST = 0xFFFFFFFF
# Unix seconds of 2024-01-01: a seed before that comes from a clock that was never set.
EARLIEST_SEED = 1704067200


def slot(counter: int) -> bytes:
    """The bytes of a slot; provisioning writes the same to both."""
    body = _MAGIC + struct.pack("<I", counter)
    return body + struct.pack("<I", crc32(body))


def read(data) -> int:
    """The counter of a slot, -1: it is not whole (or None)."""
    if data is None or len(data) != 12 or bytes(data[:4]) != _MAGIC:
        return -1
    counter, checksum = struct.unpack("<II", bytes(data[4:]))
    return counter if crc32(bytes(data[:8])) == checksum else -1


def start(store) -> int:
    """Count this start: the boot number, safely written. -1: no slot can be read, `seed` once there is UTC.

    `store`: read(name) -> bytes or None, write(name, bytes). Raises OSError if the store cannot be written: number no frame
    then, since the number might be used again.
    """
    counters = [read(store.read(name)) for name in SLOTS]
    last = max(counters)
    if last < 0:
        return -1
    if last == _LARGEST:
        raise OSError("the boot counter is exhausted: provision the node again under another identity")
    other = 1 if counters[0] == last else 0
    _write(store, SLOTS[other], last + 1)
    _write(store, SLOTS[1 - other], last + 1)
    return last + 1


def seed(store, unix_s: int) -> int:
    """Start counting at a time: the boot number. For a store without a readable slot. Raises ValueError before 2024, OSError."""
    if not EARLIEST_SEED <= unix_s <= _LARGEST:
        raise ValueError("%d is no time to seed the boot counter with: set the clock" % unix_s)
    for name in SLOTS:
        _write(store, name, unix_s)
    return unix_s


def _write(store, name: str, counter: int) -> None:
    store.write(name, slot(counter))
    if read(store.read(name)) != counter:
        raise OSError("slot %s does not hold what was written to it" % name)
