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


@pytest.mark.parametrize(
    ("name", "change", "wanted", "reason"),
    [
        ("adxl345", {"SELF_TEST_G": (2.0, 2.0, 2.7)}, FAIL, "y answers 2000 mg"),  # the wrong way
        ("adxl345", {"SELF_TEST_G": (2.0, -5.0, 2.7)}, FAIL, "y answers -5000 mg"),
        ("mpu6050", {"SELF_TEST_G": (0.48977, 0.57815, 0.6)}, FAIL, "z answers 600 mg"),  # 15 % below its code
        ("mpu6050", {"SELF_TEST_G": (0.42124, 0.65905, 0.70551)}, PASS, ""),  # 14 % below and above
        ("mpu6050", {"planted": {0x10: 0x00, 0x0E: 0x07}}, INCONCLUSIVE, "no factory trim in the part: codes 12, 0, 20"),
        ("mpu6050", {"planted": {0x75: 0x70}}, INCONCLUSIVE, "limits are known for id 0x68, this is 0x70"),
        ("icm42688p", {"SELF_TEST_G": (0.48256, 0.67, 0.58299)}, FAIL, "y answers 669 mg"),  # half above its code
        ("icm42688p", {"planted": {0x23C: 0}}, PASS, ""),  # one axis without a code: 50 to 1200 mg for all
        ("icm42688p", {"planted": {0x23C: 0}, "SELF_TEST_G": (0.1, 0.7, -1.1)}, PASS, ""),
        ("icm42688p", {"planted": {0x23C: 0}, "SELF_TEST_G": (0.1, 0.7, 1.21)}, FAIL, "z answers 1210 mg"),
        ("adxl355", {"SELF_TEST_G": (0.3, 0.3, 0.3)}, FAIL, "z answers 300 mg"),
    ],
)
def test_self_tests_against_what_the_part_tells_of_itself(name, change, wanted, reason):
    rig = Rig(name, still)
    rig.capture.stop()
    for attribute, value in change.items():
        setattr(rig.twin, attribute, value)
    assert rig.part.self_test() == wanted, rig.part.self_test_reason
    assert rig.part.self_test_reason == reason
    assert rig.twin.refusals == []
    if wanted == INCONCLUSIVE:
        assert rig.part.self_test_high_mg == (0, 0, 0)
        assert min(rig.part.self_test_mg) > 0, "the response is told all the same"


def test_an_icm42688p_left_in_another_bank_recovers():
    rig = Rig("icm42688p", still)
    rig.twin.registers[0x76] = 2
    with pytest.raises(WrongPart):
        rig.part.check()
    assert not rig.part.recover()


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


@pytest.mark.parametrize(
    ("name", "settings", "delays_us"),
    [
        ("mpu6050", [(2, 1000, n) for n in (0, 11, 23, 48, 100, 200)], [2000, 3000, 4900, 8500, 13_800, 19_000]),
        ("adxl355", [(2, hz) for hz in (4000, 2000, 500, 3.90625)], [630, 1000, 3260, 384_310]),
        ("icm42688p", [(2, hz) for hz in (32_000, 1000, 500, 200, 12.5, 6.25)], [100, 2100, 4100, 5100, 5100, 0]),
        ("adxl380", [(4, 8000, n) for n in (0, 4, 8, 16)] + [(4, 16000)], [710, 695, 790, 1025, 0]),
        ("adxl382", [(15, 16000)], [0]),
        ("iis3dwb", [(2, 26_667)], [0]),
    ],
)
def test_the_delay_follows_filter_and_rate(name, settings, delays_us):
    rig = Rig(name, still)
    rig.capture.stop()
    delays = []
    for setting in settings:
        rig.part.configure(*setting)
        delays.append(rig.part.delay_us)
    assert delays == delays_us


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
