"""One contract for every part: its driver against its twin. A part gets these tests by existing in both chips folders."""

import pkgutil

import numpy as np
import pytest
import triax.chips
from triax.chips import GAP_OVERRUN, NOT_MEASURED, TEMPERATURE_ABSOLUTE, TEMPERATURE_NONE
from triax.errors import BadSetting, NotTaken, WrongPart
from triax_sim import chips

from .conftest import Constant, Pattern, has_driver, pairs


def fifo_us(rig):
    return rig.part.FIFO_SETS * rig.period_us


def test_identity(rig):
    rig.part.check()
    assert rig.twin.refusals == []


def test_wrong_identity_is_named(rig):
    refused = 0
    for address, value in rig.twin.IDENTITY.items():
        rig.twin.planted = {address: value ^ 0xC0}
        try:
            rig.part.check()
        except WrongPart as error:
            refused += rig.part.NAME in str(error)
    assert refused >= 1


@pytest.mark.parametrize("stuck", [0x00, 0xFF])
def test_stuck_bus_is_no_part(rig, stuck):
    rig.bus.faults.stuck = stuck
    with pytest.raises((WrongPart, OSError)):
        rig.part.check()


def test_reset_restores_every_register(rig):
    fresh = bytes(rig.twin.registers)
    rig.up()
    rig.part.stop()
    rig.part.reset()
    assert bytes(rig.twin.registers) == fresh
    assert not rig.twin.refusals


def test_every_range_and_rate(rig):
    rig.part.check()
    for range_g in rig.driver.RANGES_G:
        for odr_hz in rig.driver.ODRS_HZ:
            rig.part.reset()
            rig.part.configure(range_g, odr_hz)
            rig.part.start(1)
            assert rig.twin.epoch is not None, "the part does not measure"
            assert rig.source.rate_hz == pytest.approx(odr_hz, rel=1e-3)
            assert rig.source.lsb_per_g * rig.part.scale_g == pytest.approx(1.0, rel=5e-4)
            rig.first_sample()
            rig.wait_sets(3.5)
            rows = rig.read()
            assert len(rows) >= 4
            assert rig.source.number(rows).tolist() == list(range(rig.twin.epoch.first, rig.twin.epoch.first + len(rows)))
            rig.part.stop()
    assert rig.twin.refusals == []


def test_filters_are_taken(rig):
    for lowpass in rig.driver.LOWPASS:
        rig.part.configure(rig.driver.RANGES_G[0], rig.driver.ODRS_HZ[-1], lowpass=lowpass)
    for highpass in rig.driver.HIGHPASS:
        rig.part.configure(rig.driver.RANGES_G[0], rig.driver.ODRS_HZ[-1], highpass=highpass)
    assert rig.twin.refusals == []


def test_settings_that_do_not_exist(rig):
    with pytest.raises(BadSetting):
        rig.part.configure(7777, rig.driver.ODRS_HZ[0])
    with pytest.raises(BadSetting):
        rig.part.configure(rig.driver.RANGES_G[0], 1.25)
    with pytest.raises(BadSetting):
        rig.part.start(10)
    rig.part.configure(rig.driver.RANGES_G[0], rig.driver.ODRS_HZ[-1])
    for watermark in (0, rig.driver.FIFO_SETS):
        with pytest.raises(BadSetting):
            rig.part.start(watermark)
    assert rig.twin.refusals == []


@pytest.mark.parametrize("which", ["low", "high"])
def test_saturation_reads_the_clip_codes(make_rig, which):
    for range_g in make_rig().driver.RANGES_G:
        rig = make_rig(Constant(which)).up(range_g)
        rig.first_sample()
        rig.wait_sets(4)
        rows = rig.read()
        assert len(rows) >= 4
        clip = rig.part.clip_low if which == "low" else rig.part.clip_high
        assert (rows == clip).all(), f"reads {rows[0]}, the driver says {clip} at {range_g} g"


def test_every_sample_across_the_wrap_for_any_burst(rig):
    """Five FIFOs full through bursts of random size: consecutive values, none lost, none twice."""
    rig.up()
    rng = np.random.default_rng(5)
    numbers = []
    while sum(map(len, numbers)) < 5 * rig.part.FIFO_SETS:
        rig.wait_sets(rng.integers(1, max(2, int(0.6 * rig.part.FIFO_SETS))))
        numbers.append(rig.source.number(rig.read()))
    numbers = np.concatenate(numbers)
    assert rig.gaps == []
    assert (np.diff(numbers) == 1).all()
    assert numbers[0] == rig.twin.epoch.first
    assert rig.twin.truth.overwritten == 0
    assert rig.twin.refusals == []


def test_stall_of_nine_tenths_loses_nothing(rig):
    rig.up()
    rig.first_sample()
    numbers = [rig.source.number(rig.drain())]
    for _ in range(4):
        rig.world.advance(int(0.9 * fifo_us(rig)))
        numbers.append(rig.source.number(rig.drain()))
    numbers = np.concatenate(numbers)
    assert rig.gaps == []
    assert (np.diff(numbers) == 1).all()


def test_a_full_fifo_has_lost_nothing(rig):
    """Read just in time, at the slowest rate so that nothing comes meanwhile. Some cannot know, and must say so."""
    rig.up(odr_hz=rig.driver.ODRS_HZ[0])
    first = rig.twin.epoch.first
    rig.world.advance_to(rig.twin.epoch.time_of(rig.part.FIFO_SETS))
    numbers = rig.source.number(rig.read())
    if rig.part.NAME in ("lis3dh", "icm42688p", "adxl380", "adxl382"):  # all they tell is "full", not whether more came
        assert [cause for _, cause, _ in rig.gaps] == [GAP_OVERRUN]
    elif rig.part.NAME == "mpu6050":  # so near to an overflow its driver starts the FIFO anew: sets would come out of step
        assert [cause for _, cause, _ in rig.gaps] == [GAP_OVERRUN]
        assert len(numbers) == 0
        return
    else:
        assert rig.gaps == []
    assert numbers.tolist() == list(range(first, first + len(numbers)))
    assert len(numbers) >= rig.part.FIFO_SETS


def test_overrun_is_told_and_what_follows_is_right(rig):
    rig.up()
    rig.first_sample()
    rig.wait_sets(3)
    before, known = rig.source.number(rig.read()), rig.twin.truth.lost
    rig.world.advance(int(2.3 * fifo_us(rig)))
    rows = rig.read()
    for _ in range(6):
        rig.wait_sets(0.4 * rig.part.FIFO_SETS)
        rows = np.concatenate([rows, rig.read()])
    assert [cause for _, cause, _ in rig.gaps if cause & GAP_OVERRUN]
    numbers = np.concatenate([before, rig.source.number(rows)])
    steps = np.diff(numbers)
    assert (steps >= 1).all(), "a sample came twice or out of order"
    assert (steps > 1).sum() <= len(rig.gaps), "a hole that the driver did not tell"
    lost = int((steps - 1).sum())
    assert lost == rig.twin.truth.lost - known
    if rig.driver.LOSS_PERIOD:
        holes = [m for _, _, m in rig.gaps if m >= 0]
        assert [int(s - 1) % rig.driver.LOSS_PERIOD for s in steps[steps > 1]] == holes


def test_watermark_pin_rises_at_the_watermark(rig):
    sets = rig.part.FIFO_SETS // 3
    rig.up(watermark=sets)
    when = rig.twin.watermark_us()
    if rig.part.NAME == "mpu6050":  # it has no watermark: the level must do
        assert when is None
        return
    pin = getattr(rig.twin, "int0", rig.twin.int1)
    idle = pin()
    rig.world.advance_to(when - int(rig.period_us))
    assert pin() == idle
    rig.world.advance_to(when)
    assert pin() != idle
    assert rig.part.level() >= sets
    assert len(rig.read()) >= sets
    assert pin() == idle


def test_stop_and_start_brings_only_new_samples(rig):
    rig.up()
    rig.first_sample()
    rig.wait_sets(5)
    rig.part.stop()
    made = rig.twin.truth.made
    rig.wait_sets(5)
    assert rig.part.level() == 0
    assert rig.twin.truth.made == made, "it goes on measuring"
    rig.part.start(4)
    rig.first_sample()
    rig.wait_sets(5)
    assert rig.source.number(rig.read())[0] >= made
    assert rig.twin.refusals == []


def test_a_stuck_bus_while_running_is_survived(rig):
    rig.up()
    rig.first_sample()
    for stuck in (0xFF, 0x00):
        rig.bus.faults.stuck = stuck
        for _ in range(3):
            rig.wait_sets(3)
            try:
                rows = rig.read()
            except OSError:
                continue
            assert len(rows) == 0, "samples out of a dead bus"
        rig.bus.faults.stuck = None
        rig.part.recover()
        rig.first_sample()
        rig.wait_sets(4)
        numbers = rig.source.number(rig.read())
        assert len(numbers) >= 4
        assert (np.diff(numbers) == 1).all()


def test_a_part_that_lost_its_configuration_gets_it_back(rig):
    rig.up()
    rig.first_sample()
    rig.twin.power_dip()
    rig.world.advance(rig.twin.DIP_US)
    assert rig.part.recover() is True
    rig.first_sample()
    rig.wait_sets(4)
    numbers = rig.source.number(rig.read())
    assert len(numbers) >= 4
    assert (np.diff(numbers) == 1).all()
    assert rig.part.recover() is False


def test_bit_errors_never_crash(rig):
    rig.up()
    rig.bus.faults.bit_error_rate = 2e-3
    got = 0
    for _ in range(60):
        rig.wait_sets(0.3 * rig.part.FIFO_SETS)
        try:
            got += len(rig.read())
        except OSError:
            try:
                rig.part.recover()
            except (OSError, WrongPart, NotTaken):
                continue
    assert rig.bus.faults.flipped > 0
    assert got > 0


def test_transfers_that_fail_are_reported_and_recovered(rig):
    rig.up()
    rig.first_sample()
    rig.wait_sets(5)
    rig.bus.faults.fail = 1
    with pytest.raises(OSError, match="5"):
        rig.read()
    rig.part.recover()
    rig.first_sample()
    rig.wait_sets(5)
    assert (np.diff(rig.source.number(rig.read())) == 1).all()


@pytest.mark.parametrize("celsius", [-20.0, 25.0, 61.0])
def test_temperature(rig, celsius):
    rig.twin.temperature_c = celsius
    rig.up()
    rig.first_sample()
    reading = rig.part.temperature_mc()
    if rig.driver.TEMPERATURE_CLASS == TEMPERATURE_NONE:
        assert reading == NOT_MEASURED
    elif reading != NOT_MEASURED:
        tolerance = 1000 if rig.driver.TEMPERATURE_CLASS == TEMPERATURE_ABSOLUTE else 2500
        assert abs(reading - 1000 * celsius) <= tolerance


def test_pattern_is_invertible():
    pattern = Pattern()
    pattern.begin(0, 0, 1.0, 1.0, -512, 511)
    assert pattern.number(pattern(123_000, 5)).tolist() == list(range(123_000, 123_005))


def test_every_driver_has_a_twin_and_every_twin_a_driver():
    drivers = {module.name for module in pkgutil.iter_modules(triax.chips.__path__) if has_driver(module.name)}
    assert drivers == set(chips.names())
    assert {name for name, _ in pairs()} == drivers
