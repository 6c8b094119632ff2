# Runs on MicroPython: a whole node, its part and its link in memory, in virtual time. Prints one line of JSON.
# Arguments: milliseconds of virtual time, 1: with the heap locked (no births, no reports). Default 60000 0.
import gc
import json
import sys

import micropython

gc.collect()
from triax import mqtt
from triax.channel import Channel
from triax.chips import LOSS_FLAG, TEMPERATURE_NONE
from triax.node import Node
from triax.spool import Memory, Spool

gc.collect()
_STEP_US = 9000
_ODR_HZ = 16000  # on 32 bits: bytecode only


class World:
    def __init__(self):
        self.us = (1 << 30) - 5000000  # ticks wrap five seconds later

    def ticks_us(self):
        return self.us & 0x3FFFFFFF

    def advance(self):
        if self.us > 0x3FFFFFFF - _STEP_US:  # without an int of 2^30, which 32 bits would allocate
            self.us -= 0x3FFFFFFF - _STEP_US
            self.us -= 1
        else:
            self.us += _STEP_US


class Part:
    NAME = "fake"
    FIFO_SETS = 320
    COUNT_BITS = 16
    RANGES_G = (2, 4)
    ODRS_HZ = (_ODR_HZ,)
    ODR_TOLERANCE_PPM = 50000
    LOSS_DETECTION = LOSS_FLAG
    LOSS_PERIOD = 0
    TEMPERATURE_CLASS = TEMPERATURE_NONE
    serial = b""
    gap = 0
    gap_modulo = -1
    delay_us = 0
    scale_g = 0.001
    clip_low = -32768
    clip_high = 32767

    def __init__(self, world):
        self._world = world
        self._last = world.ticks_us()
        self._rest = 0
        self._sets = 0

    def check(self):
        pass

    def reset(self):
        pass

    def validate(self, range_g, odr_hz, lowpass, highpass):
        pass

    def configure(self, range_g, odr_hz, lowpass=0, highpass=0):
        self.range_g = range_g
        self.odr_hz = odr_hz

    def settings(self):
        return None

    def start(self, watermark):
        self._last = self._world.ticks_us()
        self._rest = 0

    def stop(self):
        pass

    def level(self):
        now = self._world.ticks_us()
        us = (now - self._last) & 0x3FFFFFFF
        self._last = (now - us % 1000) & 0x3FFFFFFF
        self._rest += us // 1000 * _ODR_HZ
        self._sets = self._rest // 1000
        self._rest -= self._sets * 1000
        if self._sets > self.FIFO_SETS:
            self._sets = self.FIFO_SETS  # in real time only; what it loses is not the question here
        return self._sets

    def read_fifo(self, out):
        sets = self._sets  # of whatever `out` holds
        self._sets = 0
        return sets

    def temperature_mc(self):
        return -300000


class Clock:
    utc_error_us = 100

    def __init__(self, world):
        self.ticks_us = world.ticks_us

    def utc_us(self):
        return None


class Link:
    """Acknowledges at once: CONNACK, SUBACK, PUBACK. Frames of fixed length only are told apart from the rest."""

    blocks = False

    def __init__(self):
        self.buffer = bytearray(64)
        self._length = 0
        self.frames = 0

    def connect(self, host, port, tls):
        return False

    def send(self, buffer, count):
        if count > 450:
            count = 450  # a packet at most
        size = buffer[1] & 127
        head = 2
        if buffer[1] & 128:
            size |= buffer[2] << 7
            head = 3
        size += head
        if size > count:
            return 0
        kind = buffer[0] >> 4
        at = self._length
        if at > 48:
            return 0
        if kind == 1:
            self._answer(0x20, 2, 0, 0)
        elif kind == 3:
            id_at = head + 2 + (buffer[head] << 8 | buffer[head + 1])
            self._answer(0x40, 2, buffer[id_at], buffer[id_at + 1])
            if size > 300:
                self.frames += 1
        elif kind == 8:
            self._answer(0x90, 4, buffer[head], buffer[head + 1])
            self.buffer[at + 4] = self.buffer[at + 5] = 1
        elif kind == 12:
            self._answer(0xD0, 0, 0, 0)
        return size

    def _answer(self, kind, size, high, low):
        at = self._length
        answer = self.buffer
        answer[at] = kind
        answer[at + 1] = size
        answer[at + 2] = high
        answer[at + 3] = low
        self._length = at + 2 + size

    def readinto(self, buffer):
        count = self._length
        if not count:
            return None
        for i in range(count):
            buffer[i] = self.buffer[i]
        self._length = 0
        return count

    def close(self):
        self._length = 0


class Store:
    def __init__(self):
        self.data = {}

    def read(self, name):
        return self.data.get(name)

    def write(self, name, data):
        self.data[name] = bytes(data)


class Board:
    name = "unix"

    def free_heap(self):
        return gc.mem_free()

    def signal_dbm(self):
        return 0


def run(step, advance, steps):
    for _ in range(steps):
        step()
        advance()


def provisioned():
    from triax import boot  # the node forgets it

    store = Store()
    boot.seed(store, 1800000000)
    return store


def build(locked, slots=32):
    """(world, link, channel, node), measuring and connected."""
    world = World()
    store = provisioned()
    link = Link()
    settings = {"range_g": 2, "odr_hz": _ODR_HZ, "health_period_s": 80000 if locked else 10}
    channel = Channel(0x0011223344556677, Part(world), Spool(Memory(slots, 273)), settings)
    node = Node([channel], Clock(world), link, store, {"host": "x", "port": 1, "tls": False}, Board())
    node.start()
    run(node.step, world.advance, 400)
    return world, link, channel, node


def main(ms, locked, slots=32):
    world, link, channel, node = build(locked, slots)
    step = node.step  # a bound method is an allocation
    advance = world.advance
    steps = ms * 1000 // _STEP_US
    gc.threshold(-1)  # as triax.main once the node has started
    gc.collect()
    before = gc.mem_alloc()
    first = link.frames
    if locked:
        micropython.heap_lock()
        run(step, advance, steps)
        micropython.heap_unlock()
        peak = gc.mem_alloc()
        used = peak - before
    else:
        peak = before
        for _ in range(10):
            gc.collect()
            run(step, advance, steps // 10)
            peak = max(peak, gc.mem_alloc())
        gc.collect()
        used = gc.mem_alloc() - before
    told = {
        "frames": link.frames - first,
        "allocated": used,
        "live": before,
        "peak": peak,
        "dropped": channel.frames.spool.dropped,
        "depth": channel.frames.spool.depth,
        "gaps": channel.capture.gaps,
        "state": node.core.state == mqtt.UP,
        "reconnects": node.reconnects,
        "heap": gc.mem_alloc() + gc.mem_free(),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    try:
        arguments = [int(a) for a in sys.argv[1:3]]
    except (AttributeError, ValueError):
        arguments = []
    main(*(arguments if len(arguments) == 2 else (120000, 1)))
    try:
        open("/out.bin", "wb").close()
    except OSError:
        pass
