"""Recordings from files: triax captures, ST's HSDatalog folders, CSV, MATLAB.

run.cap                    a capture of ours (frames or raw frames)
log_folder/                an ST data log; the sensor is named with `sensor`
table.csv                  time and three axes; units in the titles, "x [g]", or as options
table.mat, table.txt       whitespace columns (imu_tk's files), or MATLAB 7.3 (needs h5py)
"""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from triax_tools.calibrate import capfile
from triax_tools.calibrate.errors import BadInput
from triax_tools.calibrate.model import STANDARD_G, Array
from triax_tools.calibrate.recording import Identity, Recording, from_values

__all__ = ["Hints", "read"]

_TIME = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_UNITS = ("counts", "g", "mg", "m/s2")
_HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Hints:
    """What a file may not say of itself; empty or 0: take the file's word."""

    sensor: str = ""  # of an ST data log
    unit: str = ""  # counts, g, mg, m/s2
    scale_g: float = 0.0  # g per count
    rate_hz: float = 0.0
    identity: Identity = field(default_factory=Identity)


def read(path: Path, hints: Hints | None = None) -> Recording:
    """Read any recording that we know. Raises BadInput that says which line or byte is wrong, and what is known instead."""
    hints = hints or Hints()
    if not path.exists():
        raise BadInput(f"{path}: there is no such file")
    if path.is_dir():
        return _hsdatalog(path, hints)
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise BadInput(f"{path}: the file is empty")
    if start.startswith(b'{"format": "triax-capture/'):
        return capfile.load(path)
    if start.startswith((_HDF5, b"MATLAB 7.3")):
        return _hdf5(path, hints)
    return _table(path, hints)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _hsdatalog(folder: Path, hints: Hints) -> Recording:
    # Here, not above: a host that only calibrates needs no simulator.
    from triax_sim.replay import BadRecording, read_hsdatalog

    try:
        log = read_hsdatalog(folder, hints.sensor or "iis3dwb")
    except BadRecording as error:
        raise BadInput(str(error)) from None
    if log.counts.shape[1] != 3:
        raise BadInput(f"{folder}: {log.name} has {log.counts.shape[1]} axes, three are needed")
    return from_values(
        log.counts,
        log.rate_hz,
        Identity(part=log.name.removesuffix("_acc"), range_g=hints.identity.range_g, scale_g=log.scale_g or hints.scale_g),
        block_count=np.asarray(log.stamp_index, float) + 1,
        block_arrival_s=np.asarray(log.stamp_s, float),
        known_rate_hz=log.odr_hz,
        data_sha256=_digest(folder / f"{log.name}.dat"),
        source=str(folder),
    )


def _hdf5(path: Path, hints: Hints) -> Recording:
    try:
        import h5py
    except ImportError:
        raise BadInput(f"{path}: MATLAB 7.3 files need h5py: pip install h5py") from None
    with h5py.File(path) as file:
        tables = [np.asarray(item) for item in file.values() if getattr(item, "ndim", 0) == 2 and 4 in item.shape]
    if len(tables) != 1:
        raise BadInput(f"{path}: {len(tables)} tables of four columns (time, x, y, z); one is wanted")
    table = tables[0] if tables[0].shape[1] == 4 else tables[0].T
    return _columns(path, table, hints.unit or "g", "s", hints)


def _table(path: Path, hints: Hints) -> Recording:
    text = path.read_bytes()
    try:
        lines = text.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise BadInput(f"{path}: is neither a capture, a CSV nor a table of numbers") from None
    titles: list[str] = []
    comma = "," in lines[0]
    first = [cell.strip() for cell in (lines[0].split(",") if comma else lines[0].split())]
    skip = 0
    if not _numeric(first):
        titles, skip = first, 1
    rows = []
    for number, line in enumerate(lines[skip:], start=skip + 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            rows.append([float(cell) for cell in (line.split(",") if comma else line.split())])
        except ValueError:
            raise BadInput(f"{path}:{number}: {line[:60]!r} is no row of numbers") from None
        if len(rows[-1]) != len(rows[0]):
            raise BadInput(f"{path}:{number}: {len(rows[-1])} columns where the rows before have {len(rows[0])}")
    if not rows:
        raise BadInput(f"{path}: holds no samples")
    table = np.array(rows)
    try:
        unit, time_unit = _units(titles)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    return _columns(path, table, hints.unit or unit or "counts", time_unit, hints)


def _numeric(cells: list[str]) -> bool:
    try:
        [float(cell) for cell in cells]
    except ValueError:
        return False
    return True


def _units(titles: list[str]) -> tuple[str, str]:
    """Unit of the axes and of the time, from titles such as 'x-axis [g]', 'time_us'."""
    unit, time_unit = "", "s"
    for place, title in enumerate(titles):
        found = re.search(r"[\[(]\s*([^\s\])]+)\s*[\])]|_(us|ms)$", title.strip())
        if not found:
            continue
        name = (found[1] or found[2]).replace("m/s^2", "m/s2").replace("\N{MICRO SIGN}s", "us")
        if name in _UNITS:
            unit = name
        elif place == 0 and name in _TIME:
            time_unit = name
        elif place == 0:
            raise BadInput(f"the first column's title {title!r} names no unit of time; known are {', '.join(_TIME)}")
    return unit, time_unit


def _columns(path: Path, table: Array, unit: str, time_unit: str, hints: Hints) -> Recording:
    """Time and three axes, and a temperature where there is a fifth column."""
    if table.shape[1] == 3 and hints.rate_hz:
        table = np.c_[np.arange(len(table)) / hints.rate_hz / _TIME[time_unit], table]
    if table.shape[1] not in (4, 5):
        raise BadInput(f"{path}: {table.shape[1]} columns; wanted are time, x, y, z (and temperature), or x, y, z with --rate")
    if unit not in _UNITS:
        raise BadInput(f"{path}: {unit!r} is no unit of acceleration; known are {', '.join(_UNITS)}")
    time = table[:, 0] * _TIME[time_unit]
    if not np.isfinite(table[:, :4]).all():
        row = int(np.flatnonzero(~np.isfinite(table[:, :4]).all(axis=1))[0])
        raise BadInput(f"{path}: row {row + 1} holds a value that is not a number")
    if len(time) < 2 or np.any(np.diff(time) < 0) or time[-1] == time[0]:
        raise BadInput(f"{path}: the time in the first column does not rise")
    rate = hints.rate_hz or (len(time) - 1) / float(time[-1] - time[0])
    to_g = {"counts": hints.scale_g, "g": 1.0, "mg": 1e-3, "m/s2": 1 / STANDARD_G}[unit]
    scale = hints.scale_g
    counts = table[:, 1:4]
    if unit != "counts":
        values_g = counts * to_g
        scale = scale or _smallest_step(values_g)
        counts = values_g / scale
    more: dict[str, Any] = {}
    if table.shape[1] == 5:
        more["temperature_c"] = table[:, 4]
    return from_values(
        counts,
        rate,
        Identity(**{**hints.identity.__dict__, "scale_g": scale}),
        time_s=time - time[0],
        block_count=np.arange(1.0, len(time) + 1),
        block_arrival_s=time,
        data_sha256=_digest(path),
        source=str(path),
        **more,
    )


def _smallest_step(values_g: Array) -> float:
    """The resolution that the values themselves show: the smallest difference between two of one axis."""
    steps = [np.diff(np.unique(axis)) for axis in values_g.T]
    steps = [step[step > 1e-8] for step in steps]
    return float(min((float(step.min()) for step in steps if len(step)), default=1e-6))
