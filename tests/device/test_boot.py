"""The start counter under power cuts at any byte, rot and erasure."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from triax import boot

NOW = 1_800_000_000


class PowerCut(BaseException):
    pass


class Store:
    """A store that is *not* atomic: a cut leaves the first bytes of what was written, then what stood there before, or nothing."""

    def __init__(self, data=None, budget=10**9, tail="old"):
        self.data = dict(data or {})
        self.budget = budget
        self.tail = tail

    def read(self, name):
        return self.data.get(name)

    def write(self, name, data):
        old = self.data.get(name, b"")
        if self.budget < len(data):
            cut = self.budget
            rest = {"old": old[cut:], "none": b"", "erased": b"\xff" * (len(data) - cut)}[self.tail]
            self.data[name] = data[:cut] + rest
            raise PowerCut
        self.budget -= len(data)
        self.data[name] = bytes(data)


def provisioned(counter=NOW):
    return Store({name: boot.slot(counter) for name in boot.SLOTS})


def test_each_start_is_larger():
    store = provisioned()
    assert [boot.start(store) for _ in range(5)] == [NOW + 1 + i for i in range(5)]


def test_without_a_slot_nothing_is_numbered_until_there_is_utc():
    store = Store()
    assert boot.start(store) == -1
    assert boot.seed(store, NOW) == NOW
    assert boot.start(store) == NOW + 1


@pytest.mark.parametrize("unix_s", [0, 946684800, boot.EARLIEST_SEED - 1, 2**32])
def test_a_clock_that_was_never_set_is_no_seed(unix_s):
    with pytest.raises(ValueError, match="set the clock"):
        boot.seed(Store(), unix_s)


def test_a_reflash_is_larger_than_all_starts_before():
    store = provisioned(NOW)
    for _ in range(1000):
        last = boot.start(store)
    assert last < NOW + 86400


@pytest.mark.parametrize("tail", ["old", "none", "erased"])
@pytest.mark.parametrize("seed", range(4))
def test_a_power_cut_at_any_byte_never_repeats_a_number_that_was_used(tail, seed):
    rng = random.Random(seed)
    store = provisioned()
    used = NOW
    for _ in range(1000):
        store = Store(store.data, budget=rng.randrange(40), tail=tail)
        try:
            number = boot.start(store)
        except PowerCut:
            continue
        assert number > used, "a number came back"
        used = number
    assert used > NOW + 50


@pytest.mark.parametrize("tail", ["old", "none", "erased"])
def test_a_power_cut_while_seeding(tail):
    for cut in range(24):
        store = Store(budget=cut, tail=tail)
        with pytest.raises(PowerCut):
            boot.seed(store, NOW)
        again = Store(store.data)
        number = boot.start(again)
        assert number in (-1, NOW + 1)
        if number == -1:
            assert boot.seed(again, NOW + 1) == NOW + 1


@pytest.mark.parametrize("rotten", boot.SLOTS)
def test_one_slot_may_rot_after_a_start(rotten):
    store = provisioned()
    used = boot.start(store)
    store.data[rotten] = b"\xff" * 12
    assert boot.start(store) > used


@settings(max_examples=200, deadline=None)
@given(st.none() | st.binary(max_size=20), st.none() | st.binary(max_size=20))
def test_fuzz_slots_of_any_content(first, second):
    store = Store({name: data for name, data in zip(boot.SLOTS, (first, second), strict=True) if data is not None})
    assert boot.start(store) == -1


def test_a_store_that_does_not_keep_what_is_written():
    store = provisioned()
    store.write = lambda name, data: None
    with pytest.raises(OSError, match="does not hold"):
        boot.start(store)


def test_the_last_number_is_not_wrapped():
    with pytest.raises(OSError, match="exhausted"):
        boot.start(provisioned(2**32 - 1))


@pytest.mark.parametrize("bit", range(96))
def test_every_bit_of_a_slot_counts(bit):
    data = bytearray(boot.slot(NOW))
    data[bit // 8] ^= 1 << bit % 8
    assert boot.read(bytes(data)) == -1
