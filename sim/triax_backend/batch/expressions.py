"""Tables computed from the lake's frames, as Ibis expressions: the same rows on DuckDB and on Spark.

They take the lake's table with its two times as microseconds (`at_us` event time, `received_us`), so that no engine's idea of a
time zone enters. Names of columns end in their unit; g is uncalibrated.

    hourly     per device and hour: mean, rms, extremes of every raw sample, by axis
    trend      per device: straight line through the hourly rms, g per day, by axis
    ranking    devices by how much the rms of their last hour rose over the mean of their hours before
    quality    per device and day: what came, what is missing, what came twice, and what the node said of itself
"""

from typing import Any

import ibis
from ibis import ir

__all__ = ["COLUMNS", "hourly", "once", "quality", "ranking", "trend"]

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
LATE_US = 60_000_000  # received later than this after it was measured: out of a spool

# FrameFlag
_OVERRUN, _BUS_ERROR, _RESYNC, _SATURATED, _CLOCK, _RATE, _PATTERN = 1, 2, 4, 8, 16, 32, 64
_AXES = ("x", "y", "z")
# What the expressions need of a table.
COLUMNS = (
    "device",
    "boot",
    "sequence",
    "checksum",
    "kafka_partition",
    "kafka_offset",
    "place",
    "at_us",
    "received_us",
    "own_clock",
    "samples",
    "decimation",
    "scale_g",
    *_AXES,
    "minimum",
    "maximum",
    "sum_squares",
    "lost_samples",
    "flags",
    "temperature_mc",
)
_NO_TEMPERATURE = -(2**31)


def once(frames: ir.Table) -> ir.Table:
    """Each frame once: of one (device, boot, sequence) the row that is first in Kafka."""
    order = [frames.kafka_partition, frames.kafka_offset, frames.place]
    first = ibis.row_number().over(group_by=[frames.device, frames.boot, frames.sequence], order_by=order)
    return frames.mutate(nth=first).filter(lambda t: t.nth == 0).drop("nth")


def _in_g(frames: ir.Table) -> ir.Table:
    """Per frame and axis: N, mean m of the 10 ms values (g), sum of squares about it (g^2), extremes (g). Test patterns stay out.

    Sums of squares about zero would lose what two engines must agree on in the square of gravity.
    """
    real = frames.filter((frames.flags & _PATTERN) == 0, frames.x.length() > 0)
    scale = real.scale_g.cast("float64")
    weight = real.samples.cast("float64")
    out: dict[str, Any] = {"weight": weight}
    for index, axis in enumerate(_AXES):
        total = real[axis].cast("array<int64>").sums().cast("float64")
        mean = total / (real[axis].length() * real.decimation).cast("float64")
        out[f"frame_mean_{axis}"] = mean * scale
        out[f"within_{axis}"] = (real.sum_squares[index].cast("float64") - weight * mean * mean) * scale * scale
        out[f"low_{axis}"] = real.minimum[index].cast("float64") * scale
        out[f"high_{axis}"] = real.maximum[index].cast("float64") * scale
    return real.mutate(**out)


def hourly(frames: ir.Table) -> ir.Table:
    """Per device and hour of event time: frames, samples, mean, rms about the mean, extremes and peak of every raw sample,
    degrees C.

    With d the mean of a frame less the device's smallest one: variance = (sum of squares within frames + sum(N d^2) -
    sum(N d)^2 / sum(N)) / sum(N).
    """
    each = _in_g(once(frames)).mutate(hour_us=lambda t: t.at_us - t.at_us % HOUR_US)
    each = each.mutate(**{f"base_{axis}": each[f"frame_mean_{axis}"].min().over(group_by=each.device) for axis in _AXES})
    sums: dict[str, Any] = {"frames": each.count(), "samples": each.samples.sum()}
    for axis in _AXES:
        above = each[f"frame_mean_{axis}"] - each[f"base_{axis}"]
        sums[f"base_{axis}"] = each[f"base_{axis}"].min()
        sums[f"first_{axis}"] = (each.weight * above).sum()
        sums[f"second_{axis}"] = (each.weight * above * above).sum() + each[f"within_{axis}"].sum()
        sums[f"minimum_{axis}_g"] = each[f"low_{axis}"].min()
        sums[f"maximum_{axis}_g"] = each[f"high_{axis}"].max()
    measured = each.temperature_mc != _NO_TEMPERATURE
    sums["temperature_c"] = measured.ifelse(each.temperature_mc.cast("float64") / 1000.0, ibis.null("float64")).mean()
    groups = each.group_by(["device", "hour_us"]).aggregate(**sums)
    out: dict[str, Any] = {name: groups[name] for name in ("device", "hour_us", "frames", "samples")}
    for axis in _AXES:
        first = groups[f"first_{axis}"] / groups.samples
        mean = groups[f"base_{axis}"] + first
        variance = groups[f"second_{axis}"] / groups.samples - first * first
        low, high = groups[f"minimum_{axis}_g"], groups[f"maximum_{axis}_g"]
        out[f"mean_{axis}_g"] = mean
        out[f"rms_{axis}_g"] = ibis.greatest(variance, 0.0).sqrt()
        out[f"minimum_{axis}_g"], out[f"maximum_{axis}_g"] = low, high
        out[f"peak_{axis}_g"] = ibis.greatest(high - mean, mean - low)
    return groups.select(**out, temperature_c=groups.temperature_c)


def trend(hours: ir.Table) -> ir.Table:
    """Per device with at least three hours: least-squares slope of the hourly rms, g per day, and the share of its variance
    explained.

    With t in days since the device's first hour: slope = sum((t - mean t) (y - mean y)) / sum((t - mean t)^2); explained = slope^2
    sum((t - mean t)^2) / sum((y - mean y)^2).
    """
    first = hours.hour_us.min().over(group_by=hours.device)
    days = hours.mutate(t=(hours.hour_us - first).cast("float64") / DAY_US)
    per = {"group_by": days.device}
    centred: dict[str, Any] = {"t": days.t - days.t.mean().over(**per)}
    for axis in _AXES:
        centred[f"y_{axis}"] = days[f"rms_{axis}_g"] - days[f"rms_{axis}_g"].mean().over(**per)
    c = days.mutate(**centred)
    sums: dict[str, Any] = {"hours": c.count(), "until_us": c.hour_us.max() + HOUR_US, "tt": (c.t * c.t).sum()}
    for axis in _AXES:
        sums[f"ty_{axis}"] = (c.t * c[f"y_{axis}"]).sum()
        sums[f"yy_{axis}"] = (c[f"y_{axis}"] * c[f"y_{axis}"]).sum()
    groups = c.group_by("device").aggregate(**sums).filter(lambda t: t.hours >= 3)
    out: dict[str, Any] = {name: groups[name] for name in ("device", "until_us", "hours")}
    for axis in _AXES:
        slope = groups[f"ty_{axis}"] / groups.tt
        out[f"rms_{axis}_g_per_day"] = slope
        out[f"explained_{axis}"] = (groups[f"yy_{axis}"] > 0).ifelse(slope * slope * groups.tt / groups[f"yy_{axis}"], 0.0)
    return groups.select(**out)


def ranking(hours: ir.Table) -> ir.Table:
    """Devices by rise: rms of the last hour over the mean of the hours before, largest of the axes; ties by device.

    A device with one hour has no rise (1). `place` counts from 1, the worst first.
    """
    last = hours.hour_us.max().over(group_by=hours.device)
    marked = hours.mutate(is_last=hours.hour_us == last)
    sums: dict[str, Any] = {"until_us": marked.hour_us.max() + HOUR_US, "hours": marked.count()}
    for axis in _AXES:
        rms = marked[f"rms_{axis}_g"]
        sums[f"now_{axis}"] = rms.max(where=marked.is_last)
        sums[f"before_{axis}"] = rms.mean(where=~marked.is_last)
        sums[f"peak_{axis}"] = marked[f"peak_{axis}_g"].max(where=marked.is_last)
    groups = marked.group_by("device").aggregate(**sums)
    rises = {
        axis: (groups[f"before_{axis}"] > 0).ifelse(groups[f"now_{axis}"] / groups[f"before_{axis}"], 1.0).fill_null(1.0)
        for axis in _AXES
    }
    scored = groups.select(
        device=groups.device,
        until_us=groups.until_us,
        hours=groups.hours,
        rise=ibis.greatest(*rises.values()),
        rms_g=ibis.greatest(*(groups[f"now_{axis}"] for axis in _AXES)),
        peak_g=ibis.greatest(*(groups[f"peak_{axis}"] for axis in _AXES)),
    )
    place = ibis.row_number().over(order_by=[ibis.desc(scored.rise), scored.device]) + 1
    return scored.mutate(place=place)


_KINDS = {
    "overrun": _OVERRUN,
    "bus_error": _BUS_ERROR,
    "axis_resync": _RESYNC,
    "saturated": _SATURATED,
    "clock_stepped": _CLOCK,
    "rate_suspect": _RATE,
    "test_pattern": _PATTERN,
}


def _identities(frames: ir.Table) -> ir.Table:
    """One row per device, day, boot and sequence: how often it came and what its best row says."""
    day = frames.mutate(day_us=frames.at_us - frames.at_us % DAY_US)
    waited = day.received_us - day.at_us
    return day.group_by(["device", "day_us", "boot", "sequence"]).aggregate(
        rows=day.count(),
        checksums=day.checksum.nunique(),
        lost=day.lost_samples.max(),
        samples=day.samples.max(),
        late=(day.own_clock & (waited > LATE_US)).cast("int64").min(),
        latency_us=day.own_clock.ifelse(waited, ibis.null("int64")).min(),
        own_clock=day.own_clock.cast("int64").max(),
        **{name: ((day.flags & bit) != 0).cast("int64").max() for name, bit in _KINDS.items()},
    )


def quality(frames: ir.Table) -> ir.Table:
    """Per device and day of event time: what came and what is wrong with it.

    rows: as archived; frames: distinct (boot, sequence); missing: holes between the lowest and highest sequence of a boot within
    the day; repeats: rows of a frame that was there; conflicts: identities with more than one checksum; late: received more than
    a minute after it was measured; latency_s: mean of received - measured, where the node's clock was its own; lost_samples:
    growth within the day; then frames with each flag.
    """
    one = _identities(frames)
    boots = one.group_by(["device", "day_us", "boot"]).aggregate(
        rows=one.rows.sum(),
        frames=one.count(),
        span=one.sequence.max() - one.sequence.min() + 1,
        samples=one.samples.sum(),
        lost_samples=one.lost.max() - one.lost.min(),
        conflicts=(one.checksums > 1).cast("int64").sum(),
        late=one.late.sum(),
        latency_us=one.latency_us.cast("float64").sum(),
        own_clock=one.own_clock.sum(),
        **{name: one[name].sum() for name in _KINDS},
    )
    added = ("rows", "frames", "samples", "lost_samples", "conflicts", "late", "latency_us", "own_clock", *_KINDS)
    days = boots.group_by(["device", "day_us"]).aggregate(
        boots=boots.count(),
        missing=(boots.span - boots.frames).sum(),
        **{name: boots[name].sum() for name in added},
    )
    measured = (days.own_clock > 0).ifelse(days.latency_us / days.own_clock / 1e6, ibis.null("float64"))
    return days.mutate(repeats=days.rows - days.frames, latency_s=measured).drop("latency_us")
