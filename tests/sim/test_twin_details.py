"""Virtual parts one by one: flags, formats, traps and quirks that the data sheets and drivers' authors tell of."""

import numpy as np
import pytest

from .twin_bench import START, Bench, started


def test_adxl382_flags():
    bench = started("adxl382")
    assert bench.read(0x11) == b"\x80"
    bench.wait(10)
    assert bench.read(0x11)[0] & 0x1E == 0x18  # ready, watermark
    assert bench.read(0x1E, 2) == bytes([30, 0])  # low byte first
    bench.wait(100)
    assert bench.read(0x1E, 2) == bytes([320 - 256, 1])
    assert bench.read(0x11)[0] & 0x1E == 0x1E
    assert bench.read(0x11)[0] & 0x04 == 0, "the overrun flag is read once"
    bench.write((0x26, 0x00))
    bench.write((0x30, 0x00))
    assert bench.read(0x1E, 2) == b"\x00\x00"


def test_adxl382_overwrites_single_entries_so_that_the_oldest_is_a_y():
    bench = Bench("adxl382")
    bench.write((0x27, 0x78), (0x30, 0x60), (0x26, 0x0C))
    bench.wait(200)
    entries = bench.read(0x1D, 9)
    assert [entries[0], entries[3], entries[6]] == [1, 2, 0]


def test_adxl382_keep_oldest_mode_stops():
    bench = Bench("adxl382")
    bench.write((0x27, 0x78), (0x30, 0x10), (0x26, 0x0C))
    bench.wait(150)
    first = np.frombuffer(bench.read(0x1D, 6 * 106), ">i2").reshape(-1, 3)
    assert first[:, 0].tolist() == list(range(106))
    assert bench.part.truth.refused == 150 - 106


def test_adxl382_temperature_rides_in_the_fifo():
    bench = Bench("adxl382")
    bench.part.temperature_c = 35.0
    bench.write((0x27, 0xF8), (0x30, 0x60), (0x26, 0x0C))
    bench.wait(2)
    entries = np.frombuffer(bench.read(0x1D, 24), dtype=np.uint8).reshape(8, 3)
    assert entries[:, 0].tolist() == [0, 1, 2, 3] * 2
    assert (int(entries[3, 1]) << 8 | int(entries[3, 2])) >> 4 == 570 + 102
    assert bench.read(0x1B, 2) == bytes(entries[3, 1:])


def test_adxl382_misaligned_pointer_quirk():
    bench = Bench("adxl382")
    bench.part.quirks["misalign_every"] = 2
    bench.write((0x27, 0x78), (0x30, 0x60), (0x26, 0x0C))
    tags = []
    for _ in range(3):
        bench.wait(5)
        tags.append(bench.read(0x1D, 9)[::3])
    assert tags == [b"\x00\x01\x02", b"\x00\x01\x02", b"\x01\x02\x00"]
    assert bench.part.truth.dropped == 1


def test_adxl382_sample_lost_in_a_transaction_quirk():
    bench = started("adxl382")
    bench.part.quirks["lose_in_transaction"] = 1
    bench.wait(20)
    bench.read(0x1D, 120)  # 121 us at 62.5 us a sample
    dropped = bench.part.truth.dropped
    assert dropped in (1, 2)
    bench.wait(3)
    rows = np.frombuffer(bench.read(0x1D, 18), ">i2").reshape(-1, 3)
    assert rows[0, 0] == 20 + dropped


def test_iis3dwb_words_and_flags():
    bench = started("iis3dwb")
    bench.wait(40)
    assert bench.read(0x3A, 2) == bytes([40, 0x80])
    words = bench.read(0x78, 14)
    assert [words[0] >> 3, words[7] >> 3] == [2, 2]
    # A burst that ends inside a word leaves it in the FIFO.
    bench.read(0x78, 10)
    assert bench.part.fifo.level == 37
    bench.wait(600)
    assert bench.read(0x3A, 2) == bytes([0, 2 | 0x80 | 0x40 | 0x20 | 0x08])
    assert bench.read(0x3B)[0] & 0x08 == 0, "the latch is read once"


def test_iis3dwb_mixes_in_times_and_temperatures():
    bench = Bench("iis3dwb", ppm=1500.0)
    bench.part.temperature_c = 30.0
    bench.write((0x09, 0x0A), (0x0A, 0x80 | 0x30 | 0x06), (0x19, 0x20), (0x10, 0xA4))
    bench.wait(300)
    level = bench.part.level
    words = np.frombuffer(bench.read(0x78, 7 * level), dtype=np.uint8).reshape(-1, 7)
    sensors = words[:, 0] >> 3
    assert (sensors == 2).sum() == 300
    assert (sensors == 3).sum() == 2
    assert (sensors == 4).sum() == 38
    assert int.from_bytes(words[sensors == 3][0, 1:3].tobytes(), "little") == 5 * 256
    stamps = [int.from_bytes(word[1:5].tobytes(), "little") for word in words[sensors == 4]]
    # Eight samples of 37.5 us on a clock of 25 us, both with the same error: 12 counts.
    assert set(np.diff(stamps)) == {12}
    assert bench.read(0x63)[0] == 1
    bench.write((0x42, 0xAA))
    assert int.from_bytes(bench.read(0x40, 4), "little") <= 1
    assert bench.part.refusals == []


def test_iis3dwb_stops_at_the_watermark_and_the_cycle_quirk():
    bench = Bench("iis3dwb")
    bench.part.quirks["lose_at_cycle"] = 3
    bench.write((0x07, 50), (0x08, 0x80), (0x09, 0x0A), (0x0A, 0x01), (0x10, 0xA4))
    bench.wait(80)
    assert bench.part.level == 50
    assert np.frombuffer(bench.read(0x78, 7)[1:3], "<i2")[0] == 3
    assert bench.part.truth.dropped == 3
    assert bench.part.truth.refused == 27


def test_iis3dwb_offset_registers_act_if_asked():
    bench = Bench("iis3dwb", source=lambda first, count: np.zeros((count, 3), dtype=np.int32))
    bench.write((0x73, 0x7F), (0x74, 0x80), (0x16, 0x02), (0x10, 0xA0))
    bench.wait(1)
    x, y, z = np.frombuffer(bench.read(0x28, 6), "<i2")
    assert (x, y, z) == (round(127 / 1024 / 61e-6), -round(128 / 1024 / 61e-6), 0)


def test_adxl355_marks_x_and_emptiness():
    bench = started("adxl355")
    bench.wait(2)
    entries = bench.read(0x11, 21)
    assert [entry & 3 for entry in entries[2::3]] == [1, 0, 0, 1, 0, 0, 2]
    assert bench.read(0x05) == b"\x00"
    bench.wait(12)
    assert bench.read(0x04)[0] & 0x07 == 0x03  # ready; FIFO_FULL is the watermark
    bench.wait(40)
    assert bench.read(0x04)[0] & 0x04
    assert bench.read(0x04)[0] & 0x04 == 0


def test_adxl355_reset_that_fails_shows_in_the_shadow_registers():
    bench = Bench("adxl355")
    good = bench.read(0x50, 5)
    bench.part.quirks["bad_resets"] = 1
    for same in (False, True):
        bench.write((0x2F, 0x52))
        bench.world.advance(1000)
        assert (bench.read(0x50, 5) == good) is same


def test_adxl345_needs_five_microseconds_between_sets():
    bench = Bench("adxl345")
    bench.write((0x2C, 0x0D), (0x31, 0x0B), (0x38, 0x90), (0x2D, 0x08))
    bench.wait(10)
    one, two = bench.read(0x32, 6), bench.read(0x32, 6)
    assert one == two, "read again before the FIFO could move"
    bench.world.advance(4)
    assert bench.read(0x32, 6) != one
    count = bench.read(0x39)[0]
    bench.world.advance(5)
    assert bench.read(0x39)[0] == count - 1 == 8
    assert bench.read(0x32)[:1] + bench.read(0x33)[:1] == bench.read(0x32, 2)
    assert bench.read(0x39)[0] == 8, "a read that stops before DATAZ1 takes nothing"


@pytest.mark.parametrize(
    ("format_", "factor", "low", "high"), [(0x08, 2, -512, 510), (0x0B, 1, -4096, 4094), (0x0F, 1, -32768, 32752)]
)
def test_adxl345_formats(format_, factor, low, high):
    lowest = Bench("adxl345", source=lambda first, count: np.full((count, 3), -(512 << (format_ & 3)), dtype=np.int32))
    highest = Bench("adxl345", source=lambda first, count: np.full((count, 3), (512 << (format_ & 3)) - 1, dtype=np.int32))
    for bench, code in ((lowest, low), (highest, high)):
        bench.write((0x2C, 0x0F), (0x31, format_), (0x38, 0x80), (0x2D, 0x08))
        bench.wait(1)
        assert set(np.frombuffer(bench.read(0x32, 6), "<i2")) == {code}
        assert bench.part.refusals == []


def test_adxl345_self_test_bit_may_change_while_measuring():
    bench = started("adxl345", source=lambda first, count: np.zeros((count, 3), dtype=np.int32))
    bench.wait(2)
    bench.write((0x31, 0x8B))
    bench.wait(2)
    rows = [np.frombuffer(bench.read(0x32, 6), "<i2").tolist() for _ in range(4) if bench.world.advance(5)]
    assert rows[:2] == [[0, 0, 0]] * 2
    assert rows[2][0] > 100
    assert bench.part.refusals == []


def test_mpu6050_overflow_loses_alignment():
    bench = started("mpu6050")
    bench.wait(300)
    assert bench.read(0x3A)[0] & 0x10
    assert bench.read(0x3A)[0] & 0x10 == 0
    assert bench.read(0x72, 2) == b"\x04\x00"
    assert bench.part.truth.overwritten == 300 - 170
    first = np.frombuffer(bench.read(0x74, 6), ">i2")
    assert not (np.diff(first) == 1000).all(), "1024 is no multiple of 6: the first bytes are the end of a set"
    bench.write((0x6A, 0x00))
    bench.write((0x6A, 0x04))
    assert bench.read(0x72, 2) == b"\x00\x00"
    assert bench.read(0x6A) == b"\x00"


def test_mpu6050_repeats_acceleration_above_one_kilohertz():
    bench = Bench("mpu6050")
    bench.write((0x6B, 0x01), (0x23, 0x88), (0x6A, 0x40))  # DLPF 0: 8 kHz, with temperature
    bench.wait(24)
    sets = np.frombuffer(bench.read(0x74, 8 * 24), ">i2").reshape(-1, 4)
    assert sets[:, 0].tolist() == [n // 8 for n in range(24)]
    assert set(sets[:, 3]) == {round((25 - 36.53) * 340)}


def test_icm42688p_packets_counts_and_lost_packets():
    bench = started("icm42688p")
    bench.wait(10)
    assert bench.read(0x2E, 2) == b"\x00\x00", "the first count after a reset is always 0"
    assert bench.read(0x2E, 2) == bytes([0, 80])
    packets = np.frombuffer(bench.read(0x30, 80), dtype=np.uint8).reshape(-1, 8)
    assert set(packets[:, 0]) == {0x40}
    assert bench.read(0x30, 8)[0] == 0x80, "empty"
    bench.wait(300)
    lost = bench.read(0x6C, 2)
    assert lost[0] | lost[1] << 8 == bench.part.truth.overwritten == pytest.approx(44, abs=2)


@pytest.mark.parametrize(("config", "size", "head"), [(0x03, 16, 0x60), (0x0B, 16, 0x68), (0x1B, 20, 0x78)])
def test_icm42688p_both_sensors(config, size, head):
    bench = Bench("icm42688p")
    bench.write((0x5F, config), (0x50, 0x06), (0x16, 0x40), (0x4E, 0x0F))
    bench.wait(3)
    bench.read(0x2E, 2)
    assert bench.read(0x2E, 2)[1] == 3 * size
    packets = np.frombuffer(bench.read(0x30, 3 * size), dtype=np.uint8).reshape(3, size)
    assert set(packets[:, 0]) == {head}
    if size == 20:
        x = packets[:, 1].astype(int) << 12 | packets[:, 2].astype(int) << 4 | packets[:, 17] >> 4
        assert x.tolist() == [0, 4, 8]
        assert np.diff(packets[:, 15].astype(int) << 8 | packets[:, 16]).tolist() == [1000, 1000]


def test_icm42688p_rules():
    bench = started("icm42688p")
    assert bench.refused(0x65, 0x02), "within 200 us of PWR_MGMT0"
    bench.world.advance(20_000)
    bench.write((0x65, 0x04))
    assert bench.refused(0x60, 32), "watermark with its interrupt on"
    assert bench.part.int1() == 1, "INT_ASYNC_RESET holds the pin at rest, which is high"
    bench.write((0x64, 0x00))
    assert bench.part.int1() == 0
    assert not bench.refused(0x50, 0x06), "the rate may change while running"
    bench.cs(0)
    bench.bus.write(bytes([0x13, 0x01, 0x02]))  # a burst write
    bench.cs(1)
    assert bench.part.registers[0x13] == 1
    assert len(bench.part.refusals) == 1
    bench.write((0x76, 2))
    assert bench.read(0x03) == b"\x30"


def test_lis3dh_full_fifo_shows_31_and_the_overrun_bit():
    bench = started("lis3dh")
    bench.wait(31)
    assert bench.read(0x2F)[0] & 0x5F == 31
    bench.wait(1)
    assert bench.read(0x2F)[0] & 0x5F == 0x40 | 31
    rows = np.frombuffer(bench.read(0x28, 48), "<i2").reshape(-1, 3) >> 4
    assert rows[:, 0].tolist() == list(range(8))


def test_lis3dh_modes_of_resolution():
    for power, control, shift, mg in ((0x97, 0x08, 4, 1), (0x97, 0x00, 6, 4), (0x9F, 0x00, 8, 16), (0x97, 0x38, 4, 12)):
        bench = Bench("lis3dh", source=lambda first, count: np.full((count, 3), 3, dtype=np.int32))
        bench.write((0x23, control), (0x20, power))
        bench.wait(1)
        assert np.frombuffer(bench.read(0x28, 6), "<i2")[0] == 3 << shift
        assert bench.part._lsb_per_g() == pytest.approx(1000 / mg)
        assert bench.part._rate_hz() == (5376.0 if power & 8 else 1344.0)


@pytest.mark.parametrize("name", ["lis3dh", "lis2dw12"])
def test_lis_fifo_mode_stops_until_it_goes_through_bypass(name):
    bench = Bench(name)
    mode = 0x40 if name == "lis3dh" else 0x20
    bench.write(*[(r, mode if r == 0x2E else v) for r, v in START[name]])
    bench.wait(50)
    bench.read(0x28, 60)
    bench.wait(50)
    assert bench.part.fifo.level == 22
    bench.write((0x2E, 0x00))
    bench.write((0x2E, mode))
    bench.wait(10)
    assert bench.part.level == 10


def test_lis2dw12_pins_need_interrupts_enabled():
    bench = started("lis2dw12")
    bench.write((0x23, 0x02))
    bench.wait(16)
    assert bench.read(0x2F) == bytes([0x80 | 16])
    assert bench.part.int1() == 0
    bench.write((0x3F, 0x20))
    assert bench.part.int1() == 1
    bench.wait(40)
    assert bench.read(0x2F) == bytes([0xC0 | 32])


def test_twelve_and_fourteen_bits_of_the_lis2dw12():
    for control, shift, mg in ((0x94, 2, 0.244), (0x50, 4, 0.976)):
        bench = Bench("lis2dw12", source=lambda first, count: np.full((count, 3), -3, dtype=np.int32))
        bench.write((0x20, control))
        bench.wait(1)
        assert np.frombuffer(bench.read(0x28, 6), "<i2")[0] == -3 << shift
        assert bench.part._lsb_per_g() == pytest.approx(1000 / mg)
