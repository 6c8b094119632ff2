"""Gold devices: virtual parts under the node's own code, in virtual time that is locked to real time, with real sockets outside.

    python -m triax_sim.gold PLAN          the same plan, lines, ledger and statistics as triax_sim.fleet

Each device has a world of its own. A turn moves every world to now in slices shorter than its FIFO, one `Node.step` a slice; what
the driver reads takes virtual bus time. If the processor cannot follow, worlds fall behind UTC, frames go out late, and lateness
shows it. A frame is due when the node's capture has finished it, in the world's UTC; it counts as sent when the node has written
it, acked when the spool has let it go.
"""

import base64
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from triax_sim.clock import Clock
from triax_sim.commands import Commands
from triax_sim.ledger import Writer
from triax_sim.meter import Meter
from triax_sim.plan import BadPlan, Plan
from triax_sim.population import indices
from triax_sim.replay import read
from triax_sim.serve import serve
from triax_sim.virtual_node import Device, Entry

__all__ = ["Gold", "main"]

_TURN_S = 0.004


class Gold:
    """The gold devices of one process."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.clock = Clock()
        self.meter = Meter()
        self.ledger = Writer(plan.ledger)
        self.commands = Commands() if plan.wait else None
        self.devices: list[Device] = []
        self.stop = False
        self._done: list[tuple[Device, Entry, int]] = []
        self._watched = ""
        self._shares = [(c, i) for c in plan.cohorts for i in indices(c, plan.process, plan.processes).tolist()]
        if not self._shares:
            raise BadPlan(f"gold process {plan.process} of {plan.processes} has no device")
        recording = str(plan.options.get("recording", ""))
        self.recording = read(recording, self._shares[0][0].part) if recording else None

    def record(self, device: Device, entry: Entry, acked_us: int) -> None:
        """A frame is done."""
        self._done.append((device, entry, acked_us))

    def run(self) -> dict[str, Any]:
        """Connect, measure for the plan's duration, let the spools run empty; the statistics."""
        print(json.dumps({"ready": len(self._shares), "devices": len(self._shares)}), flush=True)
        start = self._go()
        self.meter.measure_from_us = start + int(self.plan.warmup_s * 1e6)
        self.devices = [
            Device(self.plan, cohort, index, start, self.recording, self.meter, self.clock, self.record)
            for cohort, index in self._shares
        ]
        for device in self.devices:
            device.node.start()
        end = start + int(self.plan.duration_s * 1e6)
        # Worlds that lag behind still owe what falls due before the end.
        self._turn_until(lambda now: all(device.utc_us() >= end or device.node.stopped for device in self.devices), end)
        for device in self.devices:
            device.node.channels[0].capture.stop()
        limit = self.clock() + int(self.plan.drain_s * 1e6)
        self._turn_until(lambda now: now > limit or not any(d.spool.depth for d in self.devices))
        for device in self.devices:
            device.node.stop()
        limit = self.clock() + 5_000_000
        self._turn_until(lambda now: now > limit or all(d.node.stopped for d in self.devices))
        return self._finish(start)

    def _go(self) -> int:
        while self.commands and not self.stop:
            if start := self._obey(0.5):
                return start
        return self.clock() + 100_000

    def _turn_until(self, done: Callable[[int], bool], most_us: int = 1 << 62) -> None:
        """Let all worlds follow real time, up to UTC `most_us`, until `done(now)`."""
        second = self.clock() + 1_000_000
        while not self.stop:
            now = self.clock()
            if done(now):
                return
            for device in self.devices:
                device.follow(min(self.clock(), most_us))
            if now >= second:
                second += 1_000_000
                self._line(now)
            behind = min((d.utc_us() for d in self.devices), default=now) < min(now, most_us) - 10_000
            rest = 0.0 if behind else _TURN_S - (self.clock() - now) / 1e6
            if rest > 0:
                time.sleep(rest)
            self.meter.longest_pause_us = max(self.meter.longest_pause_us, self.clock() - now)

    def _flush(self) -> None:
        """Records of what is done into the ledger."""
        done, self._done = self._done, []
        if not done:
            return
        ids = np.array([device.device for device, _, _ in done], np.uint64)
        qos = np.array([device.cohort.qos for device, _, _ in done])
        columns = np.array([entry for _, entry, _ in done], np.int64).T
        acked = np.array([at for _, _, at in done], np.int64)
        self.ledger.add(ids, columns[0], columns[1], columns[2], qos, columns[3], columns[4], acked)
        self.meter.done(columns[3], columns[4], acked)

    def _line(self, now: int) -> None:
        self._flush()
        self.clock.tie()
        self._obey()
        watched = next((device for device in self.devices if f"{device.device:016x}" == self._watched), None)
        backlog = sum(device.spool.depth for device in self.devices)
        out = self.meter.second(now, sum(device.up for device in self.devices), backlog)
        last = np.array([device.last_us for device in self.devices])
        ages = np.where(last > 0, np.clip((now - last) // 100_000, 0, 254), 255).astype(np.uint8)
        out["ages"] = base64.b64encode(ages.tobytes()).decode()
        if watched is not None:
            out["wave"] = watched.wave()
        print(json.dumps(out), flush=True)

    def _obey(self, wait_s: float = 0.0) -> int:
        """As the fleet does."""
        start = 0
        for line in self.commands.lines(wait_s) if self.commands else ():
            words = line.split()
            if len(words) == 2 and words[0] == "watch":
                self._watched = words[1]
            elif len(words) == 2 and words[0] == "go":
                start = int(words[1])
        # Whoever started this process has gone: nobody will read what it finds.
        self.stop = self.stop or (self.commands is not None and self.commands.ended)
        return start

    def _finish(self, start: int) -> dict[str, Any]:
        unsent = 0
        for device in self.devices:
            for entry in device.spool.open.values():
                unsent += not entry[4]
                self.record(device, entry, 0)
        now = self.clock()
        self._line(now)
        self.ledger.close()
        captures = [device.node.channels[0].capture for device in self.devices]
        result = self.meter.result() | {
            "process": self.plan.process,
            "devices": len(self.devices),
            "start_us": start,
            "end_us": now,
            "unsent": unsent,
            "open": unsent,
            "resent": sum(len(device.spool.resent) for device in self.devices),
            "resent_frames": [frame for device in self.devices for frame in device.spool.resent],
            "stray_acks": sum(device.node.core.stray_acks for device in self.devices),
            "connections": {
                "opened": sum(device.node.connection.opened for device in self.devices),
                "refused": 0,
                "lost": sum(device.node.reconnects for device in self.devices),
            },
            "clock_step_us": self.clock.worst_step_us,
            "ledger_rows": self.ledger.rows,
            "stopped": self.stop,
            "nice": os.getpriority(os.PRIO_PROCESS, 0),
            "overruns": sum(capture.overruns for capture in captures if capture),
            "gaps": sum(capture.gaps for capture in captures if capture),
        }
        Path(self.plan.stats).write_text(json.dumps(result))
        return result


def main(arguments: list[str] | None = None) -> int:
    """Run the plan given as the only argument."""
    return serve("gold", Gold, arguments)


if __name__ == "__main__":
    sys.exit(main())
