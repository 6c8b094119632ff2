"""Two slots of program files, /a and /b, and the way back. Imports nothing of ours: a copy of it stands outside both slots.

    /slots.py  /main.py   never updated: they choose a slot and run it       /a  /b   the program; each with manifest.json
    /data                 settings, certificates, store: no slot's

A manifest lists each file with its SHA-256; who says `switch` names the manifest's own SHA-256, so that one number stands for
every byte of the program. The other slot is then tried: it is confirmed after 20 acknowledged messages, and left again if it
does not start three times in a row, if its program ends with an error, if it measures nothing for a minute, or if it has been
connected for 30 minutes without one acknowledgement. An outage of the network is no fault of the program: only connected minutes
count.
"""

import gc
import json
import sys
from binascii import crc32, hexlify
from hashlib import sha256

NAMES = ("a", "b")
_RECORD = "slots"
_MAGIC = b"TXS1"

STARTS = 3
CONFIRM_ACKS = 20
SILENT_MS = 30 * 60 * 1000
NO_CAPTURE_MS = 60000
_MASK = 0x1FFFFFFF

# MicroPython collects garbage when its heap is full. What a program leaves while it starts would then lie between all that stays,
# and 20 KiB of 140 would be too small for any buffer; collected as often as this, 4 are.
_START_BYTES = 2048


def manifest_hash(text: bytes) -> bytes:
    """What names a manifest."""
    return sha256(text).digest()


class Slots:
    """`store` as of the ports, `root` the folder of both slots. `reason`: why the last trial ended, "" if well."""

    def __init__(self, store, root: str = "") -> None:
        self._store = store
        self._root = root
        self.active = 0
        self.trial = False
        self.tries = 0
        self.reason = ""
        data = store.read(_RECORD)
        if data is not None and len(data) >= 11 and data[:4] == _MAGIC and crc32(data[8:]).to_bytes(4, "little") == data[4:8]:
            self.active = data[8] & 1
            self.trial = data[9] != 0
            self.tries = data[10]
            self.reason = str(data[11:], "utf-8")

    def folder(self) -> str:
        """Of the active slot."""
        return self._root + "/" + NAMES[self.active]

    def start(self) -> str:
        """A start: count it while on trial, go back after too many. Returns the folder to run."""
        if self.trial:
            if self.tries >= STARTS:
                self.rollback("started %d times without a confirmation" % self.tries)
            else:
                self.tries += 1
                self._save()
        return self.folder()

    def switch(self, manifest: bytes) -> None:
        """Try the other slot from the next start on. Raises ValueError if it is not, byte for byte, what the manifest says, and
        while a trial lasts: the other slot is then the way back.
        """
        if self.trial:
            raise ValueError("%s is on trial" % self.folder())
        other = self._root + "/" + NAMES[1 - self.active]
        text = _read(other + "/manifest.json")
        if manifest_hash(text) != manifest:
            raise ValueError("%s holds another program than was asked for" % other)
        for name, digest in json.loads(text)["files"].items():
            if str(hexlify(sha256(_read(other + "/" + name)).digest()), "ascii") != digest:
                raise ValueError("%s/%s is damaged" % (other, name))
        self.active = 1 - self.active
        self.trial = True
        self.tries = 0
        self.reason = ""
        self._save()

    def confirm(self) -> None:
        """The program is good."""
        self.trial = False
        self._save()

    def rollback(self, reason: str) -> None:
        """Back to the slot before."""
        self.active = 1 - self.active
        self.trial = False
        self.reason = reason[:100]
        self._save()

    def _save(self) -> None:
        body = bytes((self.active, self.trial, self.tries)) + self.reason.encode()
        self._store.write(_RECORD, _MAGIC + crc32(body).to_bytes(4, "little") + body)


class Probation:
    """Watches a program on trial. `step` returns True when it has to be left: restart then."""

    def __init__(self, slots: Slots, now_ms: int) -> None:
        self._slots = slots
        self._last_ms = now_ms
        self._connected_ms = 0
        self._dumb_ms = 0

    def step(self, now_ms: int, connected: bool, acked: int, captures: bool) -> bool:
        """`acked`: messages that arrived since the start; `captures`: every sensor is measured."""
        if not self._slots.trial:
            return False
        passed = (now_ms - self._last_ms) & _MASK
        self._last_ms = now_ms
        self._dumb_ms = 0 if captures else self._dumb_ms + passed
        if connected:
            self._connected_ms += passed
        if acked >= CONFIRM_ACKS and captures:
            self._slots.confirm()
        elif self._dumb_ms >= NO_CAPTURE_MS:
            self._slots.rollback("no capture within a minute")
            return True
        elif not acked and self._connected_ms >= SILENT_MS:
            self._slots.rollback("connected for 30 minutes without an acknowledgement")
            return True
        return False


def run(store, root: str, settings: str, port: str, restart) -> None:
    """What /main.py does: choose, run, and come back if the program fails."""
    if hasattr(gc, "threshold"):
        gc.threshold(_START_BYTES)  # until the node has started: see triax.main.loop
    slots = Slots(store, root)
    sys.path.insert(0, slots.start())
    try:
        port_class = __import__("triax.ports." + port, None, None, ("Port",)).Port
        __import__("triax.main", None, None, ("run",)).run(settings, port_class, slots=slots)
    except Exception as error:
        print("triax: %r" % error)
        if slots.trial:
            slots.rollback("ended with %r" % error)
    restart()


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        raise ValueError("%s is missing" % path)
