# Runs on MicroPython: a tape of tests/device/tape.py through the node's own path, with the heap locked from start to stop.
# Arguments: tape, file for the frames (default /tape.bin, /out.bin). Prints one line of JSON.
import gc
import json
import sys

import micropython
from triax import kernels
from triax.bus import I2cDevice, SpiDevice
from triax.capture import Capture
from triax.clock import SampleClock
from triax.raw import RawEncoder

_wrong = RuntimeError("the node does something else than on the tape")


class Replay:
    """The bus and the ticks of a tape."""

    def __init__(self, data, at):
        self.data = data
        self.at = at

    def _next(self, kind):
        data = self.data
        at = self.at
        if data[at] != kind:
            raise _wrong
        self.at = at + 3 + (data[at + 1] | data[at + 2] << 8)
        return at + 3

    def write_readinto(self, tx, rx):
        at = self._next(1)
        data = self.data
        if tx[0] != data[at] or self.at - at - 1 != len(rx):
            raise _wrong
        at += 1
        for i in range(len(rx)):
            rx[i] = data[at]
            at += 1

    def readfrom_mem_into(self, address, register, buffer):
        at = self._next(1)
        data = self.data
        if register != data[at] or self.at - at - 1 != len(buffer):
            raise _wrong
        at += 1
        for i in range(len(buffer)):
            buffer[i] = data[at]
            at += 1

    def writeto_mem(self, address, register, buffer):
        at = self._next(1)
        data = self.data
        if register != data[at] or buffer[0] != data[at + 1]:
            raise _wrong

    def ticks_us(self):
        at = self._next(2)
        data = self.data
        return data[at] | data[at + 1] << 8 | data[at + 2] << 16 | data[at + 3] << 24


class Output:
    """Frames, one after the other."""

    def __init__(self, size):
        self.data = bytearray(size)
        self.at = 0
        self.gaps = 0

    def emit(self, buffer, length):
        data = self.data
        at = self.at
        for i in range(length):
            data[at] = buffer[i]
            at += 1
        self.at = at

    def on_gap(self, first_sample, length, bound, cause):
        self.gaps += 1


def nothing(value):
    pass


def main(tape_path, out_path):
    with open(tape_path, "rb") as file:
        data = file.read()
    end = data.find(b"\n")
    head = json.loads(data[:end])
    replay = Replay(data, end + 1)
    device = SpiDevice(replay, nothing, nothing) if head["bus"] == "spi" else I2cDevice(replay, 0, nothing)
    name = head["part"]
    module = __import__("triax.chips." + name, None, None, ("x",))
    part = getattr(module, name[0].upper() + name[1:])(device)
    out = Output(head["output"] + 4096)
    emit = out.emit
    ticks_us = replay.ticks_us
    clock = SampleClock(ticks_us())
    capture = Capture(part, clock, ticks_us, head["device"], head["boot"], emit, out.on_gap, **head["numbers"])
    part.check()
    part.reset()
    capture.configure(3, head["range_g"], head["odr_hz"], head["decimation"])
    capture.start()
    raw = RawEncoder(head["device"], head["boot"], 64, head["count_bits"])
    polls = head["polls"]
    raw_at = head["raw_at"]
    raw_ms = head["raw_ms"]
    gc.collect()
    before = gc.mem_alloc()
    micropython.heap_lock()
    for poll in range(polls):
        if poll == raw_at:
            micropython.heap_unlock()  # a command: it may allocate
            capture.start_raw(raw, 17, raw_ms, emit)
            gc.collect()
            before = gc.mem_alloc()
            micropython.heap_lock()
        capture.poll(ticks_us())
    micropython.heap_unlock()
    used = gc.mem_alloc() - before
    with open(out_path, "wb") as file:
        file.write(memoryview(out.data)[: out.at])
    small = (1 << 30) == 1 << 30 and sys.maxsize < 1 << 32
    print(json.dumps({"kernels": kernels.NAME, "allocated": used, "bits": 32 if small else 64, "bytes": out.at, "gaps": out.gaps}))


main(*(sys.argv[1:3] if len(sys.argv) > 2 else ("/tape.bin", "/out.bin")))
