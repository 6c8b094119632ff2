# Runs on MicroPython (unix port): microseconds of the node's kernels, as JSON.
import gc
import json
import time
from array import array

from triax import frame, kernels, kernels_plain, kernels_viper
from triax.average import Average

SETS = 1600


def words():
    """IIS3DWB FIFO words with tags in order."""
    data = bytearray(7 * SETS)
    value = 1
    for k in range(SETS):
        data[7 * k] = 0x10 | (k & 3) << 1
        for i in range(1, 7):
            value = (value * 75 + 74) % 65537
            data[7 * k + i] = value & 255
    return data


def median_us(call, repeats):
    times = []
    for _ in range(repeats):
        start = time.ticks_us()
        call()
        times.append(time.ticks_diff(time.ticks_us(), start))
    times.sort()
    return times[len(times) // 2]


class Path:
    """FIFO bytes to frame bytes with one set of kernels: what capture does for 1,600 sets and a frame of ten values."""

    def __init__(self, chosen):
        self.kernels = chosen
        for name in ("fold", "put32", "put_values", "put_squares", "add", "crc32", "leading_counted", "take16"):
            setattr(kernels, name, getattr(chosen, name))
        self.data = words()
        self.counts = array("i", bytes(12 * SETS))
        self.average = Average(160, 10, 16)
        self.encoder = frame.FrameEncoder(0x1122334455667788, 9, 10)

    def take(self):
        good = kernels.leading_counted(self.data, 0, SETS, 7, 2, 0)
        kernels.take16(self.data, 1, good, 7, 2, 0, 0, self.counts, 0)

    def fold(self):
        self.average.clear()
        self.average.fold(self.counts, 0, SETS)

    def encode(self):
        self.encoder.encode(self.average, 0, 25000)

    def frame(self):
        self.take()
        self.fold()
        self.encode()
        self.encoder.next(SETS)


result = {}
seen = []
for name, chosen, repeats in (("viper", kernels_viper, 101), ("plain", kernels_plain, 11)):
    path = Path(chosen)
    path.frame()
    seen.append(bytes(path.encoder.buffer))
    gc.collect()
    before = gc.mem_alloc()
    for _ in range(100 if name == "viper" else 1):
        path.frame()
    used = gc.mem_alloc() - before
    if name == "viper":
        result["allocated"] = used
    for what in ("frame", "take", "fold", "encode"):
        result[what + "_" + name] = median_us(getattr(path, what), repeats)
assert seen[0] == seen[1]
print(json.dumps(result))
