"""Motions with a name, for scenarios and commands: what the sensor is mounted on."""

from collections.abc import Callable

from triax_sim.machine import Bearing, Defect, Machine
from triax_sim.motion import Motion, drop, handling, impacts, mix, sine, still

__all__ = ["NAMES", "scene", "speed_hz"]

# Mounted askew, as sensors are: gravity is on all axes.
GRAVITY = (0.17, -0.09, 0.98)


def speed_hz(seed: int) -> float:
    """Of that machine's shaft: no two of a hall turn alike."""
    return 24.5 + seed % 16 / 15


def _machine(seed: int, *defects: Defect, unbalance_g: float = 0.3) -> Motion:
    machine = Machine(speed_hz=speed_hz(seed), unbalance_g=unbalance_g, bearing=Bearing(), defects=defects, seed=seed)
    return mix(still(GRAVITY), machine)


SCENES: dict[str, Callable[[int], Motion]] = {
    "still": lambda seed: still(GRAVITY),
    "sine": lambda seed: mix(still(GRAVITY), sine(0.5, 159.2)),
    "rotor": lambda seed: _machine(seed),
    "smooth": lambda seed: _machine(seed, unbalance_g=0.05),  # 2.3 mm/s RMS: in good order (ISO 20816)
    "outer": lambda seed: _machine(seed, Defect("outer", 2.0)),
    "inner": lambda seed: _machine(seed, Defect("inner", 2.0)),
    "ball": lambda seed: _machine(seed, Defect("ball", 1.5)),
    "cage": lambda seed: _machine(seed, Defect("cage", 1.0)),
    "impacts": lambda seed: mix(still(GRAVITY), impacts(2.0, 8.0, seed)),
    "drop": lambda seed: drop(2.0 + seed % 7, 0.8),
    "handling": lambda seed: handling(seed=seed),
}
NAMES = tuple(SCENES)


def scene(name: str, seed: int = 1) -> Motion:
    """The motion of that name; ValueError lists those there are."""
    if name not in SCENES:
        raise ValueError(f"there is no motion {name!r}; there are {', '.join(NAMES)}")
    return SCENES[name](seed)
