"""The kernels in plain Python: the definition that the viper and numpy twins must match bit for bit.

32-bit rule: a small int of a 32-bit MicroPython is 31 bits wide, a larger one is allocated. So no intermediate leaves [-2^30, 2^30)
for counts of at most 20 bits; what is wider (64-bit counters and times, CRC, sums of squares) lives in buffers, in pieces.

Buffers: `buf` bytes as they came from the bus, `counts` array("i") of x, y, z interleaved, wire integers little-endian.
"""

from triax.kernels_data import (
    CRC_HIGH,
    CRC_LOW,
    DECIMATION,
    DONE,
    FILL,
    MAXIMUM,
    MINIMUM,
    SAMPLES,
    SQUARES,
    SUM,
    VALUES,
)

NAME = "plain"


def leading(buf, at: int, sets: int, stride: int, mask: int, value: int) -> int:
    """How many of `sets`, from the first on, have a byte at `at` + k * `stride` that is `value` under `mask`."""
    for k in range(sets):
        if buf[at] & mask != value:
            return k
        at += stride
    return sets


def leading_counted(buf, at: int, sets: int, stride: int, value: int, counter: int) -> int:
    """As `leading` for tags of value << 3 | counter << 1 | parity, with a counter of two bits that goes up by one a set."""
    for k in range(sets):
        if buf[at] >> 1 != value << 2 | counter + k & 3:
            return k
        at += stride
    return sets


def take16(buf, at: int, sets: int, stride: int, step: int, low: int, shift: int, counts, to: int) -> None:
    """Signed 16-bit values at `at`, `at` + `step`, `at` + 2 * `step` of each set into `counts` from index `to` on.

    `low`: where in a value its low byte is (0: little endian, 1: big endian). `shift`: how far left the part justifies its counts.
    """
    high = 1 - low
    for _ in range(sets):
        for axis in range(3):
            i = at + axis * step
            counts[to + axis] = (((buf[i + high] << 8 | buf[i + low]) ^ 0x8000) - 0x8000) >> shift
        at += stride
        to += 3


def take20(buf, at: int, sets: int, counts, to: int) -> None:
    """Signed 20-bit values, big endian, left justified in three bytes, nine bytes a set, into `counts` from index `to` on."""
    for _ in range(3 * sets):
        counts[to] = ((buf[at] << 12 | buf[at + 1] << 4 | buf[at + 2] >> 4) ^ 0x80000) - 0x80000
        at += 3
        to += 1


def fold(counts, at: int, sets: int, state, values) -> int:
    """Add `sets` sets of `counts`, from set `at` on, to the frame in `state`; stop when the frame is full.

    Whole windows go to `values`: x from index 0, y from state[VALUES], z from 2 * state[VALUES]. Returns the sets taken.

    A square is split at 2^20 so that it fits: with v = 1024 a + b, v^2 = 2^20 (a^2 + (2ab >> 10)) + (((2ab & 1023) << 10) + b^2).
    """
    decimation = state[DECIMATION]
    length = state[VALUES]
    left = (length - state[DONE]) * decimation - state[FILL]
    if sets > left:
        sets = left
    for axis in range(3):
        i = 3 * at + axis
        fill = state[FILL]
        to = axis * length + state[DONE]
        total = state[SUM + axis]
        minimum = state[MINIMUM + axis]
        maximum = state[MAXIMUM + axis]
        low = state[SQUARES + 3 * axis]
        high = state[SQUARES + 3 * axis + 1]
        top = state[SQUARES + 3 * axis + 2]
        for _ in range(sets):
            v = counts[i]
            i += 3
            total += v
            if v < minimum:
                minimum = v
            if v > maximum:
                maximum = v
            a = v >> 10
            b = v & 1023
            cross = 2 * a * b
            low += ((cross & 1023) << 10) + b * b
            high += a * a + (cross >> 10) + (low >> 20)
            low &= 0xFFFFF
            top += high >> 20
            high &= 0xFFFFF
            fill += 1
            if fill == decimation:
                values[to] = total
                to += 1
                total = 0
                fill = 0
        state[SUM + axis] = total
        state[MINIMUM + axis] = minimum
        state[MAXIMUM + axis] = maximum
        state[SQUARES + 3 * axis] = low
        state[SQUARES + 3 * axis + 1] = high
        state[SQUARES + 3 * axis + 2] = top
    fill = state[FILL] + sets
    state[DONE] += fill // decimation
    state[FILL] = fill % decimation
    state[SAMPLES] += sets
    return sets


def put32(buf, at: int, value: int) -> None:
    """`value` as four bytes, two's complement."""
    for i in range(at, at + 4):
        buf[i] = value & 255
        value >>= 8


def put_squares(buf, at: int, state, axis: int) -> None:
    """Sum of squares of `axis` out of the state of `fold`, as eight bytes."""
    low = state[SQUARES + 3 * axis]
    high = state[SQUARES + 3 * axis + 1]
    top = state[SQUARES + 3 * axis + 2]
    buf[at] = low & 255
    buf[at + 1] = low >> 8 & 255
    buf[at + 2] = low >> 16 | (high & 15) << 4
    buf[at + 3] = high >> 4 & 255
    buf[at + 4] = high >> 12
    buf[at + 5] = top & 255
    buf[at + 6] = top >> 8 & 255
    buf[at + 7] = top >> 16 & 255


def put_values(buf, at: int, values, first: int, count: int) -> None:
    """`count` of `values` from index `first` on, four bytes each."""
    for k in range(first, first + count):
        put32(buf, at, values[k])
        at += 4


def add(buf, at: int, size: int, n: int) -> None:
    """Add a small int to the integer of `size` bytes at `at`, wrapping."""
    carry = 0
    for i in range(at, at + size):
        carry += buf[i] + (n & 255)
        buf[i] = carry & 255
        carry >>= 8
        n >>= 8


def add_bytes(buf, at: int, size: int, other) -> None:
    """Add the integer of `size` bytes at the start of `other`, wrapping."""
    carry = 0
    for i in range(size):
        carry += buf[at + i] + other[i]
        buf[at + i] = carry & 255
        carry >>= 8


def crc32(buf, start: int, end: int, out, at: int) -> None:
    """zlib's CRC-32 of `buf[start:end]`, as four bytes at `at` of `out`."""
    low = 0xFFFF
    high = 0xFFFF
    for i in range(start, end):
        k = (low ^ buf[i]) & 255
        low = (low >> 8 | (high & 255) << 8) ^ CRC_LOW[k]
        high = high >> 8 ^ CRC_HIGH[k]
    low ^= 0xFFFF
    high ^= 0xFFFF
    out[at] = low & 255
    out[at + 1] = low >> 8
    out[at + 2] = high & 255
    out[at + 3] = high >> 8


def packed_size(counts, axis: int, sets: int) -> int:
    """Bytes that `pack` needs."""
    size = 0
    last = 0
    for k in range(axis, 3 * sets, 3):
        v = counts[k] - last
        last = counts[k]
        z = v << 1 ^ v >> 31
        size += 1
        while z > 127:
            size += 1
            z >>= 7
    return size


def pack(counts, axis: int, sets: int, out, at: int) -> int:
    """One axis as zig-zag varints: the first count as it is, then differences. Returns the index after the last byte."""
    last = 0
    for k in range(axis, 3 * sets, 3):
        v = counts[k] - last
        last = counts[k]
        z = v << 1 ^ v >> 31
        while z > 127:
            out[at] = z & 127 | 128
            at += 1
            z >>= 7
        out[at] = z
        at += 1
    return at


def pattern(counts, sets: int, phase: int) -> None:
    """Test pattern: with k = sample index mod 1000 (`phase`: that of the first), x = k, y = -k, z = 1000 at k = 0, else 0."""
    to = 0
    for _ in range(sets):
        counts[to] = phase
        counts[to + 1] = -phase
        counts[to + 2] = 0 if phase else 1000
        to += 3
        phase += 1
        if phase == 1000:
            phase = 0


def muldiv(a: int, b: int, c: int) -> int:
    """a * b // c for 0 <= a, b < 2^30, 0 < c < 2^29, result < 2^30: the product is never formed, it would not fit.

    b is read bit by bit from the top: quotient and remainder of (bits so far) * a / c are doubled, then a is added.
    """
    whole = a // c * b
    a %= c
    quotient = 0
    rest = 0
    for bit in range(29, -1, -1):
        quotient <<= 1
        rest <<= 1
        if rest >= c:
            rest -= c
            quotient += 1
        if b >> bit & 1:
            rest += a
            if rest >= c:
                rest -= c
                quotient += 1
    return whole + quotient
