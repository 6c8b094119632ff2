"""Recordings of real sensors: readers, and sources that put them through a virtual part so that the node's own driver reads them.

    recording = read(folder, "iis3dwb")
    twin = load("iis3dwb")(world, Replay(recording), ppm=recording.ppm(26_667.0))

ST's data log (FP-SNS-DATALOG2): `device_config.json` describes each sensor; `<sensor>.dat` is packets that begin with a running
byte count, their payload blocks of int16 samples with the time of the block's last sample behind them.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from triax_sim.motion import Array, Motion

__all__ = ["SAME_SCALE", "BadRecording", "Recording", "Replay", "read", "read_csv", "read_hsdatalog"]

COUNTER = 4  # bytes before each packet's payload
STAMP = 8  # bytes of time behind each block
SD_CARD = 0  # acquisition_info.interface: packet sizes differ between card and USB
# ADcmXL3021: 2^15 codes are 62.5 g, 1.907 mg a code. Its CSV holds g with six digits, from which the codes come back exactly.
ADCMXL_SCALE_G = 62.5 / 32768
SAME_SCALE = 0.01  # more than rounding in data sheets and less than the step between ranges


class BadRecording(ValueError):
    """A recording that cannot be read: whose fault it is and where is in the message."""


@dataclass(frozen=True)
class Recording:
    """Raw counts (samples, axes) of a sensor with g = counts x scale_g.

    Times in seconds since the recording's start: `first_s` of the first sample, and `stamp_s[k]` of sample `stamp_index[k]`.
    rate_hz: least squares of these, the rate that was; odr_hz: what the device said. `trailing_bytes`: of a last block that was
    cut off, not in the counts.
    """

    name: str
    counts: npt.NDArray[np.int16]
    scale_g: float
    odr_hz: float
    first_s: float
    stamp_index: npt.NDArray[np.int64]
    stamp_s: Array
    trailing_bytes: int = 0

    @property
    def rate_hz(self) -> float:
        """Samples per second by least squares over the time stamps; the device's own figure if there are fewer than three."""
        if len(self.stamp_s) < 3:
            return self.odr_hz
        index = self.stamp_index - self.stamp_index.mean()
        return float(index @ index / (index @ (self.stamp_s - self.stamp_s.mean())))

    def ppm(self, nominal_hz: float) -> float:
        """Deviation of the rate from a nominal one: the oscillator error of the part that replays it."""
        return (self.rate_hz / nominal_hz - 1) * 1e6

    def g(self) -> Array:
        """The whole recording in g."""
        return self.counts.astype(np.float64) * self.scale_g

    def motion(self) -> Motion:
        """The recording as motion of any sensor, between samples by straight lines; before and after it stands still."""
        times = np.arange(len(self.counts)) / self.rate_hz
        values = np.zeros((len(self.counts), 3))
        values[:, : self.counts.shape[1]] = self.g()

        def motion(t: Array) -> Array:
            return np.stack([np.interp(t, times, values[:, axis]) for axis in range(3)], axis=1)

        return motion

    def played(self, from_s: float) -> Motion:
        """The recording as something that happens once, from `from_s` on; nothing before and after. To be added to other motion."""
        recorded, end_s = self.motion(), from_s + (len(self.counts) - 1) / self.rate_hz

        def motion(t: Array) -> Array:
            return np.where(((t >= from_s) & (t <= end_s))[:, None], recorded(t - from_s), 0.0)

        return motion


class Replay:
    """Sample source: the recording's counts as they are, sample by sample, through a part of the same scale.

    Sample 0 is the recording's first. After the last of `samples` a part makes no more (`repeat=True`: it begins again). `begin`
    raises BadRecording if the part is configured to another scale than the recording's: counts would mean something else.
    """

    def __init__(self, recording: Recording, repeat: bool = False) -> None:
        self.recording = recording
        self.repeat = repeat
        self.samples = None if repeat else len(recording.counts)
        rows = np.zeros((len(recording.counts), 3), dtype=np.int32)
        rows[:, : recording.counts.shape[1]] = recording.counts
        self._rows = rows

    def begin(self, first: int, start_us: float, rate_hz: float, lsb_per_g: float, low: int, high: int) -> None:
        """The part tells its scale."""
        if abs(lsb_per_g * self.recording.scale_g - 1) > SAME_SCALE:
            name, scale = self.recording.name, self.recording.scale_g
            raise BadRecording(f"{name} was recorded at {1e3 * scale:.3f} mg a count; configure the range with that scale")

    def __call__(self, first: int, count: int) -> npt.NDArray[np.int32]:
        index = np.arange(first, first + count)
        total = len(self._rows)
        return self._rows[index % total if self.repeat else np.minimum(index, total - 1)]


def read(path: Path | str, sensor: str) -> Recording:
    """A CSV of VibrationDAQ, or the folder of an ST data log. Raises BadRecording."""
    return read_csv(path) if Path(path).suffix == ".csv" else read_hsdatalog(path, sensor)


def read_hsdatalog(folder: Path | str, sensor: str) -> Recording:
    """Read one sensor of an ST data log; `sensor` is a component's name or the beginning of exactly one ("iis3dwb").

    Raises BadRecording for a sensor that is not there, a packet counter that jumps, or files that do not fit each other.
    """
    folder = Path(folder)
    config = _json(folder / "device_config.json")
    interface = _json(folder / "acquisition_info.json").get("interface", SD_CARD)
    name, setup = _component(folder, config, sensor)
    if setup.get("data_type") != "int16":
        raise BadRecording(f"{folder}: {name} holds {setup.get('data_type')}, not int16")
    dim, block = int(setup["dim"]), int(setup["samples_per_ts"])
    packet = int(setup["sd_dps"]) if interface == SD_CARD else int(setup["usb_dps"]) + COUNTER
    payload = _payload(folder / f"{name}.dat", packet)
    size = block * dim * 2 + STAMP
    blocks = len(payload) // size
    table = np.frombuffer(payload[: blocks * size], dtype=np.uint8).reshape(blocks, size)
    counts = np.ascontiguousarray(table[:, :-STAMP]).view("<i2").reshape(-1, dim).astype(np.int16)
    stamps = np.ascontiguousarray(table[:, -STAMP:]).view("<f8").reshape(-1).astype(np.float64)
    if not np.isfinite(stamps).all() or (np.diff(stamps) <= 0).any():
        raise BadRecording(f"{folder}: time stamps of {name} do not rise: samples_per_ts or the packet size is wrong")
    # A sensitivity written as float32 comes back as the decimal that was meant (0.000488, not 0.00048799999058).
    scale_g = float(str(np.float32(setup["sensitivity"])))
    index = np.arange(1, blocks + 1, dtype=np.int64) * block - 1
    return Recording(
        name, counts, scale_g, float(setup["measodr"]), float(setup["ioffset"]), index, stamps, len(payload) - blocks * size
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadRecording(f"{path}: no readable description of a data log ({error})") from error


def _component(folder: Path, config: Any, sensor: str) -> tuple[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for device in config.get("devices", []):
        for component in device.get("components", []):
            for name, setup in component.items():
                if isinstance(setup, dict) and "samples_per_ts" in setup and (folder / f"{name}.dat").exists():
                    found[name] = setup
    matches = [name for name in found if name.startswith(sensor)]
    if len(matches) != 1:
        raise BadRecording(f"{folder}: {len(matches)} sensors match {sensor!r}; there are {', '.join(sorted(found)) or 'none'}")
    return matches[0], found[matches[0]]


def _payload(path: Path, packet: int) -> bytes:
    """The packets' payloads joined; each packet's counter says how many payload bytes came before it."""
    data = path.read_bytes()
    pieces = []
    counted = None
    for at in range(0, len(data) - COUNTER + 1, packet):
        counter = int.from_bytes(data[at : at + COUNTER], "little")
        piece = data[at + COUNTER : at + packet]
        if counted is not None and counter != counted & 0xFFFFFFFF:
            raise BadRecording(f"{path}: packet at byte {at} counts {counter}, expected {counted}: data are missing there")
        counted = counter + len(piece)
        pieces.append(piece)
    return b"".join(pieces)


def read_csv(path: Path | str, scale_g: float = ADCMXL_SCALE_G) -> Recording:
    """Read time and three axes in g from a CSV with one line of titles (VibrationDAQ's MTC files), back to counts of `scale_g`.

    Raises BadRecording for lines that are no four numbers and for values that are no whole counts of that scale.
    """
    path = Path(path)
    rows = []
    with path.open(newline="") as file:
        for number, line in enumerate(csv.reader(file), start=1):
            if number == 1:
                continue
            try:
                rows.append([float(value) for value in line])
            except ValueError as error:
                raise BadRecording(f"{path}:{number}: {error}") from error
            if len(rows[-1]) != 4:
                raise BadRecording(f"{path}:{number}: {len(line)} columns, expected time and three axes")
    if len(rows) < 2:
        raise BadRecording(f"{path}: no samples")
    table = np.array(rows)
    counts = table[:, 1:] / scale_g
    whole = np.rint(counts)
    if np.abs(counts - whole).max() > 0.1:
        raise BadRecording(f"{path}: values are no multiples of {1e3 * scale_g:.4f} mg: give the sensor's own scale_g")
    rate = (len(table) - 1) / (table[-1, 0] - table[0, 0])
    return Recording(
        path.stem, whole.astype(np.int16), scale_g, rate, float(table[0, 0]), np.arange(len(table), dtype=np.int64), table[:, 0]
    )
