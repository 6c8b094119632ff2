"""What the stream remembers of each device, as arrays: one row a device, SLOTS open windows each.

State is a function of the frames seen and of nothing else: two engines that saw the same frames of a partition in the same order
hold the same bytes, however these were cut into batches. So a snapshot is named by (partition, offset), and writing it twice is
harmless.
"""

import io
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from triax_backend.stream.columns import CELL

__all__ = ["DEVICE", "DONE", "FRAMES", "RECENT", "SLOT", "SLOTS", "SUMMARY", "BadSnapshot", "State", "TREND"]

FRAMES = 10  # consecutive sequence numbers of a window
# Windows of a device that may be open: one live, one replayed next to it, two with a hole that waits for its frames.
SLOTS = 4
DONE = 6  # ranges of finished windows remembered per device, over all of its boots
RECENT = 15  # windows that the level test looks at: five before, five between, five after
TREND = 12  # blocks of five windows that the drift test looks at: one minute

# Sums over raw samples in g; two of them add up to the summary of both.
SUMMARY = np.dtype(
    [
        ("frames", "<u4"),
        ("samples", "<f8"),
        ("total", "<f8", 3),  # samples * mean
        ("square", "<f8", 3),  # sum of squares about zero
        ("minimum", "<f8", 3),
        ("maximum", "<f8", 3),
        ("glitches", "<u4"),
        ("flags", "<u4"),
        ("lost_samples", "<u4"),
        ("time_us", "<i8"),
        ("time_error_us", "<u4"),
        ("rate_hz", "<f4"),
        ("temperature", "<f8"),  # sum over `temperatures` frames, degrees C
        ("temperatures", "<f8"),
        ("spike_score", "<f8"),
    ]
)

# An open window. Per frame, place = sequence % 10.
SLOT = np.dtype(
    [
        ("boot", "<u4"),
        ("window", "<u4"),
        ("mask", "<u2"),  # bit k: the frame of place k is there; 0: the slot is free
        ("emitted", "<u2"),  # mask at the last emission
        ("touched", "<u4"),  # the device's turn when the last frame came
        ("frames", CELL, FRAMES),  # rubbish where the mask has no bit
    ]
)

DEVICE = np.dtype(
    [
        ("device", "<u8"),
        ("partition", "<i4"),
        # collecting
        ("seen", "?"),
        ("last_boot", "<u4"),  # of the frame before
        ("last_window", "<u4"),
        ("turn", "<u4"),  # how often a frame was of another window than the frame before
        ("done_boot", "<u4", DONE),
        ("done_from", "<u4", DONE),
        ("done_to", "<u4", DONE),  # half open; from == to: none
        # the boot that the detectors follow
        ("boot", "<u4"),
        ("first", "<i8"),  # its first window seen
        ("newest", "<i8"),  # its newest window that went through the detectors; -1: none
        ("warm", "<u4"),  # its windows that did
        # medians and robust deviations (1.4826 MAD) over frames
        ("peak", "<f4", 3),
        ("peak_dev", "<f4", 3),
        ("power", "<f4", 3),  # fast variance, g^2
        ("power_dev", "<f4", 3),
        ("crest", "<f4", 3),  # over windows: median of peak / sqrt(power)
        ("crest_dev", "<f4", 3),
        ("impulsive", "<i8", 3),  # windows in a row above the crest limit; past 5: suspect, and how long since
        # a spike waits one window: what goes on is no spike
        ("spike", "?"),
        ("spike_axis", "<u4"),
        ("spike_window", "<u4"),
        ("spike_value", "<f8"),
        ("spike_score", "<f8"),
        ("spike_first", "<u4"),
        ("spike_last", "<u4"),
        ("spike_time_us", "<i8"),
        ("spike_error_us", "<u4"),
        ("spike_hot", "<i8"),  # last window with a spike; -1: none
        # level and drift, on window means
        ("recent", "<f8", (RECENT, 3)),  # oldest first, filled from the end
        ("recent_window", "<u4", RECENT),
        ("recents", "<u4", 3),
        ("step", "<f8", 3),  # robust deviation of a window's mean, from differences of neighbours
        ("block", "<f8", 3),  # sum of the means of the block under way
        ("block_windows", "<u4"),
        ("block_first", "<u4"),
        ("trend", "<f8", (TREND, 3)),
        ("trend_window", "<u4", TREND),  # first window of the block
        ("trends", "<u4", 3),
        ("drifting", "<i1", 3),
        ("dead", "?", 3),
        ("strange", "?"),  # the model's score was above its threshold
        # rolling rows: the block under way and the one before, of 5 and of 30 windows
        ("five", SUMMARY),
        ("five_before", SUMMARY),
        ("five_block", "<i8"),
        ("thirty", SUMMARY),
        ("thirty_before", SUMMARY),
        ("thirty_block", "<i8"),
    ]
)

_FORMAT = 1  # of a snapshot; another one is refused and the stream replays from further back


class BadSnapshot(ValueError):
    """Bytes that are no snapshot of this version."""


class State:
    """Rows of devices and their open windows; grows by doubling."""

    def __init__(self, capacity: int = 256) -> None:
        self.devices = np.zeros(capacity, DEVICE)
        self.slots = np.zeros((capacity, SLOTS), SLOT)
        self.count = 0
        self._sorted = np.zeros(0, np.uint64)
        self._order = np.zeros(0, np.int64)

    def rows(self, devices: np.ndarray[Any, Any], partitions: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Row of each device, new ones in the order of their first appearance."""
        found = np.searchsorted(self._sorted, devices)
        found[found == len(self._sorted)] = 0
        known = self._sorted[found] == devices if len(self._sorted) else np.zeros(len(devices), bool)
        if not known.all():
            fresh, at = np.unique(devices[~known], return_index=True)
            order = np.argsort(at, kind="stable")
            self._add(fresh[order], partitions[~known][at[order]])
            found = np.searchsorted(self._sorted, devices)
        return np.asarray(self._order[found])

    def _add(self, devices: np.ndarray[Any, Any], partitions: np.ndarray[Any, Any]) -> None:
        need = self.count + len(devices)
        while need > len(self.devices):
            self.devices = np.concatenate([self.devices, np.zeros_like(self.devices)])
            self.slots = np.concatenate([self.slots, np.zeros_like(self.slots)])
        fresh = slice(self.count, need)
        self.devices["device"][fresh] = devices
        self.devices["partition"][fresh] = partitions
        for name in ("newest", "first", "spike_hot", "five_block", "thirty_block"):
            self.devices[name][fresh] = -1
        self.count = need
        self._index()

    def _index(self) -> None:
        devices = self.devices["device"][: self.count]
        self._order = np.argsort(devices, kind="stable")
        self._sorted = devices[self._order]

    def partitions_of(self, devices: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Partition of devices that are known."""
        return np.asarray(self.devices["partition"][self._order[np.searchsorted(self._sorted, devices)]])

    def _keep(self, rows: np.ndarray[Any, Any]) -> None:
        self.devices, self.slots, self.count = self.devices[rows], self.slots[rows], len(rows)
        if not self.count:
            self.devices, self.slots = np.zeros(256, DEVICE), np.zeros((256, SLOTS), SLOT)
        self._index()

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget the devices of these partitions."""
        gone = np.isin(self.devices["partition"][: self.count], np.array(list(partitions), np.int32))
        self._keep(np.flatnonzero(~gone))

    def snapshot(self, partition: int) -> bytes:
        """The devices of one partition as bytes, in the order of their numbers: the same state gives the same bytes."""
        rows = np.flatnonzero(self.devices["partition"][: self.count] == partition)
        rows = rows[np.argsort(self.devices["device"][rows], kind="stable")]
        used = np.argwhere(self.slots["mask"][rows] != 0)
        out = io.BytesIO()
        head = {"format": _FORMAT, "partition": partition, "device_bytes": DEVICE.itemsize, "slot_bytes": SLOT.itemsize}
        for array in (np.frombuffer(json.dumps(head).encode(), np.uint8), self.devices[rows], used):
            np.save(out, array, allow_pickle=False)
        slots = self.slots[rows[used[:, 0]], used[:, 1]]
        there = slots["mask"][:, None] >> np.arange(FRAMES, dtype=np.uint16) & np.uint16(1) != 0
        slots["frames"][~there] = np.zeros((), CELL)  # what an earlier window left there is no state
        np.save(out, slots, allow_pickle=False)
        return out.getvalue()

    def restore(self, data: bytes) -> int:
        """Take the devices of a snapshot in, replacing those of its partition; return the partition. Raises BadSnapshot."""
        source = io.BytesIO(data)
        try:
            head = json.loads(np.load(source, allow_pickle=False).tobytes())
            devices, used, slots = (np.load(source, allow_pickle=False) for _ in range(3))
        except (ValueError, EOFError, OSError) as error:
            raise BadSnapshot(f"{len(data)} bytes are no snapshot: {error}") from None
        if head.get("format") != _FORMAT or devices.dtype != DEVICE or slots.dtype != SLOT:
            raise BadSnapshot(f"a snapshot of format {head.get('format')}, not {_FORMAT}")
        partition = int(head["partition"])
        self.drop([partition])
        if len(devices):
            self._add(devices["device"], devices["partition"])
            rows = self.rows(devices["device"], devices["partition"])
            self.devices[rows] = devices
            self.slots[rows[used[:, 0]], used[:, 1]] = slots
        return partition
