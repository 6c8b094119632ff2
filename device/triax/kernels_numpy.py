"""The kernels with numpy and zlib, for CPython: the same results as kernels_plain, whose docstrings hold."""

import zlib

import numpy as np

from triax.kernels_data import DECIMATION, DONE, FILL, MAXIMUM, MINIMUM, SAMPLES, SQUARES, SUM, VALUES
from triax.kernels_plain import put32 as put32
from triax.kernels_plain import put_squares as put_squares

NAME = "numpy"


def _matching(good) -> int:
    return len(good) if good.all() else int(good.argmin())


def leading(buf, at: int, sets: int, stride: int, mask: int, value: int) -> int:
    if sets <= 0:
        return 0
    tags = np.frombuffer(buf, np.uint8, (sets - 1) * stride + 1, at)[::stride]
    return _matching(tags & mask == value)


def leading_counted(buf, at: int, sets: int, stride: int, value: int, counter: int) -> int:
    if sets <= 0:
        return 0
    tags = np.frombuffer(buf, np.uint8, (sets - 1) * stride + 1, at)[::stride]
    return _matching(tags >> 1 == (value << 2 | (np.arange(counter, counter + sets) & 3)))


def take16(buf, at: int, sets: int, stride: int, step: int, low: int, shift: int, counts, to: int) -> None:
    if sets:
        # Strides of 3 or 7 bytes: numpy reads unaligned values of either byte order in place.
        kind = np.dtype(">i2" if low else "<i2")
        raw = np.ndarray((sets, 3), kind, buf, at, (stride, step))
        np.frombuffer(counts, np.int32)[to : to + 3 * sets] = (raw >> shift).ravel()


def take20(buf, at: int, sets: int, counts, to: int) -> None:
    raw = np.frombuffer(buf, np.uint8, 9 * sets, at).astype(np.int32).reshape(-1, 3)
    value = raw[:, 0] << 12 | raw[:, 1] << 4 | raw[:, 2] >> 4
    np.frombuffer(counts, np.int32)[to : to + 3 * sets] = (value ^ 0x80000) - 0x80000


def fold(counts, at: int, sets: int, state, values) -> int:
    decimation, length, fill, done = state[DECIMATION], state[VALUES], state[FILL], state[DONE]
    sets = min(sets, (length - done) * decimation - fill)
    if not sets:
        return 0
    block = np.frombuffer(counts, np.int32)[3 * at : 3 * (at + sets)].reshape(-1, 3)
    words = np.frombuffer(state, np.int32)
    low = words[MINIMUM : MINIMUM + 3]
    high = words[MAXIMUM : MAXIMUM + 3]
    np.minimum(low, block.min(axis=0), out=low)
    np.maximum(high, block.max(axis=0), out=high)
    wide = block.astype(np.int64)
    for axis, more in enumerate((wide * wide).sum(axis=0).tolist()):
        i = SQUARES + 3 * axis
        total = (state[i + 2] << 40 | state[i + 1] << 20 | state[i]) + more
        state[i], state[i + 1], state[i + 2] = total & 0xFFFFF, total >> 20 & 0xFFFFF, total >> 40
    sums = words[SUM : SUM + 3]
    first = min(sets, decimation - fill)
    sums += block[:first].sum(axis=0, dtype=np.int32)
    if fill + first == decimation:
        whole = (sets - first) // decimation
        out = np.frombuffer(values, np.int32).reshape(3, length)
        out[:, done] = sums
        if whole:
            windows = block[first : first + whole * decimation].reshape(whole, decimation, 3)
            out[:, done + 1 : done + 1 + whole] = windows.sum(axis=1, dtype=np.int32).T
        sums[:] = block[first + whole * decimation :].sum(axis=0, dtype=np.int32)
    fill += sets
    state[DONE] = done + fill // decimation
    state[FILL] = fill % decimation
    state[SAMPLES] += sets
    return sets


def put_values(buf, at: int, values, first: int, count: int) -> None:
    buf[at : at + 4 * count] = values[first : first + count].tobytes()


def add(buf, at: int, size: int, n: int) -> None:
    total = int.from_bytes(buf[at : at + size], "little") + n
    buf[at : at + size] = (total & (1 << 8 * size) - 1).to_bytes(size, "little")


def add_bytes(buf, at: int, size: int, other) -> None:
    add(buf, at, size, int.from_bytes(other[:size], "little"))


def crc32(buf, start: int, end: int, out, at: int) -> None:
    out[at : at + 4] = zlib.crc32(memoryview(buf)[start:end]).to_bytes(4, "little")


def _zigzag(counts, axis: int, sets: int):
    column = np.frombuffer(counts, np.int32)[axis : 3 * sets : 3]
    delta = np.diff(column, prepend=np.int32(0))
    return delta << 1 ^ delta >> 31


def _bytes_each(z):
    # Counts of 20 bits: differences of 21, zig-zag of 22: at most four bytes.
    return 1 + (z > 0x7F).astype(np.int64) + (z > 0x3FFF) + (z > 0x1FFFFF)


def packed_size(counts, axis: int, sets: int) -> int:
    return int(_bytes_each(_zigzag(counts, axis, sets)).sum())


def pack(counts, axis: int, sets: int, out, at: int) -> int:
    z = _zigzag(counts, axis, sets)
    sizes = _bytes_each(z)
    ends = at + np.cumsum(sizes)
    view = np.frombuffer(out, np.uint8)
    for i in range(4):
        have = sizes > i
        more = (sizes > i + 1)[have] * 128
        view[(ends - sizes + i)[have]] = (z[have] >> 7 * i) & 127 | more
    return int(ends[-1]) if sets else at


def pattern(counts, sets: int, phase: int) -> None:
    k = np.arange(phase, phase + sets, dtype=np.int32) % 1000
    view = np.frombuffer(counts, np.int32)[: 3 * sets].reshape(-1, 3)
    view[:, 0] = k
    view[:, 1] = -k
    view[:, 2] = np.where(k == 0, 1000, 0)


def muldiv(a: int, b: int, c: int) -> int:
    return a * b // c
