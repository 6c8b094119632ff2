"""The kernels for MicroPython's viper emitter: the same algorithms as kernels_plain, whose docstrings hold.

On 64-bit hosts `ptr32` loads are zero-extended and arithmetic does not wrap, on 32-bit ones it does; `(v ^ sign) - sign` with
sign = 2^31 makes a signed value of a load on both. It is built in two steps: constants above 0x3fffffff, also those that the
compiler folds, become objects on 32 bits. Indices into the state of `fold` are those of kernels_plain, written out: viper would
look the names up as objects.
"""

# ruff: noqa: F821 (viper's pointer types are no names of Python)

import micropython

from triax.kernels_data import CRC_HIGH, CRC_LOW

NAME = "viper"


@micropython.viper
def leading(buf: ptr8, at: int, sets: int, stride: int, mask: int, value: int) -> int:
    k = 0
    while k < sets:
        if int(buf[at]) & mask != value:
            return k
        at += stride
        k += 1
    return k


@micropython.viper
def leading_counted(buf: ptr8, at: int, sets: int, stride: int, value: int, counter: int) -> int:
    k = 0
    value <<= 2
    while k < sets:
        if int(buf[at]) >> 1 != value | (counter + k) & 3:
            return k
        at += stride
        k += 1
    return k


@micropython.viper
def take16(buf: ptr8, at: int, sets: int, stride: int, step: int, low: int, shift: int, counts: ptr32, to: int):
    i = int(buf) + at
    out = ptr32(int(counts) + 4 * to)
    high = 1 - low
    step2 = 2 * step
    while sets:
        lo = ptr8(i + low)
        hi = ptr8(i + high)
        out[0] = (((int(hi[0]) << 8 | int(lo[0])) ^ 0x8000) - 0x8000) >> shift
        out[1] = (((int(hi[step]) << 8 | int(lo[step])) ^ 0x8000) - 0x8000) >> shift
        out[2] = (((int(hi[step2]) << 8 | int(lo[step2])) ^ 0x8000) - 0x8000) >> shift
        i += stride
        out = ptr32(int(out) + 12)
        sets -= 1


@micropython.viper
def take20(buf: ptr8, at: int, sets: int, counts: ptr32, to: int):
    end = to + 3 * sets
    while to < end:
        counts[to] = ((int(buf[at]) << 12 | int(buf[at + 1]) << 4 | int(buf[at + 2]) >> 4) ^ 0x80000) - 0x80000
        at += 3
        to += 1


@micropython.viper
def fold(counts: ptr32, at: int, sets: int, state: ptr32, values: ptr32) -> int:
    sign = 1
    sign <<= 31
    decimation = int(state[0])
    length = int(state[1])
    left = (length - int(state[3])) * decimation - int(state[2])
    if sets > left:
        sets = left
    axis = 0
    while axis < 3:
        p = ptr32(int(counts) + 4 * (3 * at + axis))
        out = ptr32(int(values) + 4 * (axis * length + int(state[3])))
        window = decimation - int(state[2])
        total = (int(state[5 + axis]) ^ sign) - sign
        minimum = (int(state[8 + axis]) ^ sign) - sign
        maximum = (int(state[11 + axis]) ^ sign) - sign
        squares = ptr32(int(state) + 4 * (14 + 3 * axis))
        low = int(squares[0])
        high = int(squares[1])
        top = int(squares[2])
        left = sets
        while left:
            # Up to the end of the window, and at most 256 samples: each adds less than 2^21 to `low`, which must stay below 2^30.
            n = left
            if n > window:
                n = window
            if n > 256:
                n = 256
            left -= n
            window -= n
            while n:
                v = (int(p[0]) ^ sign) - sign
                p = ptr32(int(p) + 12)
                total += v
                if v < minimum:
                    minimum = v
                if v > maximum:
                    maximum = v
                a = v >> 10
                b = v & 1023
                cross = 2 * a * b
                low += ((cross & 1023) << 10) + b * b
                high += a * a + (cross >> 10)
                n -= 1
            high += low >> 20
            low &= 0xFFFFF
            top += high >> 20
            high &= 0xFFFFF
            if not window:
                out[0] = total
                out = ptr32(int(out) + 4)
                total = 0
                window = decimation
        state[5 + axis] = total
        state[8 + axis] = minimum
        state[11 + axis] = maximum
        squares[0] = low
        squares[1] = high
        squares[2] = top
        axis += 1
    fill = int(state[2]) + sets
    state[3] = int(state[3]) + fill // decimation
    state[2] = fill % decimation
    state[4] = int(state[4]) + sets
    return sets


@micropython.viper
def put32(buf: ptr8, at: int, value: int):
    buf[at] = value
    buf[at + 1] = value >> 8
    buf[at + 2] = value >> 16
    buf[at + 3] = value >> 24


@micropython.viper
def put_squares(buf: ptr8, at: int, state: ptr32, axis: int):
    low = int(state[14 + 3 * axis])
    high = int(state[15 + 3 * axis])
    top = int(state[16 + 3 * axis])
    buf[at] = low
    buf[at + 1] = low >> 8
    buf[at + 2] = low >> 16 | (high & 15) << 4
    buf[at + 3] = high >> 4
    buf[at + 4] = high >> 12
    buf[at + 5] = top
    buf[at + 6] = top >> 8
    buf[at + 7] = top >> 16


@micropython.viper
def put_values(buf: ptr8, at: int, values: ptr32, first: int, count: int):
    while count:
        value = int(values[first])
        buf[at] = value
        buf[at + 1] = value >> 8
        buf[at + 2] = value >> 16
        buf[at + 3] = value >> 24
        at += 4
        first += 1
        count -= 1


@micropython.viper
def add(buf: ptr8, at: int, size: int, n: int):
    carry = 0
    end = at + size
    while at < end:
        carry += int(buf[at]) + (n & 255)
        buf[at] = carry
        carry >>= 8
        n >>= 8
        at += 1


@micropython.viper
def add_bytes(buf: ptr8, at: int, size: int, other: ptr8):
    carry = 0
    i = 0
    while i < size:
        carry += int(buf[at + i]) + int(other[i])
        buf[at + i] = carry
        carry >>= 8
        i += 1


@micropython.viper
def _crc32(buf: ptr8, start: int, end: int, out: ptr8, low_table: ptr16, high_table: ptr16):
    low = 0xFFFF
    high = 0xFFFF
    while start < end:
        k = (low ^ int(buf[start])) & 255
        low = (low >> 8 | (high & 255) << 8) ^ int(low_table[k])
        high = high >> 8 ^ int(high_table[k])
        start += 1
    low ^= 0xFFFF
    high ^= 0xFFFF
    out[0] = low
    out[1] = low >> 8
    out[2] = high
    out[3] = high >> 8


_crc = bytearray(4)


def crc32(buf, start: int, end: int, out, at: int) -> None:
    _crc32(buf, start, end, _crc, CRC_LOW, CRC_HIGH)
    out[at] = _crc[0]
    out[at + 1] = _crc[1]
    out[at + 2] = _crc[2]
    out[at + 3] = _crc[3]


@micropython.viper
def packed_size(counts: ptr32, axis: int, sets: int) -> int:
    sign = 1
    sign <<= 31
    size = 0
    last = 0
    k = axis
    end = 3 * sets
    while k < end:
        v = (int(counts[k]) ^ sign) - sign
        d = v - last
        last = v
        z = d << 1 ^ d >> 31
        size += 1
        while z > 127:
            size += 1
            z >>= 7
        k += 3
    return size


@micropython.viper
def pack(counts: ptr32, axis: int, sets: int, out: ptr8, at: int) -> int:
    sign = 1
    sign <<= 31
    last = 0
    k = axis
    end = 3 * sets
    while k < end:
        v = (int(counts[k]) ^ sign) - sign
        d = v - last
        last = v
        z = d << 1 ^ d >> 31
        while z > 127:
            out[at] = z & 127 | 128
            at += 1
            z >>= 7
        out[at] = z
        at += 1
        k += 3
    return at


@micropython.viper
def pattern(counts: ptr32, sets: int, phase: int):
    to = 0
    while sets:
        counts[to] = phase
        counts[to + 1] = 0 - phase
        if phase:
            counts[to + 2] = 0
        else:
            counts[to + 2] = 1000
        to += 3
        phase += 1
        if phase == 1000:
            phase = 0
        sets -= 1


@micropython.viper
def muldiv(a: int, b: int, c: int) -> int:
    whole = a // c * b
    a %= c
    quotient = 0
    rest = 0
    bit = 29
    while bit >= 0:
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
        bit -= 1
    return whole + quotient


@micropython.viper
def move(into: ptr8, at: int, source: ptr8, start: int, count: int):  # see triax.move
    end = at + count
    while at < end:
        into[at] = source[start]
        at += 1
        start += 1
