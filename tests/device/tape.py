"""A capture run on CPython against a virtual part, with its bus traffic and ticks on tape, so that MicroPython can run it again.

MicroPython replays the tape without a virtual part, which would allocate, and must give the same frames. Tape: a line of JSON, then
records of `kind, length (2 bytes), data`: bytes a transfer read (with its first written byte or register in front), or a tick.
"""

import importlib
import json
import random
import struct

import numpy as np
from triax.capture import Capture
from triax.clock import SampleClock
from triax.raw import RawEncoder
from triax_sim import chips
from triax_sim.wiring import connect
from triax_sim.world import World

READ, TICK = 1, 2
DEVICE, BOOT = 0x8899AABBCCDDEEFF, 0xFEDCBA98


def noise(bits):
    """Full-scale counts from a generator without memory, so that any range of samples is the same however it is asked for."""
    half = 1 << bits - 1

    def source(first, count):
        i = np.arange(3 * first, 3 * (first + count), dtype=np.uint64)
        i = (i * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
        return (i % np.uint64(2 * half)).astype(np.int64).reshape(-1, 3).astype(np.int32) - half

    return source


class Tape:
    """Stands between a device and its virtual bus; `ticks_us` between a capture and its world."""

    def __init__(self, bus, world):
        self._bus = bus
        self._world = world
        self.records = bytearray()

    def _record(self, kind, data):
        self.records += struct.pack("<BH", kind, len(data)) + data

    def write_readinto(self, tx, rx):
        first = bytes(tx[:1])
        self._bus.write_readinto(tx, rx)
        self._record(READ, first + bytes(rx))

    def readfrom_mem_into(self, address, register, buffer):
        self._bus.readfrom_mem_into(address, register, buffer)
        self._record(READ, bytes((register,)) + bytes(buffer))

    def writeto_mem(self, address, register, buffer):
        self._bus.writeto_mem(address, register, buffer)
        self._record(READ, bytes((register,)) + bytes(buffer))

    def ticks_us(self):
        now = self._world.ticks_us()
        self._record(TICK, struct.pack("<I", now))
        return now


def part_class(name):
    module = importlib.import_module("triax.chips." + name)
    return next(c for c in vars(module).values() if isinstance(c, type) and getattr(c, "NAME", "") == name)


def record(name, bus_kind, limit, decimation, frames, seed=1, stalls=2):
    """Run a part until it has given `frames` frames; returns (tape bytes, list of frames and raw frames as emitted).

    Time, sequence and sample number pass `limit` within the run.
    """
    world = World(start_us=limit - 500_000)
    sequence, first_sample = (limit - frames // 2) % 2**32, limit - 5 * decimation * frames
    driver = part_class(name)
    twin = chips.load(name)(world, noise(driver.COUNT_BITS), ppm=4000.0)
    bus, device = connect(world, twin, bus_kind)
    tape = Tape(bus, world)
    setattr(device, "_spi" if bus_kind == "spi" else "_i2c", tape)
    device.every_length = False  # as on MicroPython
    part = driver(device)
    odr_hz = max(hz for hz in driver.ODRS_HZ if hz * (part.SET_BYTES + 1) * bus._byte_ns < 0.4e9)
    out = []

    def emit(buffer, length):
        out.append(bytes(buffer[:length]))

    clock = SampleClock(tape.ticks_us())
    numbers = {"sequence": sequence, "first_sample": first_sample}
    capture = Capture(part, clock, tape.ticks_us, DEVICE, BOOT, emit, lambda *_: None, **numbers)
    part.check()
    part.reset()
    capture.configure(3, driver.RANGES_G[-1], odr_hz, decimation)
    capture.start()
    fifo_us = 1e6 * part.FIFO_SETS / odr_hz
    rng = random.Random(seed)
    polls = 0
    raw_at = 40
    stalled = 0
    while len(out) < frames:
        stall = polls > 60 and stalled < stalls and polls % 30 == 0
        stalled += stall
        world.advance(int(fifo_us * (1.7 if stall else rng.uniform(0.02, 0.6))))
        if polls == raw_at:
            capture.start_raw(RawEncoder(DEVICE, BOOT, 64, driver.COUNT_BITS), 17, int(2000 * part.FIFO_SETS / odr_hz) + 1, emit)
        capture.poll(tape.ticks_us())
        polls += 1
    assert twin.refusals == []
    assert capture.overruns == stalls
    head = {
        "part": name,
        "bus": bus_kind,
        "range_g": part.range_g,
        "odr_hz": odr_hz,
        "decimation": decimation,
        "numbers": numbers,
        "device": DEVICE,
        "boot": BOOT,
        "polls": polls,
        "raw_at": raw_at,
        "raw_ms": int(2000 * part.FIFO_SETS / odr_hz) + 1,
        "count_bits": driver.COUNT_BITS,
        "output": sum(map(len, out)),
    }
    return json.dumps(head).encode() + b"\n" + bytes(tape.records), out
