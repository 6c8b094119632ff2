"""Errors planted on the way from devices to broker, by a process of its own, so that the checker can be checked.

    python -m triax_sim.tamper '{"to": ["127.0.0.1", 1883], "drop": 20, "swap": 20, "from_s": 2, "for_s": 20}'

The devices behind this relay lose frames (at QoS 1 with a PUBACK forged), send frames twice, swap two that follow each other, and
one bit of a frame flips. Commands on standard input: `begin` (now the seconds count), `seal` (prints the SHA-256 of the list of all
that was done), `reveal` (prints the list), `end`. Who verifies has the hash before the hops are read and the list only afterwards.
"""

import hashlib
import json
import random
import secrets
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from triax_proto.errors import FrameError
from triax_proto.frame import parse

from triax_sim.commands import Commands
from triax_sim.packet import PUBACK, BadReply, cut
from triax_sim.proxy import Pair, Relay

__all__ = ["KINDS", "Tamper", "main", "seal"]

KINDS = ("drop", "repeat", "swap", "flip")
_REST = 3  # frames of a device between two errors, so that each can be told from the next


def seal(entries: list[dict[str, Any]], salt: str) -> str:
    """SHA-256 of a list of planted errors; the salt keeps it from being guessed."""
    text = json.dumps({"salt": salt, "planted": entries}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class _Stream:
    """One device's connection."""

    up: bytes = b""
    down: bytes = b""
    rest: int = 0
    held: bytes = b""  # the frame that will go after the next one
    swallow: list[int] = field(default_factory=list)  # packet ids whose next PUBACK is the repeat's


class Tamper:
    """Plants `counts` errors of each kind at times spread over `[from_s, from_s + for_s)` after `begin`."""

    def __init__(self, upstream: tuple[str, int], counts: dict[str, int], seed: int, from_s: float, for_s: float) -> None:
        self._random = random.Random(seed)
        self._agenda: list[tuple[float, str]] = sorted(
            (from_s + for_s * self._random.random(), kind) for kind in KINDS for _ in range(counts.get(kind, 0))
        )
        self._began = float("inf")
        self._streams: dict[Pair, _Stream] = {}
        self._chosen: dict[Pair, str] = {}
        self.planted: list[dict[str, Any]] = []
        self.salt = secrets.token_hex(16)
        self.relay = Relay(upstream, rewrite=self._rewrite)
        self.relay.closed = self._closed

    def begin(self) -> None:
        """Start the time of the agenda."""
        self._began = time.monotonic()

    @property
    def left(self) -> int:
        """Errors not planted yet."""
        return len(self._agenda)

    def _closed(self, pair: Pair) -> None:
        self._streams.pop(pair, None)

    def _rewrite(self, pair: Pair, direction: int, data: bytes) -> bytes:
        stream = self._streams.setdefault(pair, _Stream())
        if direction:
            return self._answers(stream, data)
        stream.up += data
        out, at = [], 0
        try:
            for first, body, after in cut(stream.up):
                packet = stream.up[at:after]
                at = after
                out.append(self._packet(pair, stream, first, body, packet))
        except BadReply:
            at = len(stream.up)
            out.append(stream.up)
        stream.up = stream.up[at:]
        return b"".join(out)

    def _answers(self, stream: _Stream, data: bytes) -> bytes:
        """The server's packets without the PUBACKs that the device would not expect."""
        stream.down += data
        out, at = [], 0
        for first, body, after in cut(stream.down):
            number = int.from_bytes(body[:2], "big") if first == PUBACK else 0
            if number and number in stream.swallow:
                stream.swallow.remove(number)
            else:
                out.append(stream.down[at:after])
            at = after
        stream.down = stream.down[at:]
        return b"".join(out)

    def _packet(self, pair: Pair, stream: _Stream, first: int, body: bytes, packet: bytes) -> bytes:
        topic = int.from_bytes(body[:2], "big") if first & 0xF0 == 0x30 else 0
        if not topic or not body[2 : 2 + topic].endswith(b"/frame"):
            return packet
        payload = 2 + topic + (2 if first & 6 else 0)
        if stream.held:
            held, stream.held = stream.held, b""
            return packet + held
        if stream.rest:
            stream.rest -= 1
            return packet
        now = time.monotonic() - self._began
        if first & 8 or not self._agenda or self._agenda[0][0] > now:  # one sent again is not ours to touch
            return packet
        try:
            frame = parse(body[payload:])
        except FrameError:
            return packet
        kind = self._agenda.pop(0)[1]
        stream.rest = _REST
        number = int.from_bytes(body[payload - 2 : payload], "big") if first & 6 else 0
        return self._plant(kind, pair, stream, packet, frame, number, len(packet) - len(body) + payload)

    def _plant(self, kind: str, pair: Pair, stream: _Stream, packet: bytes, frame: Any, number: int, payload: int) -> bytes:
        entry: dict[str, Any] = {"kind": kind, "hop": "mqtt", "device": f"{int(frame['device'][0]):016x}"}
        entry |= {name: int(frame[name][0]) for name in ("boot", "sequence", "checksum")}
        self.planted.append(entry)
        if kind == "drop":
            if number:
                self.relay.put(pair, 1, b"\x40\x02" + number.to_bytes(2, "big"))
            return b""
        if kind == "repeat":
            if number:
                stream.swallow.append(number)
            return packet + packet
        if kind == "swap":
            stream.held = packet
            return b""
        bit = self._random.randrange((len(packet) - payload) * 8)
        entry["bit"] = bit
        changed = bytearray(packet)
        changed[payload + bit // 8] ^= 1 << bit % 8
        return bytes(changed)


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def _obey(tamper: Tamper, word: str) -> bool:
    if word == "begin":
        tamper.begin()
        _say({"begun": True})
    elif word == "seal":
        _say({"sealed": seal(tamper.planted, tamper.salt), "left": tamper.left})
    elif word == "reveal":
        _say({"salt": tamper.salt, "planted": tamper.planted})
    return word != "end"


def main(arguments: list[str] | None = None) -> int:
    """Relay until `end` or end of input."""
    words = sys.argv[1:] if arguments is None else arguments
    if len(words) != 1:
        print("usage: python -m triax_sim.tamper OPTIONS (one JSON object)", file=sys.stderr)
        return 2
    options = json.loads(words[0])
    host, port = options["to"]
    counts = {kind: int(options.get(kind, 0)) for kind in KINDS}
    tamper = Tamper((host, int(port)), counts, int(options.get("seed", 1)), float(options["from_s"]), float(options["for_s"]))
    _say({"port": tamper.relay.port})
    commands, going = Commands(), True
    while going and not commands.ended:
        tamper.relay.turn(0.02)
        for line in commands.lines():
            going = going and _obey(tamper, line)
    tamper.relay.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
