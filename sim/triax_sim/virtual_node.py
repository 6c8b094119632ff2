"""One gold device: a virtual part under the node's own code, in a world of its own, with a real socket outside."""

from collections.abc import Callable
from typing import Any

import numpy as np
from triax import boot
from triax.channel import Channel
from triax.connection import OPEN
from triax.node import Node
from triax.ports.tcp import Link
from triax.spool import Memory, Spool
from triax_proto.frame import parse

from triax_sim import chips as twins
from triax_sim.bulk import PARTS, device_ids
from triax_sim.meter import Meter
from triax_sim.motion import mix, still
from triax_sim.plan import Cohort, Plan
from triax_sim.planted import Planted, unit
from triax_sim.replay import SAME_SCALE, Recording, Replay
from triax_sim.scenes import GRAVITY
from triax_sim.sensor import Sensor
from triax_sim.wiring import connect
from triax_sim.world import World

__all__ = ["Device", "Entry"]

# Boot, sequence, checksum, due, sent (0: not yet).
Entry = list[int]

# Of the time in which a FIFO fills: two polls fit, and the larger the bursts the cheaper.
_SLICE = 0.45
_TURN_US = 50_000
_SLOT_BYTES = 300
_SPOOL = 2_400  # frames: four minutes
_WAVE = 10
# Raw captures on command, as provisioned nodes have them: 4 s of an IIS3DWB may wait for the network.
_RAW_SETS, _RAW_SLOTS = 256, 416
_PLAYED_S = 4.0  # a recording of another sensor is played as motion from here on: the stream knows by then what is usual


class _Store:
    """What a node keeps, in memory."""

    def __init__(self) -> None:
        self._data: dict[str, bytes] = {}

    def read(self, name: str) -> bytes | None:
        return self._data.get(name)

    def write(self, name: str, data: bytes) -> None:
        self._data[name] = bytes(data)


class _WorldClock:
    """The world's ticks, and its UTC."""

    utc_error_us = 500

    def __init__(self, world: World, start_us: int) -> None:
        self._world, self._start_us = world, start_us
        self.ticks_us = world.ticks_us

    def utc_us(self) -> int:
        return self._start_us + self._world.now_us


class _Board:
    name = "simulator"

    def restart(self) -> None:
        """A virtual board stays on."""

    def free_heap(self) -> int:
        return -1

    def signal_dbm(self) -> int:
        return 0


class _Witness(Spool):
    """The node's spool, with a record of what passes through it."""

    def __init__(
        self, device: "Device", meter: Meter, clock: Callable[[], int], done: Callable[["Device", Entry, int], None]
    ) -> None:
        super().__init__(Memory(_SPOOL, _SLOT_BYTES))
        self._device, self._meter, self._clock, self._done = device, meter, clock, done
        self.open: dict[int, Entry] = {}  # by token
        self.resent: list[list[int]] = []  # device, boot, sequence

    def put(self, source: Any, length: int) -> bool:
        token = self._head
        frame = parse(bytes(memoryview(source)[:length]))[0]
        self._device.recent.append(frame)
        del self._device.recent[:-_WAVE]
        kept = bool(super().put(source, length))
        identity = [int(frame[name]) for name in ("boot", "sequence", "checksum")]
        self._meter.due += 1
        if token in self.open:  # overwritten: the ring was full
            self._done(self._device, self.open.pop(token), 0)
        # The transfers of a step take the world up to 2 ms beyond the time it was to follow: no frame is due in the future.
        self.open[token] = [*identity, min(self._device.utc_us(), self._clock()), 0]
        return kept

    def took(self, token: int) -> None:
        super().took(token)
        entry = self.open.get(token)
        if entry is not None and not entry[4]:
            entry[4] = self._clock()
            self._device.last_us = entry[4]
            self._meter.wrote(np.array([entry[3]]), np.array([entry[4]]), direct=True)
        elif entry is not None:
            self.resent.append([self._device.device, entry[0], entry[1]])

    def release(self, token: int) -> bool:
        done = bool(super().release(token))
        entry = self.open.pop(token, None)
        if done and entry is not None:
            self._done(self._device, entry, self._clock() if self._device.cohort.qos else 0)
        return done


class Device:
    """One accelerometer on one node."""

    def __init__(
        self,
        plan: Plan,
        cohort: Cohort,
        index: int,
        start_us: int,
        recording: Recording | None,
        meter: Meter,
        clock: Callable[[], int],
        done: Callable[["Device", Entry, int], None],
    ) -> None:
        self.cohort, self.index = cohort, index
        self.device = int(device_ids(plan.seed, np.array([index]))[0])
        self.recent: list[Any] = []
        self.last_us = 0
        self.world = World()
        self._start_us = start_us
        driver = self._part(plan, recording)
        self.spool = _Witness(self, meter, clock, done)
        self.node = self._node(plan, driver)

    def _part(self, plan: Plan, recording: Recording | None) -> Any:
        """The driver of the virtual part, on its bus."""
        cohort, part = self.cohort, PARTS[self.cohort.part]
        seed = plan.seed + self.index
        ppm = float(np.random.default_rng(seed).normal(0, cohort.clock_ppm)) if cohort.clock_ppm else 0.0
        faults = [Planted(**item) for item in plan.options.get("planted", ()) if item["index"] == self.index]
        source: Any = unit(part, cohort.motion, seed, faults[0] if faults else None)
        self.samples = 0  # of the recording; 0: endless
        if recording is not None and abs(recording.scale_g / part.scale_g - 1) < SAME_SCALE:
            source, ppm, self.samples = Replay(recording), recording.ppm(part.odr_hz), len(recording.counts)
        elif recording is not None:
            source = Sensor(mix(still(GRAVITY), recording.played(_PLAYED_S)))
        twin = twins.load(cohort.part)(self.world, source, ppm=ppm)
        _, bus = connect(self.world, twin)
        driver = getattr(__import__(f"triax.chips.{cohort.part}", fromlist=["x"]), cohort.part.capitalize())(bus)
        self._slice_us = int(_SLICE * 1e6 * driver.FIFO_SETS / part.odr_hz)
        return driver

    def _node(self, plan: Plan, driver: Any) -> Any:
        cohort, part = self.cohort, PARTS[self.cohort.part]
        settings = {"range_g": int(part.range_g), "odr_hz": int(part.odr_hz), "qos": cohort.qos, "window": cohort.window}
        if cohort.frame_hz:
            settings["decimation"] = max(1, round(part.odr_hz / (10 * cohort.frame_hz)))
        store = _Store()
        boot.seed(store, plan.boot - 1)  # `start` counts on from it
        target = plan.target
        link = {"host": target.host, "port": target.port, "tls": bool(target.ca), "keepalive_s": cohort.keepalive_s}
        if target.username is not None:
            link |= {"username": target.username, "password": target.password}
        certificate = f"{target.certificates}/{self.device:016x}.pem" if target.certificates else None
        return Node(
            [Channel(self.device, driver, self.spool, settings, raw_sets=_RAW_SETS, raw_slots=_RAW_SLOTS)],
            _WorldClock(self.world, self._start_us),
            Link(target.ca or None, certificate, certificate),
            store,
            link,
            _Board(),
            firmware="gold",
        )

    def utc_us(self) -> int:
        """UTC of the world."""
        return self._start_us + self.world.now_us

    @property
    def up(self) -> bool:
        """Connected."""
        return bool(self.node.connection.opened) and self.node.connection.state == OPEN and not self.node.stopped

    @property
    def over(self) -> bool:
        """Its recording has been played to the end."""
        capture = self.node.channels[0].capture
        return bool(self.samples and capture is not None and int.from_bytes(capture.samples, "little") >= self.samples)

    def follow(self, now_us: int) -> None:
        """Let the world's time pass until UTC `now_us`, or by 50 ms: one that is behind must not keep the others waiting."""
        target = min(now_us - self._start_us, self.world.now_us + _TURN_US)
        while self.world.now_us < target and not self.node.stopped:
            self.world.advance(min(self._slice_us, target - self.world.now_us))
            self.node.step()
            if self.over:
                self.node.stop()

    def wave(self) -> dict[str, Any]:
        """Values of its last frames, in g."""
        axes = {a: [round(float(v * f["scale_g"] / f["decimation"]), 5) for f in self.recent for v in f[a]] for a in "xyz"}
        part = PARTS[self.cohort.part]
        return {"device": f"{self.device:016x}", "hz": part.odr_hz / part.decimation, **axes}
