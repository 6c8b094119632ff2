"""The devices of one generator process as columns: who they are, when each frame is due, and the frame for (device, number).

A device's frames are numbered from 0 over the whole run; a *segment* of them shares a boot and a clock. A reboot or a clock step
begins a new segment, so a frame of any age can be made again.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from triax_proto.frame import VALUES, empty
from triax_proto.names import device_text
from triax_proto.v1.device_pb2 import DeviceInfo, Status

from triax_sim import packet
from triax_sim.bulk import OLD_SCHEMA_CUT, PARTS, Bank, Layout, device_ids
from triax_sim.motions import FRAMES, VARIANTS, bank, part_at
from triax_sim.plan import BadPlan, Cohort, Plan
from triax_sim.planted import ONCE, Planted, sick_bank

__all__ = ["NEVER", "Population", "indices"]

Array = np.ndarray[Any, Any]

NEVER = np.iinfo(np.int64).max // 4
_TIME_ERROR_US = 500  # what a node on the same network as its time server claims
_CONFIG = 1
_LONG_BANK = 128  # frames of a bank where findings are judged: more of what is healthy


def indices(cohort: Cohort, process: int, processes: int) -> Array:
    """Fleet indices of a cohort's devices that one process takes."""
    every = np.arange(cohort.first, cohort.first + cohort.count)
    return np.asarray(every[every % processes == process])


def _spread(device: Array, salt: int) -> Array:
    """A uniform number in [0, 1) that depends on device and salt alone (splitmix64)."""
    z = device.astype(np.uint64) + np.uint64(salt * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / 2**53


class Population:
    """Columns over the devices of one process, in the order of the plan's cohorts."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        shares = [(cohort, indices(cohort, plan.process, plan.processes)) for cohort in plan.cohorts]
        self.cohort = np.repeat(np.arange(len(shares)), [len(index) for _, index in shares])
        self.index = np.concatenate([index for _, index in shares] or [np.empty(0, np.int64)])
        self.count = len(self.index)
        if not self.count:
            raise BadPlan(f"process {plan.process} of {plan.processes} has no device")
        self.device = device_ids(plan.seed, self.index)
        self.qos = self._each("qos", np.uint8)
        self.window = np.where(self.qos == 1, self._each("window", np.int64), 1)
        self.spool = self._each("spool", np.int64)
        self._layouts(plan.cohorts)
        self._clocks()
        self._heads()
        self.begin(0)

    def _each(self, name: str, kind: Any) -> Array:
        return np.array([getattr(c, name) for c in self.plan.cohorts], kind)[self.cohort]

    def _layouts(self, cohorts: Sequence[Cohort]) -> None:
        """One layout for each (QoS, schema) in use; templates of all banks in each."""
        frames = _LONG_BANK if "planted" in self.plan.options else FRAMES
        banks = [bank(c.part, c.motion, c.frame_hz, self.plan.seed + n, frames) for c in cohorts for n in range(VARIANTS)]
        variant = (_spread(self.device, 6) * VARIANTS).astype(np.int64)
        mine = self.cohort * VARIANTS + variant
        sick = self._sick_banks(cohorts, variant)
        banks += sick
        keys = [(c.qos, c.old_schema) for c in cohorts]
        self.kinds = sorted(set(keys))
        self.kind = np.array([self.kinds.index(key) for key in keys])[self.cohort]
        self.layouts = [Layout(banks, OLD_SCHEMA_CUT if old else 0) for _, old in self.kinds]
        self._bank_first, self._bank_count = self.layouts[0].first[mine], self.layouts[0].count[mine]
        self._bank_shift = (_spread(self.device, 1) * self._bank_count).astype(np.int64)
        self._sick_first[self._sick], self._sick_count[self._sick] = (
            values[len(banks) - len(sick) :] for values in (self.layouts[0].first, self.layouts[0].count)
        )
        self.samples = np.array([b.part.samples for b in banks], np.int64)[mine]
        self._odr_hz = np.array([b.part.odr_hz for b in banks])[mine]

    def _sick_banks(self, cohorts: Sequence[Cohort], variant: Array) -> list[Bank]:
        """Frames of the devices with a planted fault, from its first frame on (`_sick_at`), each device's own."""
        faults = [Planted(**item) for item in self.plan.options.get("planted", ())]
        place = {index: d for d, index in enumerate(self.index.tolist())}
        mine = [fault for fault in faults if fault.index in place]
        self._sick = np.array([place[fault.index] for fault in mine], np.int64)
        self._sick_at = np.full(self.count, NEVER)
        self._sick_at[self._sick] = [fault.frame for fault in mine]
        self._sick_first, self._sick_count = np.zeros((2, self.count), np.int64)
        self._sick_once = np.zeros(self.count, bool)
        self._sick_once[self._sick] = [fault.kind in ONCE for fault in mine]
        out = []
        for fault, d in zip(mine, self._sick.tolist(), strict=True):
            cohort = cohorts[self.cohort[d]]
            part = part_at(cohort.part, cohort.frame_hz)
            frames = int(self.plan.duration_s * part.odr_hz / part.samples) + 1
            out.append(sick_bank(fault, part, cohort.motion, self.plan.seed + int(variant[d]), frames))
        return out

    def _template(self, who: Array, number: Array) -> Array:
        """Row of the layouts that holds the payload of frames."""
        out = self._bank_first[who] + (self._bank_shift[who] + number) % self._bank_count[who]
        if not len(self._sick):
            return np.asarray(out)
        since, count = number - self._sick_at[who], self._sick_count[who]
        sick = (since >= 0) & ((since < count) | ~self._sick_once[who])
        return np.asarray(np.where(sick, self._sick_first[who] + since % np.maximum(count, 1), out))

    def _clocks(self) -> None:
        normal = np.random.default_rng(self.plan.seed).standard_normal(1 << 16)  # the same for a device whatever its process
        ppm = normal[self.index % len(normal)] * self._each("clock_ppm", np.float64)
        self.rate_hz = self._odr_hz * (1 + ppm * 1e-6)
        self.period_us = self.samples / self.rate_hz * 1e6
        self._poisson = np.array([c.phase == "poisson" for c in self.plan.cohorts])[self.cohort]
        self._any_poisson = bool(self._poisson.any())
        aligned = np.array([c.phase == "aligned" for c in self.plan.cohorts])[self.cohort]
        self.phase_us = np.where(aligned, 0, (_spread(self.device, 2) * self.period_us).astype(np.int64))
        own = {
            "device": self.device,
            "time_error_us": np.full(self.count, _TIME_ERROR_US),
            "rate_hz": self.rate_hz,
            "config": np.full(self.count, _CONFIG),
            "temperature_mc": 20_000 + (_spread(self.device, 3) * 30_000).astype(np.int64),
        }
        self._own = own
        self._own_sum = [layout.own(own) for layout in self.layouts]

    def _heads(self) -> None:
        """What stands before each device's payload in a PUBLISH, packet id left out."""
        self.heads: list[Array] = []
        for (qos, _), layout in zip(self.kinds, self.layouts, strict=True):
            heads = [packet.publish_head(f"triax/v1/{d:016x}/frame", qos, layout.size) for d in self.device.tolist()]
            self.heads.append(np.frombuffer(b"".join(heads), np.uint8).reshape(self.count, -1))

    # -- when

    def begin(self, start_us: int) -> Array:
        """Lay the schedule from `start_us` on; returns the number of the first frame that is still to come, per device."""
        backlog = (self._each("backlog_s", np.float64) * 1e6 / self.period_us).astype(np.int64)
        on_us = (self._each("power_on_s", np.float64) + _spread(self.device, 4) * self._each("power_spread_s", np.float64)) * 1e6
        self.on_us = start_us + on_us.astype(np.int64)
        first_due = self.on_us + self.phase_us
        # Segment: first frame, boot, its frame and sample numbers, UTC of its first sample, error of the device's UTC.
        shape = (1, self.count)
        self._used = np.ones(self.count, np.int64)
        self._frame0, self._sequence0, self._clock_us = np.zeros((3, *shape), np.int64)
        self._boot = np.full(shape, self.plan.boot, np.int64)
        self._start_us = (first_due - np.rint((backlog + 1) * self.period_us).astype(np.int64))[None]
        return np.asarray(backlog)

    def _segment(self, who: Array, number: Array) -> Array:
        if len(self._frame0) == 1:
            return np.zeros(len(who), np.int64)
        return np.asarray((self._frame0[:, who] <= number).sum(axis=0) - 1)

    def due_us(self, who: Array, number: Array) -> Array:
        """UTC when frame `number` of each device is complete, and wanted on the wire."""
        s = self._segment(who, number)
        after = (number - self._frame0[s, who] + 1) * self.period_us[who]
        if self._any_poisson:
            # Late by a uniform share of a period, each frame anew: over many devices the arrivals of a short while are Poisson's.
            jitter = _spread(self.device[who] ^ (number.astype(np.uint64) << np.uint64(20)), 5) * self.period_us[who]
            after = after + np.where(self._poisson[who], jitter, 0)
        return np.asarray(self._start_us[s, who] + np.rint(after).astype(np.int64))

    def _next_segment(self, who: Array, number: Array) -> Array:
        """Let a segment begin at frame `number` of each device that goes on as the one before; its row per device."""
        row = self._used[who]
        if int(row.max()) == len(self._frame0):
            for name, empty in (("_frame0", NEVER), ("_boot", 0), ("_sequence0", 0), ("_start_us", 0), ("_clock_us", 0)):
                column = getattr(self, name)
                setattr(self, name, np.concatenate([column, np.full((1, self.count), empty)]))
        before = row - 1
        passed = number - self._frame0[before, who]
        self._boot[row, who], self._clock_us[row, who] = self._boot[before, who], self._clock_us[before, who]
        self._sequence0[row, who] = self._sequence0[before, who] + passed
        self._start_us[row, who] = self._start_us[before, who] + np.rint(passed * self.period_us[who]).astype(np.int64)
        self._frame0[row, who] = number
        self._used[who] += 1
        return row

    def reboot(self, who: Array, number: Array, on_us: Array) -> None:
        """From frame `number` on: the next boot, sampling since `on_us`."""
        row = self._next_segment(who, number)
        self._boot[row, who] += 1
        self._sequence0[row, who] = 0
        self._start_us[row, who] = on_us

    def clock_step(self, who: Array, number: Array, step_us: int) -> None:
        """From frame `number` on the device's UTC is wrong by another `step_us`; its schedule is not."""
        row = self._next_segment(who, number)
        self._clock_us[row, who] += step_us

    # -- what

    def identity(self, who: Array, number: Array) -> tuple[Array, Array]:
        """Boot and sequence of frames."""
        s = self._segment(who, number)
        return self._boot[s, who], number - self._frame0[s, who] + self._sequence0[s, who]

    def frames(self, kind: int, who: Array, number: Array) -> tuple[Array, Array]:
        """Wire bytes (count, size) and checksums of frames of devices of one kind."""
        s = self._segment(who, number)
        passed = number - self._frame0[s, who]
        sequence = passed + self._sequence0[s, who]
        fields = {name: values[who] for name, values in self._own.items()}
        fields["boot"], fields["sequence"] = self._boot[s, who], sequence
        fields["first_sample"] = sequence * self.samples[who]
        time = self._start_us[s, who] + self._clock_us[s, who]
        fields["time_us"] = time + np.rint(passed * self.period_us[who]).astype(np.int64)
        return self.layouts[kind].build(self._template(who, number), self._own_sum[kind][who], fields)

    def checksums(self, who: Array, number: Array) -> Array:
        """Checksums of any frames."""
        out = np.empty(len(who), np.uint32)
        for kind in range(len(self.kinds)):
            of = np.flatnonzero(self.kind[who] == kind)
            if of.size:
                out[of] = self.frames(kind, who[of], number[of])[1]
        return out

    def packets(self, who: Array, number: Array, packet_id: Array) -> tuple[list[bytes], Array]:
        """PUBLISH packets, with these ids at QoS 1, and the frames' checksums."""
        kinds = np.unique(self.kind[who]) if len(self.kinds) > 1 else np.zeros(1, np.int64)
        if len(kinds) == 1:
            return self._packets(int(kinds[0]), who, number, packet_id)
        out: list[bytes] = [b""] * len(who)
        checksums = np.empty(len(who), np.uint32)
        for kind in kinds.tolist():
            of = np.flatnonzero(self.kind[who] == kind)
            some, checksums[of] = self._packets(kind, who[of], number[of], packet_id[of])
            for at, data in zip(of.tolist(), some, strict=True):
                out[at] = data
        return out, checksums

    def _packets(self, kind: int, who: Array, number: Array, packet_id: Array) -> tuple[list[bytes], Array]:
        frames, checksum = self.frames(kind, who, number)
        heads = self.heads[kind]
        qos = self.kinds[kind][0]
        head = heads.shape[1]
        body = head + (2 if qos else 0)
        rows = np.empty((len(who), body + frames.shape[1]), np.uint8)
        rows[:, :head] = heads[who]
        if qos:
            rows[:, head:body] = packet_id.astype(">u2").view(np.uint8).reshape(-1, 2)
        rows[:, body:] = frames
        return rows.view(f"V{rows.shape[1]}").ravel().tolist(), checksum

    def wave(self, d: int, number: int) -> dict[str, Any]:
        """Values of the last ten frames before `number`, in g."""
        numbers = np.arange(max(0, number - 10), number)
        who = np.full(len(numbers), d)
        rows, _ = self.frames(int(self.kind[d]), who, numbers)
        frames = empty(len(numbers))
        if len(numbers):
            frames.view(np.uint8).reshape(len(numbers), -1)[:, : rows.shape[1]] = rows
        g = {a: (frames[a] * (frames["scale_g"] / frames["decimation"])[:, None]).ravel().round(5).tolist() for a in "xyz"}
        return {"device": device_text(int(self.device[d])), "hz": VALUES * 1e6 / float(self.period_us[d]), **g}

    # -- what a device says of itself

    def connect(self, d: int) -> bytes:
        """CONNECT with the last will of design.md 3.2."""
        cohort = self.plan.cohorts[self.cohort[d]]
        text = device_text(int(self.device[d]))
        client = text
        if cohort.client_of:
            other = next(c for c in self.plan.cohorts if c.name == cohort.client_of)
            index = np.array([other.first + int(self.index[d]) - cohort.first])
            client = device_text(int(device_ids(self.plan.seed, index)[0]))
        will = Status(online=False, boot=self.plan.boot, reason=Status.REASON_LOST).SerializeToString()
        target = self.plan.target
        return packet.connect(client, cohort.keepalive_s, (f"triax/v1/{text}/status", will), target.username, target.password)

    def birth(self, d: int) -> bytes:
        """DeviceInfo and status, retained, as a node sends them after CONNACK."""
        part = PARTS[self.plan.cohorts[self.cohort[d]].part]
        device = int(self.device[d])
        boot = int(self._boot[self._used[d] - 1, d])
        info = DeviceInfo(
            device=device,
            boot=boot,
            part=part.name,
            firmware="bulk",
            board="simulator",
            odr_nominal_hz=part.odr_hz,
            range_g=part.range_g,
            scale_g=part.scale_g,
            decimation=int(self.samples[d]) // 10,
            config=_CONFIG,
            spool_frames=int(self.spool[d]),
            clip_low=part.clip_low,
            clip_high=part.clip_high,
            node=device,
        )
        status = Status(online=True, boot=boot, reason=Status.REASON_STARTED)
        topic = f"triax/v1/{device_text(device)}"
        return packet.publish(f"{topic}/info", info.SerializeToString(), True) + packet.publish(
            f"{topic}/status", status.SerializeToString(), True
        )
