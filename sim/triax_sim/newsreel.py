"""What a run tells while it goes on: one dict of news twice a second, for a terminal and for the live page."""

import base64
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from triax_proto.names import device_text

from triax_sim.bulk import device_ids
from triax_sim.generators import Generator
from triax_sim.pipeline import System, stage_totals
from triax_sim.population import indices
from triax_sim.scenario import Scenario

__all__ = ["Newsreel", "Progress"]

Progress = Callable[[dict[str, Any]], None]

_RATE_S = 2.0  # over which frames per second are counted


class _Count:
    """A counter of another process: it starts at what it was, and goes on when that process begins again from zero."""

    def __init__(self, now: float, raw: float) -> None:
        self._raw, self._base = raw, -raw
        self._then, self._before = now, 0.0
        self.rate = 0.0

    def see(self, now: float, raw: float) -> float:
        """The count since this object was made."""
        if raw < self._raw:
            self._base += self._raw
        self._raw = raw
        count = raw + self._base
        if now - self._then >= _RATE_S:
            self.rate = (count - self._before) / (now - self._then)
            self._then, self._before = now, count
        return count


class Newsreel:
    """Puts news together from what generators have said and from the stages' metrics, and hands it to `progress`."""

    def __init__(self, scenario: Scenario, system: System, progress: Progress) -> None:
        self._scenario, self._system, self._progress = scenario, system, progress
        self._first = True
        self._counts: dict[str, _Count] = {}
        self.start_us = 0
        self.cpu: dict[str, float] = {}

    def tell(self, phase: str, generators: Sequence[Generator], text: str = "") -> None:
        """Where the run is."""
        scenario = self._scenario
        elapsed = (time.time_ns() // 1000 - self.start_us) / 1e6 if self.start_us else 0.0
        lines = [generator.last for generator in generators if generator.last]
        news: dict[str, Any] = {
            "phase": phase,
            "text": text,
            "elapsed_s": max(0.0, elapsed),
            "duration_s": scenario.duration_s,
            "online": sum(line["online"] for line in lines),
            "hops": self._hops(generators),
            "ages": base64.b64encode(self._ages(generators).tobytes()).decode(),
            "wave": next((line["wave"] for line in lines if "wave" in line), None),
            "lateness_us": max((line["lateness_us"]["p99"] for line in lines), default=0),
            "cpu": self.cpu,
            "verdict": None,
        }
        if self._first:
            ids = device_ids(scenario.seed, np.arange(scenario.devices))
            news["devices"] = [device_text(device) for device in ids.tolist()]
            self._first = False
        self._progress(news)

    def _ages(self, generators: Sequence[Generator]) -> np.ndarray[Any, Any]:
        ages = np.full(self._scenario.devices, 255, np.uint8)
        for generator in generators:
            if "ages" in generator.last:
                plan = generator.plan
                order = np.concatenate([indices(cohort, plan.process, plan.processes) for cohort in plan.cohorts])
                ages[order] = np.frombuffer(base64.b64decode(generator.last["ages"]), np.uint8)
        return ages

    def _hops(self, generators: Sequence[Generator]) -> list[dict[str, Any]]:
        now = time.monotonic()
        emitted = float(sum(g.totals["due"] for g in generators))
        through = float(sum(g.totals["acked" if g.plan.cohorts[0].qos else "sent"] for g in generators))
        raw = {"emitted": emitted, "mqtt": through}
        for name, urls in self._system.metrics.items():
            raw[name] = sum(stage_totals(url).get("triax_frames_out_total", 0.0) for url in urls)
        rows = []
        for name, value in raw.items():
            if name not in self._counts:
                self._counts[name] = _Count(now, 0.0 if name in ("emitted", "mqtt") else value)
            frames = self._counts[name].see(now, value)
            # How long the fleet takes to make what is still missing here.
            lag_ms = 1000 * max(0.0, emitted - frames) / (self._scenario.devices * 10.0)
            rows.append({"name": name, "frames": int(frames), "rate": self._counts[name].rate, "lag_ms": lag_ms})
        return rows
