"""The frames of one round, of all clients at once: joined, checked as one table, acknowledged per client."""

from typing import NamedTuple

import numpy as np

from triax_backend import frame_rows, mqtt_wire
from triax_backend.frame_rows import Array
from triax_backend.ingest.connection import Connection
from triax_backend.produce import Batch, KafkaOut

__all__ = ["STEP", "Acks", "Gather"]

_SIZES = {0x30 | qos << 1 | flag: frame_rows.row_size(qos) for qos in (0, 1) for flag in (0, 1, 8, 9)}
# First byte of a packet -> size of the ordinary frame's PUBLISH that begins so, 0: it is something else.
STEP = [_SIZES.get(first, 0) for first in range(256)]


class Acks(NamedTuple):
    """PUBACKs of several clients: those of `clients[i]` end at byte `ends[i]` of `data`."""

    clients: list[Connection]
    ends: list[int]
    data: bytes


class Gather:
    """Chunks that may be whole PUBLISH packets of ordinary frames, for one QoS."""

    def __init__(self, qos: int, *, strict: bool) -> None:
        self.qos, self.strict = qos, strict
        self.clients: list[Connection] = []
        self.chunks: list[bytes] = []

    def settle(self, out: KafkaOut, batch: Batch) -> tuple[Acks | None, list[tuple[Connection, bytes]]]:
        """Put the frames into `batch`; what to acknowledge, and the clients whose chunk is not what it seemed."""
        clients, chunks = self.clients, self.chunks
        self.clients, self.chunks = [], []
        size = frame_rows.row_size(self.qos)
        counts = np.fromiter(map(len, chunks), np.int64, len(chunks)) // size
        packets = np.frombuffer(b"".join(chunks), np.uint8).reshape(-1, size)
        bad = self._strangers(packets, clients, counts)
        odd: list[tuple[Connection, bytes]] = []
        if bad.any():
            owners = np.repeat(np.arange(len(clients)), counts)
            theirs = set(np.unique(owners[bad]).tolist())
            packets = packets[~np.isin(owners, list(theirs))]
            for i in sorted(theirs):
                clients[i].unacked -= self.qos * int(counts[i])
                odd.append((clients[i], chunks[i]))
            clients = [one for i, one in enumerate(clients) if i not in theirs]
            counts = np.delete(counts, list(theirs))
        if not len(packets):
            return None, odd
        rows = frame_rows.to_rows(packets, self.qos)
        out.rows(batch, rows)
        if not self.qos:
            return None, odd
        return Acks(clients, (np.cumsum(counts) * 4).tolist(), mqtt_wire.pubacks(rows.packet_ids)), odd

    def _strangers(self, packets: Array, clients: list[Connection], counts: Array) -> Array:
        """Rows that are no ordinary frame, have packet id 0, or name another device than the client is."""
        bad = ~frame_rows.uniform(packets, self.qos)
        rows = frame_rows.to_rows(packets, self.qos)
        if self.qos:
            bad |= rows.packet_ids == 0
        if self.strict:
            own = np.frombuffer(b"".join([one.text for one in clients]), np.uint8).reshape(-1, 16)
            bad |= (np.repeat(own, counts, axis=0) != rows.texts).any(axis=1)
        return bad
