"""How many devices a system holds, and what so many would need: a search for the highest count that passes, and a cost model of it.

`search` runs a scenario at growing and then closing device counts. Each run is a `Point`: rate, CPU of each process, bytes. `fit`
makes of some points a line per process (CPU seconds a second = base + slope x frames/s) with the interval that its residuals
give, and `Model.predict` says what N devices need. A model is worth what it says about a point it has not seen: `Model.error`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, stats
from triax_proto.frame import wire_size

from triax_sim.plan import BadPlan

__all__ = ["Model", "Need", "Point", "fit", "point_of", "search"]

_GROW = 2.0
_PACKET_BYTES = wire_size() + 38  # PUBLISH of a frame at QoS 1
_CONFIDENCE = 0.95
_HEADROOM = 0.8  # share of a core that is planned for; beyond it queues grow


@dataclass(frozen=True)
class Point:
    """One run: `cores` is CPU seconds a second by process after the warm-up, the generator among them."""

    devices: int
    verdict: str
    frames_s: float
    cores: dict[str, float]
    memory_mib: float
    reasons: tuple[str, ...] = ()

    @property
    def path_cores(self) -> float:
        """Of everything but the generator."""
        return sum(used for name, used in self.cores.items() if name != "generator")


def point_of(data: dict[str, Any]) -> Point:
    """The point of a run's report (`Report.data`)."""
    scenario = data["scenario"]
    seconds = float(scenario["duration_s"])
    cores = {process["name"]: process["cores"] for process in data["processes"]}
    generator = data["generator"]
    cores["generator"] = generator["cpu_us_per_frame"] * generator["sent"] / 1e6 / seconds
    devices = sum(cohort["count"] for cohort in scenario["cohorts"])
    return Point(devices, data["verdict"], generator["due"] / seconds, cores, data["memory_bytes"] / 2**20, tuple(data["reasons"]))


def search(
    measure: Callable[[int], Point], first: int, most: int, precision: float = 0.1, retries: int = 1
) -> tuple[int, list[Point]]:
    """Highest number of devices for which `measure` passes, within `precision` of it; 0: not even `first`. All points.

    Doubles until a run does not pass, then halves the interval. INVALID runs are repeated `retries` times, then count as not held:
    a generator that cannot make the load has not shown that the path holds it.
    """
    if first < 1 or most < first:
        raise BadPlan(f"a search from {first} to {most} devices has nothing to try")
    points: list[Point] = []

    def holds(devices: int) -> bool:
        for _ in range(retries + 1):
            points.append(measure(devices))
            if points[-1].verdict != "INVALID":
                break
        return points[-1].verdict == "PASS"

    low, high, devices = 0, 0, first
    while not high:
        if holds(devices):
            low = devices
            if low == most:
                return low, points
            devices = min(int(devices * _GROW), most)
        else:
            high = devices
    while low and high - low > max(1, precision * low):
        devices = (low + high) // 2
        if holds(devices):
            low = devices
        else:
            high = devices
    return low, points


@dataclass(frozen=True)
class Need:
    """What a number of devices needs. `cores`: expected and the ends of the 95 % interval, by process."""

    devices: int
    frames_s: float
    cores: dict[str, tuple[float, float, float]]
    total_cores: tuple[float, float, float]
    cells: int
    network_mb_s: float
    disk_gb_day: float

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class _Line:
    """y = slope x + base, fitted as y/x over 1/x: processor time is measured to a share of itself, not to so many seconds."""

    slope: float
    base: float
    spread: float  # of the residuals of y/x
    count: int
    mean: float
    squares: float

    def at(self, x: float) -> tuple[float, float, float]:
        expected = self.slope * x + self.base
        width = self.spread * np.sqrt(1 + 1 / self.count + (1 / x - self.mean) ** 2 / self.squares)
        half = float(stats.t.ppf(0.5 + _CONFIDENCE / 2, self.count - 2)) * float(width) * x
        return expected, max(0.0, expected - half), expected + half


@dataclass(frozen=True)
class Model:
    """Cost of each process as a line over frames a second."""

    lines: dict[str, _Line]
    total: _Line
    frames_per_device_s: float
    cell_devices: int

    def predict(self, devices: int) -> Need:
        """What `devices` need. A cell is what one system of the measured kind holds; more than one stand side by side."""
        frames_s = devices * self.frames_per_device_s
        cells = max(1, -(-devices // self.cell_devices)) if self.cell_devices else 1
        return Need(
            devices,
            frames_s,
            {name: line.at(frames_s) for name, line in self.lines.items()},
            self.total.at(frames_s),
            cells,
            frames_s * _PACKET_BYTES / 1e6,
            frames_s * wire_size() * 86_400 / 1e9,
        )

    def error(self, point: Point) -> float:
        """Relative error of the path's cores at a point that was measured and not fitted."""
        return abs(self.total.at(point.frames_s)[0] / point.path_cores - 1)

    def machines(self, devices: int, cores: int) -> int:
        """Machines of `cores` cores for the path, each used to 80 %, at the upper end of the interval."""
        return max(1, int(np.ceil(self.total.at(devices * self.frames_per_device_s)[2] / (cores * _HEADROOM))))


def _line(x: Sequence[float], y: Sequence[float]) -> _Line:
    inverse, ratio = 1 / np.array(x), np.array(y) / np.array(x)
    mean = float(inverse.mean())
    squares = float(((inverse - mean) ** 2).sum())
    # Neither is negative: a broker that was still compiling at the first rung does not become cheaper for ever.
    slope, base = map(float, optimize.nnls(np.column_stack([np.ones_like(inverse), inverse]), ratio)[0])
    rest = ratio - slope - base * inverse
    spread = float(np.sqrt((rest**2).sum() / (len(inverse) - 2)))
    return _Line(slope, base, spread, len(inverse), mean, squares)


def fit(points: Sequence[Point], cell_devices: int = 0) -> Model:
    """A model of runs at three rates or more. `cell_devices`: the most that one system held, 0: not known.

    Raises BadPlan if the points do not tell a slope.
    """
    if len({round(point.frames_s) for point in points}) < 3:
        raise BadPlan("a cost model wants runs at three different rates at least; give `--ladder` more steps")
    rates = [point.frames_s for point in points]
    names = sorted({name for point in points for name in point.cores if name != "generator"})
    lines = {name: _line(rates, [point.cores.get(name, 0.0) for point in points]) for name in names}
    per_device = float(np.mean([point.frames_s / point.devices for point in points]))
    return Model(lines, _line(rates, [point.path_cores for point in points]), per_device, cell_devices)
