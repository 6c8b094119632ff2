"""The FIFO of ranges against a plain list of units."""

from hypothesis import given
from hypothesis import strategies as st
from triax_sim.fifo import Fifo


def units(ranges):
    return [(epoch, unit) for epoch, start, end in ranges for unit in range(start, end)]


@given(st.lists(st.tuples(st.sampled_from(["push", "hole", "pop", "clear"]), st.integers(0, 30)), max_size=60))
def test_it_is_a_list_of_units_with_an_end(steps):
    fifo, plain, at, epoch = Fifo(40), [], 0, 1
    for step, count in steps:
        if step == "push":
            fifo.push(epoch, at, at + count)
            plain += [(epoch, unit) for unit in range(at, at + count)]
            at += count
            gone = plain[: max(0, len(plain) - 40)]
            del plain[: len(gone)]
            assert units(fifo.trim()) == gone
        elif step == "hole":
            at += count
        elif step == "pop":
            assert units(fifo.pop(count)) == plain[:count]
            del plain[:count]
        else:
            assert units(fifo.clear()) == plain
            plain, at, epoch = [], 0, epoch + 1
        assert fifo.level == len(plain)
        assert units(fifo.ranges()) == plain
        assert units(fifo.head())[:1] == plain[:1]
