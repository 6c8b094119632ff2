"""What holds for every virtual part on its own: its oscillator, its account of samples, what it refuses."""

import pytest
from triax_sim import chips

from .twin_bench import START, Bench, started


def test_every_part_is_tested_here():
    assert sorted(START) == chips.names()


@pytest.mark.parametrize("name", chips.names())
@pytest.mark.parametrize("ppm", [-20_000.0, 0.0, 20_000.0])
def test_the_oscillator_keeps_its_own_rate(name, ppm):
    bench = started(name, ppm=ppm)
    begin = bench.part.epoch.start_us
    nominal = bench.part._rate_hz()
    bench.world.advance_to(begin + 100_000_000)
    bench.part.catch_up()
    assert bench.part.truth.made == pytest.approx(100 * nominal * (1 + ppm / 1e6), abs=1.0)


@pytest.mark.parametrize("name", chips.names())
def test_the_account_closes(name):
    """Made = stored and still there or read, plus what the truth says was lost."""
    bench = started(name)
    bench.wait(7)
    read = 0
    for stall in (3, 40, 900, 11):
        bench.wait(stall)
        whole = bench.part.fifo.level // bench.part._units_per_sample()
        bench.part._take(whole * bench.part._units_per_sample())
        read += whole
    truth = bench.part.truth
    left = -(-bench.part.fifo.level // bench.part._units_per_sample())
    parts = read + truth.lost + left
    # A set cut in two by an overwriting part is lost once, though one of its halves may still be there.
    assert abs(truth.made - parts) <= (1 if name in ("adxl382", "adxl380", "mpu6050") else 0)
    assert truth.overwritten > 0


@pytest.mark.parametrize("name", chips.names())
def test_reserved_registers_and_bits_are_refused(name):
    bench = Bench(name)
    if name == "mpu6050":
        bench.write((0x6B, 0x00))
    for address, mask in bench.part.WRITABLE.items():
        if mask != 0xFF and address < 0x80:
            assert bench.refused(address, ~mask & 0xFF), f"0x{address:02x}"
    identity = next(iter(bench.part.IDENTITY))
    assert bench.refused(identity, 0x55)


@pytest.mark.parametrize(
    ("name", "writes"),
    [
        (
            "adxl382",
            [(0x26, 0xCC), (0x26, 0x05), (0x26, 0x1C), (0x27, 0x50), (0x49, 0xC0), (0x50, 0x10), (0x50, 0x07), (0x30, 0x30)],
        ),
        ("adxl382", [(0x26, 0x0C)]),  # no channel on
        ("iis3dwb", [(0x10, 0x20), (0x09, 0x05), (0x0A, 0x02), (0x0A, 0x10), (0x14, 0x03), (0x15, 0x01)]),
        ("adxl355", [(0x28, 0x0B), (0x28, 0x70), (0x29, 97), (0x2C, 0x80), (0x2B, 0x01)]),
        ("adxl345", [(0x38, 0xC0), (0x2D, 0x04)]),
        ("mpu6050", [(0x1C, 0x18), (0x6B, 0x20)]),  # asleep; cycle mode
        ("icm42688p", [(0x4C, 0x00), (0x4E, 0x01), (0x50, 0x86), (0x50, 0x00), (0x5F, 0x11), (0x65, 0x04), (0x76, 0x05)]),
        ("lis3dh", [(0x20, 0xA7), (0x20, 0x87), (0x20, 0x11), (0x23, 0x40), (0x23, 0x06), (0x2E, 0xC0)]),
        ("lis2dw12", [(0x20, 0xA4), (0x20, 0x98), (0x22, 0xC0), (0x2E, 0x60)]),
    ],
)
def test_values_that_do_not_exist_are_refused(name, writes):
    bench = Bench(name)
    for register, value in writes:
        assert bench.refused(register, value), f"0x{value:02x} to 0x{register:02x}"


@pytest.mark.parametrize(
    ("name", "writes"),
    [
        ("adxl382", [(0x27, 0x08), (0x26, 0x4C), (0x50, 0x70), (0x31, 3), (0x30, 0x60), (0x49, 0x80)]),
        ("adxl355", [(0x28, 1), (0x2C, 0x82), (0x29, 3), (0x1E, 1)]),
        ("adxl345", [(0x2C, 0x0A), (0x31, 0x00)]),
        ("icm42688p", [(0x5F, 0x03), (0x4C, 0x70), (0x52, 0x41)]),
    ],
)
def test_configuration_while_measuring_is_refused(name, writes):
    bench = started(name)
    bench.world.advance(30_000)
    for register, value in writes:
        assert bench.refused(register, value), f"0x{value:02x} to 0x{register:02x}"


def test_nothing_is_written_while_a_part_resets():
    bench = Bench("adxl382")
    bench.write((0x2A, 0x52))
    assert bench.read(0x00) == b"\x00"
    assert bench.refused(0x50, 0x70)
    bench.world.advance(500)
    assert bench.read(0x00) == b"\xad"
    assert not bench.refused(0x50, 0x70)
