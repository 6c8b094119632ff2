"""What single parts do beyond the contract that all share (tests/contract)."""

import os
import subprocess
import sys

import numpy as np
import pytest
from triax.chips import FAIL, INCONCLUSIVE, PASS
from triax.errors import NotTaken, WrongPart

from .rig import Rig, ramp


def still(first, count):
    return np.zeros((count, 3), np.int32)


def shaken(first, count):
    i = np.arange(first, first + count)
    return np.repeat((2000 * np.sin(i * 0.37)).astype(np.int32)[:, None], 3, 1)


@pytest.mark.parametrize("name", ["adxl380", "adxl382", "iis3dwb", "lis2dw12", "lis3dh"])
def test_self_test_passes_fails_or_does_not_know(name):
    for source, share, wanted in ((still, 1.0, PASS), (still, 0.1, FAIL), (shaken, 1.0, INCONCLUSIVE)):
        rig = Rig(name, source)
        rig.capture.stop()
        deflection = type(rig.twin).SELF_TEST_G
        rig.twin.SELF_TEST_G = share * deflection if isinstance(deflection, float) else tuple(share * g for g in deflection)
        before = bytes(rig.twin.registers)
        assert rig.part.self_test() == wanted
        assert bytes(rig.twin.registers) == before
        assert bool(rig.part.self_test_reason) == (wanted != PASS)
        if wanted == PASS:
            for axis in range(3):
                assert rig.part.self_test_low_mg[axis] <= rig.part.self_test_mg[axis] <= rig.part.self_test_high_mg[axis]
        assert rig.twin.refusals == []


@pytest.mark.parametrize(("name", "highpass"), [("adxl382", 405), ("iis3dwb", 10)])
def test_a_high_pass_does_not_undo_the_self_test(name, highpass):
    """The twins do not filter, so the register is looked at while the part is deflected."""
    rig = Rig(name, still)
    rig.capture.stop()
    part, settings = rig.part, rig.part.settings()
    part.configure(*settings[:2], 0, highpass)
    filters = {"adxl382": (0x50, 0x08), "iis3dwb": (0x17, 0x04)}[name]
    seen = []
    mean_mg = part._mean_mg
    part._mean_mg = lambda *lists: (seen.append(rig.twin.registers[filters[0]] & filters[1]), mean_mg(*lists))
    assert rig.twin.registers[filters[0]] & filters[1]
    assert part.self_test() == PASS
    assert seen == [0, 0]
    assert rig.twin.registers[filters[0]] & filters[1]


def test_the_delay_of_the_mpu6050_follows_its_filter():
    rig = Rig("mpu6050", still)
    rig.capture.stop()
    delays = []
    for lowpass in rig.part.LOWPASS:
        rig.part.configure(2, 1000, lowpass)
        delays.append(rig.part.delay_us)
    assert delays == [2000, 3000, 4900, 8500, 13_800, 19_000]


def test_adxl382_bursts_can_be_kept_below_a_sample_time():
    """18 tagged entries at 8 MHz take 55 us of the 62.5 us between samples (sensors.md 1.12 a)."""
    longest = []
    rig = Rig(burst_sets=6)
    spi = rig.bus.write_readinto

    def watched(tx, rx):
        longest.append(len(rx))
        spi(tx, rx)

    rig.bus.write_readinto = watched
    rig.run(0.2)
    rig.capture.stop()
    assert max(longest) == 1 + 6 * 9
    assert rig.holes() == rig.gaps == []


def test_iis3dwb_a_flipped_tag_costs_one_sample():
    rig = Rig("iis3dwb")
    rig.run(0.2)
    spi = rig.bus.write_readinto
    flips = []

    def flipping(tx, rx):
        spi(tx, rx)
        if tx[0] == 0xF8 and not flips and len(rx) > 100:
            rx[1 + 7 * 10] ^= 0x20
            flips.append(1)

    rig.bus.write_readinto = flipping
    rig.run(0.3)
    rig.capture.stop()
    assert [g[1:3] for g in rig.gaps] == [(1, 0)]
    for item in rig.frames:  # all else has its right number
        first, samples = int(item["first_sample"]), int(item["samples"])
        assert item["sum_squares"].tolist() == (ramp(first, samples).astype(np.int64) ** 2).sum(0).tolist()


def test_adxl355_a_reset_that_changes_the_shadow_is_tried_again_and_then_refused():
    rig = Rig("adxl355", odr_hz=4000)
    rig.capture.stop()
    read = rig.twin.read_register
    count = [0]

    def drifting(address):
        if address == 0x50:
            count[0] += 1
            return count[0] % 256
        return read(address)

    rig.twin.read_register = drifting
    with pytest.raises(NotTaken, match="shadow"):
        rig.part.reset()
    assert count[0] == 6


@pytest.mark.parametrize("identity", [0x70, 0x71, 0x73])
def test_mpu6050_kin_are_taken_and_bad_ones_refused(identity):
    rig = Rig("mpu6050", odr_hz=1000)
    rig.twin.planted = {0x75: identity}
    rig.part.check()
    rig.twin.planted = {0x75: 0x69}
    with pytest.raises(WrongPart, match="0x69"):
        rig.part.check()


@pytest.mark.parametrize("name", ["iis3dwb", "adxl382", "adxl355"])
def test_bit_errors_on_the_bus_never_shift_numbers_for_good(name):
    rig = Rig(name, odr_hz=4000 if name == "adxl355" else None, ppm=1500)
    rig.run(1)
    rig.bus.faults.bit_error_rate = 2e-5
    rig.run(2)
    rig.bus.faults.bit_error_rate = 0.0
    rig.run(0.5)
    for _ in range(4):
        rig.poll()
    made = rig.twin.truth.made
    rig.capture.stop()
    last = rig.frames[-1]
    assert rig.bus.faults.flipped > 5
    assert abs(int(last["first_sample"]) + int(last["samples"]) - made) <= 4 + len(rig.gaps)


def test_without_numpy_the_plain_kernels_give_the_same_frames():
    script = (
        "import sys\n"
        "if sys.argv[1] == 'plain': sys.modules['numpy'] = None\n"
        "from array import array\n"
        "from triax import kernels\n"
        "from triax.average import Average\n"
        "from triax.frame import FrameEncoder\n"
        "assert kernels.NAME == sys.argv[1]\n"
        "average, encoder = Average(7, 3, 16), FrameEncoder(1, 2, 3)\n"
        "counts = array('i', [(37 * i) % 65536 - 32768 for i in range(60)])\n"
        "average.fold(counts, 0, 20)\n"
        "print(bytes(encoder.buffer[: encoder.encode(average, 0, 0)]).hex())\n"
    )
    frames = [
        subprocess.run(
            [sys.executable, "-c", script, name], check=True, capture_output=True, text=True, env=dict(os.environ)
        ).stdout
        for name in ("plain", "numpy")
    ]
    assert frames[0] == frames[1] != ""


def test_adxl382_a_fifo_that_stays_broken_is_restarted():
    """Every tag is wrong for a while: the driver empties the FIFO at last, and what comes then is whole."""
    rig = Rig()
    rig.run(0.1)
    spi = rig.bus.write_readinto
    broken = [True]

    def spoiled(tx, rx):
        spi(tx, rx)
        if broken[0] and len(rx) > 9:
            rx[1::3] = b"\x07" * len(rx[1::3])

    rig.bus.write_readinto = spoiled
    starts = []
    run = rig.part._run
    rig.part._run = lambda watermark: (starts.append(watermark), run(watermark))
    rig.run(0.1)
    assert starts
    broken[0] = False
    sent = len(rig.sent)
    rig.run(0.3)
    assert len(rig.sent) > sent + 2
    assert sum(length for _, length in rig.holes()) == sum(length for _, length, _, _ in rig.gaps)
    assert rig.twin.refusals == []
