"""Virtual time."""

import pytest
from triax_sim.world import TICKS_PERIOD, World


def test_time_moves_only_forwards():
    world = World()
    assert world.advance(5) == 5
    assert world.advance_to(3) == 5
    assert world.advance_to(9) == 9
    with pytest.raises(ValueError, match="1 us"):
        world.advance(-1)


def test_ticks_wrap_as_on_micropython():
    world = World(TICKS_PERIOD - 10)
    assert world.ticks_us() == TICKS_PERIOD - 10
    world.sleep_us(15)
    assert world.ticks_us() == 5
    assert world.now_us == TICKS_PERIOD + 5
    world.sleep_ms(2)
    assert world.ticks_ms() == (TICKS_PERIOD + 2005) // 1000


def test_fractions_of_a_microsecond_are_kept():
    world = World()
    for _ in range(1000):
        world.spend_ns(800)
    assert world.now_us == 800
    world.spend_ns(999)
    assert (world.now_us, world.now_ns) == (800, 800_999)
