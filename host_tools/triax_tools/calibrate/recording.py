"""What every command works on: counts on three axes with rate, gaps, temperature, arrivals, and whose they are.

Values are means of raw counts (of `decimation` samples each), so a file of frame sums and a file of raw samples are the same thing
to a fit: the mean of a rest loses nothing by it.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from triax_proto import frame as codec
from triax_proto.errors import FrameError
from triax_proto.v1.frame_pb2 import FRAME_FLAG_TEST_PATTERN

from triax_tools.calibrate.errors import BadInput
from triax_tools.calibrate.model import Array

__all__ = ["Identity", "Mark", "Recording", "from_frames", "from_values"]


_ABSOLUTE_ZERO_MC = -273_150.0  # below: not measured (the frame says -2^31)


@dataclass(frozen=True)
class Identity:
    """Which sensor, in which setting, the counts are of. Empty or 0: not known."""

    device: str = ""  # EUI-64, 16 hex digits
    part: str = ""
    sensor_serial: str = ""  # hex
    firmware: str = ""
    range_g: float = 0.0
    scale_g: float = 0.0  # nominal g per count
    axis_map: str = "+X+Y+Z"  # which axes of the part the frame's x, y, z are


@dataclass(frozen=True)
class Mark:
    """A rest that the guided capture accepted: values [start, stop), for the cell `name`."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Recording:
    """Counts (n, 3) at `rate_hz`, contiguous from each of `starts` to the next."""

    counts: Array
    rate_hz: float
    decimation: int
    identity: Identity
    starts: tuple[int, ...] = (0,)
    raw_sigma: Array | None = None  # (n, 3) counts, of the raw samples around each value; None: take it from the values
    temperature_c: Array = field(default_factory=lambda: np.zeros(0))  # (n,), NaN: not measured
    time_s: Array = field(default_factory=lambda: np.zeros(0))  # (n,) since the first value
    boot: Array = field(default_factory=lambda: np.zeros(0, int))  # (n,) where frames were recorded
    sample: Array = field(default_factory=lambda: np.zeros(0, int))  # (n,) number of the first raw sample of each value
    block_count: Array = field(default_factory=lambda: np.zeros(0))  # raw samples up to the end of each block
    block_arrival_s: Array = field(default_factory=lambda: np.zeros(0))
    sequence: Array = field(default_factory=lambda: np.zeros(0, int))  # frame numbers, where frames were recorded
    lost_samples: int = 0  # as the device itself counted them inside the recording
    known_rate_hz: float = 0.0  # raw rate that the device or the file states; 0: none
    marks: tuple[Mark, ...] = ()
    gravity_m_s2: float = 0.0  # where it was recorded, as the capture was told; 0: not known
    data_sha256: str = ""
    source: str = ""

    @property
    def raw_rate_hz(self) -> float:
        """Samples per second at the sensor."""
        return self.rate_hz * self.decimation

    @property
    def values_g(self) -> Array:
        """Values in nominal g (n, 3)."""
        return np.asarray(self.counts * self.identity.scale_g)

    @property
    def longest_g(self) -> Array:
        """The longest stretch without a gap, in nominal g."""
        low, high = max(itertools.pairwise([*self.starts, len(self.counts)]), key=lambda span: span[1] - span[0])
        return self.values_g[low:high]

    @property
    def name(self) -> str:
        """Last part of where it came from, for reports: a path says more about the machine than about the data."""
        return self.source.rstrip("/").rpartition("/")[2]

    def with_identity(self, **changes: object) -> "Recording":
        """The same values with other facts about the sensor."""
        return replace(self, identity=replace(self.identity, **changes))  # type: ignore[arg-type]


def from_values(counts: Array, rate_hz: float, identity: Identity, **more: object) -> Recording:
    """A recording of evenly spaced raw samples. Raises BadInput for shapes, rates and values that cannot be."""
    counts = np.asarray(counts, float)
    if counts.ndim != 2 or counts.shape[1] != 3:
        raise BadInput(f"{more.get('source', 'the data')}: {counts.shape} is not three axes")
    if len(counts) == 0:
        raise BadInput(f"{more.get('source', 'the data')}: holds no samples")
    if not np.isfinite(counts).all():
        row = int(np.flatnonzero(~np.isfinite(counts).all(axis=1))[0])
        raise BadInput(f"{more.get('source', 'the data')}: sample {row} is not a number")
    if not (np.isfinite(rate_hz) and rate_hz > 0):
        raise BadInput(f"{more.get('source', 'the data')}: a sample rate of {rate_hz} Hz")
    if not identity.scale_g > 0:
        raise BadInput(f"{more.get('source', 'the data')}: how many g a count is, is not known: give --scale")
    fields: dict[str, object] = {
        "temperature_c": np.full(len(counts), np.nan),
        "time_s": np.arange(len(counts)) / rate_hz,
    }
    return Recording(counts, rate_hz, 1, identity, **{**fields, **more})  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Columns:
    """Per-frame columns in the order of the stream, and the values with the frame that each belongs to."""

    header: dict[str, Array]
    values: Array
    owner: Array
    sigma: Array


_HEADER = (
    "boot",
    "sequence",
    "first_sample",
    "samples",
    "rate_hz",
    "decimation",
    "scale_g",
    "lost_samples",
    "temperature_mc",
    "flags",
)


def _columns(frames: Sequence[bytes]) -> _Columns:
    header: dict[str, list[Array]] = {name: [] for name in (*_HEADER, "arrived")}
    values, owners, sigmas = [], [], []
    total = 0
    for indices, array in codec.groups(frames):
        if isinstance(array, FrameError):
            raise BadInput(f"frame {indices[0]} of the recording: {array}")
        width = array["x"].shape[1] if "x" in (array.dtype.names or ()) else 0
        for name in _HEADER:
            header[name].append(array[name].astype(float))
        header["arrived"].append(np.asarray(indices, float))
        if width:
            sums = np.stack([array[axis].astype(float) for axis in "xyz"], axis=-1)
            means = sums / array["decimation"].astype(float)[:, None, None]
            values.append(means.reshape(-1, 3))
            owners.append(np.repeat(np.arange(total, total + len(array)), width))
            n = array["samples"].astype(float)[:, None]
            variance = array["sum_squares"].astype(float) / n - means.mean(axis=1) ** 2
            whole = (n[:, 0] == width * array["decimation"])[:, None]  # else the mean of all samples is not in the frame
            sigmas.append(np.repeat(np.where(whole, np.sqrt(np.maximum(variance, 0)), np.nan), width, axis=0))
        total += len(array)
    if not values:
        raise BadInput("the recording holds no frame with values")
    columns = {name: np.concatenate(parts) for name, parts in header.items()}
    return _Columns(columns, np.concatenate(values), np.concatenate(owners), np.concatenate(sigmas))


@dataclass(frozen=True)
class _Sorted:
    """The stream in the order of boot and sequence, without repeats: header per frame, rows of values, frame of each row."""

    head: dict[str, Array]
    order: Array
    rows: Array
    owner: Array


def _sorted(columns: _Columns) -> _Sorted:
    header = columns.header
    order = np.lexsort((header["sequence"], header["boot"]))
    repeated = np.r_[False, (np.diff(header["boot"][order]) == 0) & (np.diff(header["sequence"][order]) == 0)]
    order = order[~repeated]
    place = np.full(len(header["boot"]), -1)
    place[order] = np.arange(len(order))
    where = place[columns.owner]
    rows = np.argsort(np.where(where >= 0, where, len(order)), kind="stable")[: int(np.sum(where >= 0))]
    return _Sorted({name: column[order] for name, column in header.items()}, order, rows, where[rows])


def _one_setting(head: dict[str, Array]) -> None:
    """Raise BadInput unless all frames are of one configuration, and of a sensor."""
    if len(np.unique(head["scale_g"])) > 1 or len(np.unique(head["decimation"])) > 1:
        raise BadInput("range or decimation changed inside the recording: capture again with one configuration")
    if (head["flags"].astype(int) & FRAME_FLAG_TEST_PATTERN).any():
        raise BadInput("the node sent its test pattern, not its sensor: switch test_pattern off and capture again")


def from_frames(frames: Sequence[bytes], arrival_s: Array, identity: Identity, **more: object) -> Recording:
    """A recording of wire frames of one device as they arrived, sorted and freed of repeats. Raises BadInput for a damaged one."""
    columns = _columns(frames)
    stream = _sorted(columns)
    head, owner = stream.head, stream.owner
    _one_setting(head)
    ends = head["first_sample"] + head["samples"]
    broken = np.flatnonzero((head["first_sample"][1:] != ends[:-1]) | (np.diff(head["boot"]) != 0)) + 1
    starts = np.unique(np.r_[0, np.searchsorted(owner, broken)])
    decimation = int(head["decimation"][0])
    raw_rate = float(np.median(head["rate_hz"]))
    sample = head["first_sample"][owner] + (np.arange(len(owner)) - np.searchsorted(owner, owner)) * decimation
    celsius = np.where(head["temperature_mc"] < _ABSOLUTE_ZERO_MC, np.nan, head["temperature_mc"] / 1000)
    if not identity.scale_g:  # float32 on the wire: the decimal that was meant
        identity = replace(identity, scale_g=float(str(np.float32(head["scale_g"][0]))))
    last = head["boot"] == head["boot"][-1]
    return Recording(
        counts=columns.values[stream.rows],
        rate_hz=raw_rate / decimation,
        decimation=decimation,
        identity=identity,
        starts=tuple(int(s) for s in starts if s < len(owner)),
        raw_sigma=columns.sigma[stream.rows],
        temperature_c=celsius[owner],
        time_s=(sample - sample[0]) / raw_rate,
        boot=head["boot"][owner].astype(int),
        sample=sample.astype(int),
        block_count=ends[last],
        block_arrival_s=np.asarray(arrival_s, float)[stream.order][last],
        sequence=head["sequence"][last].astype(int),
        known_rate_hz=raw_rate,
        lost_samples=int(max(0.0, head["lost_samples"][-1] - head["lost_samples"][0])) if last.all() else 0,
        **more,  # type: ignore[arg-type]
    )
