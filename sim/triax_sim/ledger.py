"""The ledger on disk: LEDGER records as a generator finished with them, one file a process, read back as one array."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from triax_proto.hop import LEDGER

__all__ = ["BadLedger", "Writer", "digest", "read"]

Array = np.ndarray[Any, Any]


class BadLedger(ValueError):
    """A ledger file is not whole."""


class Writer:
    """Appends records to a file. A record is written once, when its fate is known: acked, sent at QoS 0, or given up at the end."""

    def __init__(self, path: str | Path) -> None:
        self.rows = 0
        # Open for as long as the run.
        self._file = Path(path).open("wb", buffering=1 << 20)  # noqa: SIM115

    def add(
        self, device: Array, boot: Array, sequence: Array, checksum: Array, qos: Any, due_us: Any, sent_us: Any, acked_us: Any
    ) -> None:
        """Rows of columns; scalars are repeated."""
        rows = np.empty(len(device), LEDGER)
        rows["device"], rows["boot"], rows["sequence"], rows["checksum"] = device, boot, sequence, checksum
        rows["qos"], rows["due_us"], rows["sent_us"], rows["acked_us"] = qos, due_us, sent_us, acked_us
        self._file.write(rows.data)
        self.rows += len(rows)

    def close(self) -> None:
        """Write what is left."""
        self._file.close()


def read(paths: Iterable[str | Path]) -> Array:
    """Records of several files in one array. Raises BadLedger where a file ends inside a record."""
    parts: list[Array] = []
    for path in paths:
        data = Path(path).read_bytes()
        if len(data) % LEDGER.itemsize:
            raise BadLedger(f"{path} ends inside a record: its generator was killed; run again")
        parts.append(np.frombuffer(data, LEDGER))
    return np.concatenate(parts) if parts else np.empty(0, LEDGER)


def digest(rows: Array) -> dict[str, str]:
    """SHA-256 over what each device emitted (boot, sequence, checksum in order), by device as 16 hex digits."""
    order = np.lexsort((rows["sequence"], rows["boot"], rows["device"]))
    rows = rows[order]
    devices, first = np.unique(rows["device"], return_index=True)
    content = np.stack([rows["boot"], rows["sequence"], rows["checksum"]], axis=1).astype("<u4")
    bounds: Sequence[int] = [*first.tolist(), len(rows)]
    return {
        f"{int(d):016x}": hashlib.sha256(content[a:b].tobytes()).hexdigest()
        for d, a, b in zip(devices, bounds[:-1], bounds[1:], strict=True)
    }
