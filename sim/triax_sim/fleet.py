"""The load generator: thousands of devices of one process, each with its own MQTT connection and its own schedule.

    python -m triax_sim.fleet '{"target": {...}, "cohorts": [...], "ledger": "a.ledger", "stats": "a.json"}'      (or `-`: from
    standard input)

Open loop: a frame is due at an absolute time, whatever happened to the ones before. A block of what falls due within the next 20
ms is built ahead by numpy; each slot (2 ms) sends what is due by then, reads what has come, and sleeps until the next. What
cannot go out (no connection, full window, full socket) waits in the device's spool and goes later, oldest first: no
acknowledgement ever moves the schedule. One JSON line a second on standard output; on SIGTERM the run is cut short and still
accounted for.
"""

import base64
import json
import os
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from triax_proto.names import device_text

from triax_sim.blocks import Block, Blocks
from triax_sim.clock import Clock
from triax_sim.commands import Commands
from triax_sim.flight import BACK, LIVE, Flight, packet_ids
from triax_sim.ledger import Writer
from triax_sim.life import Life
from triax_sim.links import UP, WAIT, Links
from triax_sim.listener import Listener
from triax_sim.meter import Meter
from triax_sim.packet import DISCONNECT
from triax_sim.plan import Plan
from triax_sim.population import Population
from triax_sim.serve import serve

__all__ = ["Fleet", "main"]

Array = np.ndarray[Any, Any]

_BLOCK_US = 20_000  # built at once: numpy's cost a call is spread over some hundred frames
_CATCH_UP_US = 200_000  # 20,000 frames of 10,000 devices: 6 MB
_CHUNK = 64  # frames between two looks at the clock: a recorded write is at most that many writes late
_CHORES_US = 100_000  # silent peers, full spools
_OPEN_US = 10_000  # between connections that are opened, as many as the plan's rate gives: TLS takes more than 2 ms for each
_PUBACK_US = 10_000_000  # design.md 3.4: no PUBACK within 10 s: reconnect and resend
_NOBODY_US = 6_000_000  # not one device connected in so long: nobody is there
_SETTLE_S = 0.004
_SLOT_FRAMES = 32
_SLOT_MOST_US = 5_000  # a quarter of the lateness that a run may have
_TRICKLE = 4  # rounds of one live frame a device that had to wait for its window, per block
_REPLAY = 32  # and of backlog: 3,200 frames/s a device at most


class Fleet:
    """One process's share of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.clock = Clock()
        self.people = people = Population(plan)
        self.meter = Meter()
        self.ledger = Writer(plan.ledger)
        self.flight = Flight(people, self.ledger)
        backoff = np.array([c.backoff for c in plan.cohorts])[people.cohort]
        context = self._tls if plan.target.ca else None
        self.links = Links(plan.target, people.count, people.connect, people.birth, backoff, plan.seed + plan.process, context)
        self.links.written = self._written
        self.links.arrived = self.flight.connected
        self.life = Life(plan, people, self.links)
        self.blocks = Blocks(people)
        self.life.number = lambda who: self.blocks.next[who]
        self.life.forget = self.flight.forget
        self._replay_hz = np.array([c.replay_hz for c in plan.cohorts])[people.cohort]
        self._tokens = np.ones(people.count)
        pings = (np.array([c.keepalive_s for c in plan.cohorts])[people.cohort] * 1_000_000).astype(np.int64)
        self.listener = Listener(self.links, self.flight, pings, plan.seed)
        self.links.dropped = self.listener.forget
        self.commands = Commands() if plan.wait else None
        self._shortest_us = int(people.period_us.min())
        self._drained_at = self._chores_at = self._opened_at = 0
        self._watched = -1
        self.stop = False

    def _tls(self, device: int) -> ssl.SSLContext:
        target = self.plan.target
        context = ssl.create_default_context(cafile=target.ca)
        if target.certificates:
            context.load_cert_chain(Path(target.certificates) / f"{device_text(int(self.people.device[device]))}.pem")
        return context

    # -- phases of a run

    def run(self) -> dict[str, Any]:
        """Connect, send for the plan's duration, wait for what is in flight; the statistics that are also written to the plan's
        file.
        """
        self._connect()
        start = self._go()
        self._send(start, start + int(self.plan.duration_s * 1e6))
        self._settle(self.clock() + int(self.plan.drain_s * 1e6))
        return self._finish(start)

    def _connect(self) -> None:
        """Open the connections of all devices that are on from the start, at the plan's rate."""
        on = self.life.on_from_start
        began = self.clock()
        self.links.state[on] = WAIT
        self.links.retry_at[on] = began + (np.arange(int(on.sum())) / self.plan.connect_hz * 1e6).astype(np.int64)
        limit = began + int((on.sum() / self.plan.connect_hz + 30) * 1e6)
        said = began
        while not self.stop:
            now = self.clock()
            self.links.due(now, 256)
            self.listener.hear(*self.links.poll(now, 0.002), self.clock())
            up = int((self.links.state == UP).sum())
            if up >= int(on.sum()) or now > limit or (not up and now > began + _NOBODY_US):
                break
            if now - said > 500_000:
                said = now
                print(json.dumps({"connecting": up, "of": int(on.sum())}), flush=True)

    def _go(self) -> int:
        """UTC of the start: when all generators are told, or soon."""
        print(json.dumps({"ready": int((self.links.state == UP).sum()), "devices": self.people.count}), flush=True)
        while self.commands and not self.stop:
            if start := self._obey(0.5):
                return start
            self.listener.hear(*self.links.poll(self.clock()), self.clock())
        return int(self.clock() + 100_000)

    def _send(self, start: int, end: int) -> None:
        people, slot = self.people, self._slot_us()
        self.flight.begin(people.begin(start))
        self.blocks.begin(self.flight.due)
        self.meter.due += int(self.flight.due.sum())
        self.meter.measure_from_us = start + int(self.plan.warmup_s * 1e6)
        self.life.begin(start)
        self.listener.begin(start)
        edge, second, woke = start, start + 1_000_000, start
        self._drained_at = start
        block = self.blocks.until(edge)
        at = 0
        while not self.stop:
            now = self.clock()
            self.meter.longest_pause_us = max(self.meter.longest_pause_us, now - woke)
            upto = int(block.due_us.searchsorted(now, "right"))
            if upto > at:
                self._dispatch(block.between(at, upto))
                at = upto
            self.listener.hear(*self.links.poll(now), self.clock())
            if at == len(block.due_us) and now >= edge - _BLOCK_US:
                if edge >= end:  # not `now`: a generator that is behind still owes all that falls due
                    break
                self._drain(now)
                # Overdue frames in larger blocks, if this process was kept waiting: one by one it would not catch up.
                edge, at = min(max(edge, min(now, edge + _CATCH_UP_US)) + _BLOCK_US, end), 0
                self.life.happen(edge, self.blocks.changed)
                block = self.blocks.until(edge)
            self._chores(now)
            if now >= second:
                second += 1_000_000
                self._line(now)
            woke = (now // slot + 1) * slot
            rest = woke - self.clock()
            overdue = at < len(block.due_us) and block.due_us[at] <= now
            if rest > 0 and not overdue:
                time.sleep(rest / 1e6)
            else:
                woke = now + slot

    def _slot_us(self) -> int:
        """The plan's slot; longer for a small fleet, where a wake-up costs more than the few frames it sends."""
        least = int(self.plan.slot_ms * 1000)
        rate_hz = float((1e6 / self.people.period_us).sum())
        return int(min(max(least, _SLOT_FRAMES / rate_hz * 1e6), max(least, _SLOT_MOST_US)))

    def _settle(self, until: int) -> None:
        """After the last frame was due: until all is sent and acked, or time is up."""
        second = self.clock() + 1_000_000
        while not self.stop and self.flight.depth().any():
            now = self.clock()
            if now > until:
                break
            self.listener.hear(*self.links.poll(now), self.clock())
            self._drain(now)
            self._chores(now)
            time.sleep(_SETTLE_S)  # replies come by the hundred, not each alone
            if now >= second:
                second += 1_000_000
                self._line(now)

    def _finish(self, start: int) -> dict[str, Any]:
        now = self.clock()
        self.meter.done(*self.flight.flush())
        self._line(now)
        flight, links = self.flight, self.links
        open_frames = int(flight.depth().sum())
        flight.forget(np.arange(self.people.count))
        links.end(DISCONNECT, now)
        self.ledger.close()
        self.meter.connecting.record(np.array(links.connect_us, np.int64))
        result = self.meter.result() | {
            "process": self.plan.process,
            "devices": self.people.count,
            "start_us": start,
            "end_us": now,
            "unsent": flight.dropped,
            "open": open_frames,
            "resent": len(flight.resent),
            "resent_frames": flight.resent_frames(),
            "stray_acks": flight.stray,
            "connections": {"opened": links.opened, "refused": links.refused, "lost": links.lost},
            "clock_step_us": self.clock.worst_step_us,
            "ledger_rows": self.ledger.rows,
            "stopped": self.stop,
            "nice": os.getpriority(os.PRIO_PROCESS, 0),
        }
        Path(self.plan.stats).write_text(json.dumps(result))
        return result

    # -- frames

    def _dispatch(self, due: Block) -> None:
        """Send what has fallen due, unless its device has to keep it."""
        self.flight.due[due.who] = due.number + 1  # in order, so the last frame of a device stays
        self.meter.due += len(due.who)
        # After a pause several frames of a device are overdue; one call takes one of each.
        several = due.due_us[-1] - due.due_us[0] >= self._shortest_us
        for part in due.rounds() if several else (due,):
            can = self.links.ready[part.who] & self.flight.can_send(part.who, part.number)
            if can.any():
                self._write(LIVE, part if can.all() else part.part(np.flatnonzero(can)), direct=True)

    def _write(self, lane: int, frames: Block, direct: bool) -> None:
        """Write frames, one a device; what a socket does not take waits for it."""
        who, number, due_us, packets, _ = frames
        devices = who.tolist()
        sent_us = np.empty(len(who), np.int64)
        partly: list[int] = []
        for lo in range(0, len(devices), _CHUNK):
            some = packets[lo : lo + _CHUNK]
            taken = self.links.send(devices[lo : lo + _CHUNK], some)
            now = self.clock()
            sent_us[lo : lo + _CHUNK] = now
            if taken != list(map(len, some)):
                for n, (count, packet) in enumerate(zip(taken, some, strict=True), lo):
                    if count == len(packet):
                        continue
                    partly.append(n)
                    if count < 0:
                        self.links.close(devices[n], now)
                    elif devices[n] not in self.links.tails:
                        self.links.hold(devices[n], packet[count:], int(number[n]) << 1 | lane)
        whole = slice(None) if not partly else np.delete(np.arange(len(who)), partly)
        self.flight.sent(lane, who[whole], number[whole], frames.checksum[whole], sent_us[whole])
        self.meter.wrote(due_us[whole], sent_us[whole], direct)

    def _written(self, device: int, token: int) -> None:
        """A socket has taken the rest of a frame."""
        who, numbers = np.array([device]), np.array([token >> 1])
        due, now = self.people.due_us(who, numbers), np.array([self.clock()])
        self.flight.sent(token & 1, who, numbers, self.people.checksums(who, numbers), now)
        self.meter.wrote(due, now, direct=False)

    def _drain(self, now: int) -> None:
        """Send what waits: live frames as soon as there is room, backlog at each device's replay rate."""
        passed_s = min(now - self._drained_at, _CHORES_US) / 1e6
        self._drained_at = now
        for _ in range(_TRICKLE):
            if not self._trickle(LIVE, self.flight.waiting(LIVE, self.links.ready)):
                break
        back = self.flight.waiting(BACK, self.links.ready)
        if not back.size:
            return
        self._tokens[back] = np.minimum(self._tokens[back] + self._replay_hz[back] * passed_s, self.people.window[back])
        for _ in range(_REPLAY):
            back = back[self._tokens[back] >= 1]
            self._tokens[back] -= 1
            if not self._trickle(BACK, back):
                break
            back = self.flight.waiting(BACK, self.links.ready)

    def _trickle(self, lane: int, who: Array) -> int:
        """One frame of a lane for each of these devices."""
        if who.size:
            number = self.flight.send[lane, who]
            packets, checksum = self.people.packets(who, number, packet_ids(lane, number))
            self._write(lane, Block(who, number, self.people.due_us(who, number), packets, checksum), direct=False)
        return len(who)

    # -- housekeeping

    def _chores(self, now: int) -> None:
        passed_us = now - self._opened_at
        if passed_us >= max(_OPEN_US, 1e6 / self.plan.connect_hz):
            self._opened_at = now
            self.links.due(now, max(1, int(min(passed_us, _CHORES_US) * self.plan.connect_hz / 1e6)))
        if now - self._chores_at < _CHORES_US:
            return
        self._chores_at = now
        self.meter.done(*self.flight.flush())
        self._obey()
        self.links.stale(now)
        self.flight.overflow()
        self.listener.chores(now)

    def _line(self, now: int) -> None:
        self.clock.tie()
        line = self.meter.second(now, int((self.links.state == UP).sum()), int(self.flight.depth().sum()))
        ages = np.where(self.flight.last_us > 0, np.clip((now - self.flight.last_us) // 100_000, 0, 254), 255).astype(np.uint8)
        line["ages"] = base64.b64encode(ages.tobytes()).decode()
        if self._watched >= 0:
            line["wave"] = self.people.wave(self._watched, int(self.flight.due[self._watched]))
        print(json.dumps(line), flush=True)

    def _obey(self, wait_s: float = 0.0) -> int:
        """Commands on standard input: `go UTC_US`, whose time is returned (else 0); `watch DEVICE`: its waveform in each line."""
        start = 0
        for line in self.commands.lines(wait_s) if self.commands else ():
            words = line.split()
            if len(words) == 2 and words[0] == "watch":
                found = np.flatnonzero(self.people.device == np.uint64(int(words[1], 16)))
                self._watched = int(found[0]) if found.size else -1
            elif len(words) == 2 and words[0] == "go":
                start = int(words[1])
        # Whoever started this process has gone: nobody will read what it finds.
        self.stop = self.stop or (self.commands is not None and self.commands.ended)
        return start


def main(arguments: list[str] | None = None) -> int:
    """Run the plan given as the only argument."""
    return serve("fleet", Fleet, arguments)


if __name__ == "__main__":
    sys.exit(main())
