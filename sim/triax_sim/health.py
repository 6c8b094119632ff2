"""The machine during a run: processor time that was stolen, idle, used; and what it is, for the report."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["Cpu", "host_facts"]


class Cpu:
    """Shares of all processors' time between two looks at /proc/stat, in percent."""

    def __init__(self) -> None:
        self._first = self._last = self._read()
        self.worst_steal = 0.0

    @staticmethod
    def _read() -> tuple[int, int, int]:
        """Total, idle, stolen ticks since boot."""
        fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
        return sum(fields[:8]), fields[3] + fields[4], fields[7]

    @staticmethod
    def _shares(before: tuple[int, int, int], after: tuple[int, int, int]) -> dict[str, float]:
        total = max(1, after[0] - before[0])
        idle, steal = (100 * (after[n] - before[n]) / total for n in (1, 2))
        return {"idle": idle, "steal": steal, "busy": 100 - idle - steal}

    def second(self) -> dict[str, float]:
        """Since the last call."""
        now = self._read()
        out = self._shares(self._last, now)
        self._last = now
        self.worst_steal = max(self.worst_steal, out["steal"])
        return out

    def whole(self) -> dict[str, float]:
        """Since this object was made, with the worst second's steal."""
        return self._shares(self._first, self._read()) | {"worst_second_steal": self.worst_steal}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "?"


def host_facts() -> dict[str, Any]:
    """What a reader of a report wants to know about the machine and the software."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
    names = ("triax", "numpy", "confluent-kafka", "psycopg", "pyarrow", "pyiceberg", "redis", "protobuf")
    return {
        "processors": os.cpu_count(),
        "model": model,
        "memory_mib": memory_kb >> 10,
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "versions": {name: _version(name) for name in names},
    }
