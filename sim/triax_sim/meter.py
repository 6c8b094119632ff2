"""What a generator measures of itself: histograms, counts per second, CPU; one JSON line a second while it runs."""

import resource
from pathlib import Path
from typing import Any

import numpy as np

from triax_sim.histogram import Histogram

__all__ = ["Meter"]

Array = np.ndarray[Any, Any]


def _peak_kb() -> int:
    """Largest resident size so far. Not getrusage's: that begins with the size of the process that started this one."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


class Meter:
    """Lateness (due to socket write) is the generator's own doing; `held` is what waited for a connection, window or socket."""

    def __init__(self) -> None:
        self.lateness, self.held, self.puback, self.round_trip, self.connecting = (Histogram() for _ in range(5))
        self.due = self.sent = self.acked = 0
        self.longest_pause_us = 0
        self.seconds: list[dict[str, Any]] = []
        self.measure_from_us = 0
        self._recent = Histogram()
        self._direct: list[tuple[Array, Array]] = []
        self._spooled: list[tuple[Array, Array]] = []
        self._last = self._totals()

    def wrote(self, due_us: Array, sent_us: Array, direct: bool) -> None:
        """Frames that went out; `direct`: at their turn, else out of the spool."""
        self.sent += len(due_us)
        (self._direct if direct else self._spooled).append((due_us, sent_us))

    def done(self, due_us: Array, sent_us: Array, acked_us: Array) -> None:
        """Frames that are done, with their PUBACK (QoS 1) or without (0)."""
        answered = acked_us > 0
        self.acked += int(answered.sum())
        answered &= due_us >= self.measure_from_us
        self.puback.record((acked_us - due_us)[answered])
        self.round_trip.record((acked_us - sent_us)[answered])

    def _record(self) -> None:
        """Put what was written since the last second into the histograms."""
        for parts, histogram, recent in ((self._direct, self.lateness, self._recent), (self._spooled, self.held, None)):
            if not parts:
                continue
            due = np.concatenate([part[0] for part in parts])
            late = np.concatenate([part[1] for part in parts]) - due
            if recent is not None:
                recent.record(late)
            histogram.record(late[due >= self.measure_from_us])
            parts.clear()

    def _totals(self) -> dict[str, float]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {"due": self.due, "sent": self.sent, "acked": self.acked, "cpu_s": usage.ru_utime + usage.ru_stime}

    def second(self, now: int, online: int, backlog: int) -> dict[str, Any]:
        """The line of this second: differences since the last one."""
        self._record()
        totals = self._totals()
        line: dict[str, Any] = {name: totals[name] - self._last[name] for name in totals}
        line |= {"time_us": now, "backlog": backlog, "online": online}
        line["lateness_us"] = self._recent.summary()
        line["longest_pause_us"] = self.longest_pause_us
        self.seconds.append(dict(line))
        self._last, self._recent, self.longest_pause_us = totals, Histogram(), 0
        return line

    def result(self) -> dict[str, Any]:
        """Everything, for the statistics file."""
        self._record()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        names = ("lateness", "held", "puback", "round_trip", "connecting")
        return {
            "due": self.due,
            "sent": self.sent,
            "acked": self.acked,
            "cpu_user_s": usage.ru_utime,
            "cpu_system_s": usage.ru_stime,
            "memory_kb": _peak_kb(),
            "histograms": {name: getattr(self, name).to_json() for name in names},
            "seconds": self.seconds,
        }
