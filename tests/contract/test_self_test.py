"""The self-test of every part: a good one, a defective one, a shaken one, and a bus that fails in the midst of it."""

import numpy as np
from triax.chips import FAIL, INCONCLUSIVE, PASS
from triax.errors import NotTaken, WrongPart

from .conftest import Constant


class Shaken:
    """0.8 g at a frequency that is no part of any rate."""

    def begin(self, first, start_us, rate_hz, lsb_per_g, low, high):
        self.size = 0.8 * lsb_per_g

    def __call__(self, first, count):
        swing = self.size * np.sin(0.37 * np.arange(first, first + count))
        return np.repeat(swing.astype(np.int32)[:, None], 3, 1)


def standing(make_rig, source=None, share=1.0, slow=False):
    """A configured part, at its highest rate or its lowest, and its registers. Its self-test moves it by a share of the good."""
    rig = make_rig(source or Constant())
    deflection_g = rig.twin.SELF_TEST_G
    rig.twin.SELF_TEST_G = share * deflection_g if isinstance(deflection_g, float) else tuple(share * g for g in deflection_g)
    rig.part.check()
    rig.part.reset()
    rig.part.configure(rig.driver.RANGES_G[0], rig.driver.ODRS_HZ[0 if slow else -1])
    return rig, bytes(rig.twin.registers)


def test_a_good_part_passes_and_is_as_before(make_rig):
    rig, before = standing(make_rig, slow=True)
    assert rig.part.self_test() == PASS, rig.part.self_test_reason
    assert bytes(rig.twin.registers) == before
    assert rig.twin.refusals == []
    part = rig.part
    for response, low, high in zip(part.self_test_mg, part.self_test_low_mg, part.self_test_high_mg, strict=True):
        assert low <= (response if part.SELF_TEST_SIGNED else abs(response)) <= high
        assert low < high
    assert part.self_test_reason == ""
    part.start(4)
    assert part.level() == 0, "what the self-test measured is in the FIFO"
    rig.first_sample()
    rig.wait_sets(5)
    assert len(rig.read()) >= 5
    assert rig.gaps == []


def test_a_defective_part_fails_and_is_as_before(make_rig):
    rig, before = standing(make_rig, share=0.05)
    assert rig.part.self_test() == FAIL
    assert rig.part.self_test_reason.startswith("x answers")
    assert bytes(rig.twin.registers) == before
    assert rig.twin.refusals == []


def test_a_shaken_part_cannot_be_judged(make_rig):
    rig, before = standing(make_rig, Shaken())
    assert rig.part.self_test() == INCONCLUSIVE
    assert rig.part.self_test_reason.startswith("vibration")
    assert bytes(rig.twin.registers) == before
    assert rig.twin.refusals == []


def test_a_bus_that_fails_in_the_midst_leaves_a_part_that_recovers(make_rig):
    """Each transfer in turn fails, until the self-test gets by without it."""
    transfers = 0
    while True:
        rig, before = standing(make_rig)
        check, left = rig.bus.faults.check, [transfers]

        def failing(check=check, left=left, rig=rig):
            rig.bus.faults.fail = left[0] == 0
            left[0] -= 1
            check()

        rig.bus.faults.check = failing
        try:
            rig.part.self_test()
        except (OSError, WrongPart, NotTaken):
            transfers += 1
        else:
            break
        rig.bus.faults.check = check
        rig.bus.faults.fail = 0
        rig.part.recover()
        assert bytes(rig.twin.registers) == before, f"transfer {transfers} failed"
        assert rig.part.self_test() == PASS
    assert transfers > 20
