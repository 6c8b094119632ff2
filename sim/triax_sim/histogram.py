"""Microsecond histograms that merge: HDR layout with three digits, recorded a whole array at a time.

Values below 2,048 us have a bucket each; above, every octave has 1,024 buckets, so a bucket is at most 0.1 % wide. The largest
value is kept exactly. Negative values are evidence of a clock error: they are counted apart and never recorded as zero.
"""

import base64
import zlib
from collections.abc import Iterable
from typing import Any, Self

import numpy as np

__all__ = ["Histogram"]

_BITS = 11  # 2,048 unit buckets, then 1,024 an octave
_HALF = 1 << (_BITS - 1)
_TOP = 42  # 2^42 us: 50 days
_SIZE = (_TOP - _BITS) * _HALF + 2 * _HALF

Array = np.ndarray[Any, Any]


def _index(values: Array) -> Array:
    shift = np.maximum(np.frexp(values.astype(np.float64))[1] - _BITS, 0)
    return np.asarray(shift * _HALF + (values >> shift))


def _highest(index: int) -> int:
    """Largest value that falls into a bucket, us."""
    if index < 2 * _HALF:
        return index
    shift = index // _HALF - 1
    return ((index - shift * _HALF + 1) << shift) - 1


class Histogram:
    """Counts of values in microseconds, full range up to 50 days.

    >>> h = Histogram(); h.record(np.array([100, 200, 70_000])); h.percentile(50), h.maximum
    (200, 70000)
    """

    def __init__(self) -> None:
        self.counts: Array = np.zeros(_SIZE, np.int64)
        self.count = 0
        self.total_us = 0
        self.maximum = 0
        self.negative = 0
        self.lowest = 0

    def record(self, values_us: Array) -> None:
        """Add every value of an integer array."""
        if not values_us.size:
            return
        low = int(values_us.min())
        if low < 0:
            self.negative += int((values_us < 0).sum())
            self.lowest = min(self.lowest, low)
            values_us = values_us[values_us >= 0]
            if not values_us.size:
                return
        self.maximum = max(self.maximum, int(values_us.max()))
        self.count += values_us.size
        self.total_us += int(values_us.sum())
        where = _index(np.minimum(values_us, (1 << _TOP) - 1))
        if where.size < 4096:  # bincount walks all buckets, add.at only the values
            np.add.at(self.counts, where, 1)
        else:
            self.counts += np.bincount(where, minlength=_SIZE)

    def merge(self, other: "Histogram") -> None:
        """Add all that `other` holds."""
        self.counts += other.counts
        self.count += other.count
        self.total_us += other.total_us
        self.maximum = max(self.maximum, other.maximum)
        self.negative += other.negative
        self.lowest = min(self.lowest, other.lowest)

    def percentile(self, percent: float) -> int:
        """Smallest value that `percent` of all values do not exceed, us, at most 0.1 % too high; 0 where nothing was recorded."""
        return self.percentiles([percent])[0]

    def percentiles(self, percents: Iterable[float]) -> list[int]:
        """`percentile` of several, at the price of one."""
        if not self.count:
            return [0 for _ in percents]
        reached = np.cumsum(self.counts)
        wanted = [max(1, int(np.ceil(self.count * p / 100))) for p in percents]
        return [min(_highest(int(np.searchsorted(reached, w))), self.maximum) for w in wanted]

    def mean(self) -> float:
        """Exact mean, us; 0 where nothing was recorded."""
        return self.total_us / self.count if self.count else 0.0

    def summary(self) -> dict[str, int]:
        """count, p50, p99, p999, max in us, and `negative` where a clock went wrong."""
        p50, p99, p999 = self.percentiles((50, 99, 99.9))
        out = {"count": self.count, "p50": p50, "p99": p99, "p999": p999, "max": self.maximum}
        if self.negative:
            out |= {"negative": self.negative, "lowest": self.lowest}
        return out

    def to_json(self) -> dict[str, Any]:
        """All of it, for `from_json`: buckets as base64 of zlib of pairs (index, count)."""
        used = np.flatnonzero(self.counts)
        pairs = np.stack([used, self.counts[used]]).astype("<i8").tobytes()
        return {
            "unit": "us",
            "count": self.count,
            "total": self.total_us,
            "max": self.maximum,
            "negative": self.negative,
            "lowest": self.lowest,
            "buckets": base64.b64encode(zlib.compress(pairs)).decode(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """What `to_json` wrote. Raises ValueError if the buckets do not add up to the count."""
        out = cls()
        try:
            pairs = np.frombuffer(zlib.decompress(base64.b64decode(data["buckets"])), "<i8").reshape(2, -1)
            out.counts[pairs[0]] = pairs[1]
            out.count, out.total_us, out.maximum = int(data["count"]), int(data["total"]), int(data["max"])
            out.negative, out.lowest = int(data["negative"]), int(data["lowest"])
        except (KeyError, IndexError, zlib.error) as error:
            raise ValueError(f"no histogram of ours: {error!r}") from None
        if int(out.counts.sum()) != out.count:
            raise ValueError(f"a histogram of {out.count} values has buckets for {int(out.counts.sum())}")
        return out
