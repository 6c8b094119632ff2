"""Which of the calibrations in the database is in force for which frame: the rule of the view frames_in_force, on arrays."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from triax_proto.calibration import digest

__all__ = ["EXPIRED", "NOT_VALID", "Calibrations", "Pushed", "load"]

Array = np.ndarray[Any, Any]

EXPIRED = 16  # bits of a value's calibration_flags
NOT_VALID = 32
SCALE_TOLERANCE = 0.005  # ranges of a part are factors of two apart; a nominal scale is written with three digits


@dataclass(frozen=True, slots=True)
class Pushed:
    """One change of what is to be applied. `blob` is the calibration as it was pushed; empty: withdrawn."""

    since_us: int
    blob: bytes
    part: str = ""
    sensor_serial: str = ""
    scale_g: float = 0.0
    expires_us: int = 0

    @property
    def hash(self) -> str:
        """SHA-256 of the blob in hex."""
        return digest(self.blob).hex()


@dataclass(frozen=True, slots=True)
class Calibrations:
    """Of one device: what was pushed, oldest first, and the sensors (first boot, part, serial in hex), first boot first."""

    pushed: list[Pushed]
    sensors: list[tuple[int, str, str]]

    @property
    def blobs(self) -> dict[str, bytes]:
        """Calibrations by their hash."""
        return {one.hash: one.blob for one in self.pushed if one.blob}

    def in_force(self, time_us: Array, scale_g: Array, boot: Array) -> tuple[Array, Array]:
        """For frames: the number in `pushed` of what is to be applied (-1: nothing), and its flags EXPIRED, NOT_VALID."""
        which = np.full(len(time_us), -1)
        flags = np.zeros(len(time_us), np.uint8)
        for number, one in enumerate(self.pushed):
            fits = np.abs(scale_g - np.float32(one.scale_g)) <= SCALE_TOLERANCE * scale_g if one.blob else True
            which[(time_us >= one.since_us) & fits] = number
        for number, one in enumerate(self.pushed):
            used = which == number
            if not one.blob:
                which[used] = -1
                continue
            flags[used & (time_us > one.expires_us)] = EXPIRED
            other = used & ~self._belongs(one, boot)
            which[other], flags[other] = -1, NOT_VALID
        return which, flags

    def _belongs(self, one: Pushed, boot: Array) -> Array:
        """Whether the sensor of these boots is the one that was calibrated; one that is not known is taken to be."""
        same = [True] + [
            serial == one.sensor_serial and (part == one.part or not part or not one.part) for _, part, serial in self.sensors
        ]
        return np.array(same)[np.searchsorted([first for first, _, _ in self.sensors], boot, "right")]


def load(connection: psycopg.Connection, device: int) -> Calibrations:
    """What the database has of a device (as SQL's bigint). Raises psycopg.Error."""
    pushed = connection.execute(
        "SELECT (extract(epoch FROM since) * 1000000)::bigint, coalesce(blob, ''), coalesce(part, ''), "
        "coalesce(sensor_serial, ''), coalesce(scale_g, 0), coalesce(extract(epoch FROM expires) * 1000000, 0)::bigint "
        "FROM calibrations WHERE device = %s ORDER BY since",
        (device,),
    )
    sensors = connection.execute("SELECT boot, part, serial FROM sensors WHERE device = %s ORDER BY boot", (device,))
    return Calibrations([Pushed(*row) for row in pushed], sensors.fetchall())
