"""The seen set against a naive one, its bounds, its stored form."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from triax_backend.dedup import RECENT, BadState, Seen, Verdict

NEW, DOUBTFUL, REPEAT, STALE, CONFLICT = Verdict


def judge(seen, frames, partition=0):
    """frames: (device, boot, sequence, checksum)"""
    d, b, s, c = np.array(frames, dtype=np.int64).reshape(-1, 4).T
    where = np.full(len(d), partition, np.int32)
    return seen.judge(where, d.astype(np.uint64), b.astype(np.uint32), s.astype(np.uint32), c.astype(np.uint32)).verdict.tolist()


class Naive:
    """Remembers every frame for ever."""

    def __init__(self):
        self.known, self.top = {}, {}

    def judge(self, frames):
        """(verdict, ...) that are right for each frame, in an order that sorts a flush by sequence, as the real one does."""
        out = [None] * len(frames)
        for i in sorted(range(len(frames)), key=lambda i: frames[i][:3]):
            device, boot, sequence, checksum = frames[i]
            key = (device, boot, sequence)
            if key not in self.known:
                self.known[key] = checksum
                self.top[key[:2]] = max(self.top.get(key[:2], 0), sequence + 1)
                out[i] = (NEW,)
            elif sequence < self.top[key[:2]] - RECENT:
                out[i] = (STALE,)
            else:
                out[i] = (REPEAT,) if self.known[key] == checksum else (CONFLICT,)
        return out


frame = st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 60), st.integers(0, 1))
flushes = st.lists(st.lists(frame, max_size=40), max_size=8)


@given(flushes, st.booleans())
@settings(max_examples=120, deadline=None)
def test_it_is_the_naive_set(flushes, stored):
    seen, naive = Seen(), Naive()
    for frames in flushes:
        got = judge(seen, frames)
        assert all(g in want for g, want in zip(got, naive.judge(frames), strict=True))
        if stored:
            again = Seen()
            again.load(0, seen.dump(0))
            seen = again
    for device, boot in naive.top:
        ranges = seen.ranges(device, boot)
        assert {n for a, b in ranges for n in range(a, b)} == {s for d, b, s in naive.known if (d, b) == (device, boot)}
        assert all(left[1] < right[0] for left, right in itertools.pairwise(ranges)), "touching ranges are one"


@given(flushes)
@settings(max_examples=100, deadline=None)
def test_bounded_memory_never_calls_a_new_frame_a_repeat(flushes):
    seen, naive = Seen(identities=2, ranges=3, evicted=3), Naive()
    for frames in flushes:
        for got, want in zip(judge(seen, frames), naive.judge(frames), strict=True):
            if want == (NEW,):
                assert got in (NEW, DOUBTFUL)
            else:  # what was seen is found, or marked where it may have been forgotten
                assert got != NEW
        again = Seen(identities=2, ranges=3, evicted=3)
        again.load(0, seen.dump(0))
        seen = again


def test_next_numbers_of_many_devices_take_the_fast_path(monkeypatch):
    seen = Seen()
    devices = np.random.default_rng(1).integers(0, 2**63, 500)
    flush = [(d, 7, s, s) for s in range(10) for d in devices]
    assert judge(seen, flush) == [NEW] * 5000
    monkeypatch.setattr(seen, "_one_by_one", lambda *a: pytest.fail("left numpy"))
    assert judge(seen, [(d, 7, s, s) for s in range(10, 20) for d in devices]) == [NEW] * 5000
    monkeypatch.undo()
    assert judge(seen, [(d, 7, s, s) for s in range(10, 20) for d in devices]) == [REPEAT] * 5000
    assert seen.ranges(int(devices[0]), 7) == [(0, 20)]


def test_old_is_not_a_repeat():
    seen = Seen()
    assert judge(seen, [(1, 5, 1000, 1)]) == [NEW]
    assert judge(seen, [(1, 5, 3, 1), (1, 4, 3, 1), (1, 5, 3, 1)]) == [NEW, NEW, STALE]


def test_conflict_is_told_from_a_repeat_and_not_remembered():
    seen = Seen()
    assert judge(seen, [(1, 5, 0, 10), (1, 5, 0, 11), (1, 5, 0, 10)]) == [NEW, CONFLICT, REPEAT]
    assert judge(seen, [(1, 5, 0, 11), (1, 5, 0, 10)]) == [CONFLICT, REPEAT]


def test_what_was_evicted_is_marked_and_what_comes_after_is_not():
    seen = Seen(identities=1)
    judge(seen, [(1, 5, s, s) for s in range(10)])
    judge(seen, [(2, 5, 0, 0)])  # pushes device 1 out
    assert len(seen) == 1
    assert judge(seen, [(1, 5, 9, 9), (1, 5, 10, 10)]) == [DOUBTFUL, NEW]
    assert judge(seen, [(1, 6, 0, 0)]) == [NEW], "a new boot was never seen"


def test_partitions_are_stored_and_dropped_one_by_one():
    seen = Seen()
    judge(seen, [(1, 1, 0, 0), (1, 1, 5, 5)], partition=3)
    judge(seen, [(2, 1, 0, 0)], partition=4)
    state = seen.dump(3)
    seen.drop(3)
    assert (seen.ranges(1, 1), seen.ranges(2, 1)) == ([], [(0, 1)])
    seen.load(3, state)
    assert seen.ranges(1, 1) == [(0, 1), (5, 6)]
    assert seen.dump(3) == state


def test_highest_numbers_and_identities():
    seen = Seen()
    top = 2**32 - 1
    ident = [(2**63 - 1, top, top - 1, top), (2**63 - 1, top, top, top)]
    assert judge(seen, ident) == [NEW, NEW]
    again = Seen()
    again.load(0, seen.dump(0))
    assert judge(again, ident) == [REPEAT, REPEAT]


def test_bad_state_is_refused_at_every_cut():
    seen = Seen()
    judge(seen, [(1, 1, 0, 0), (1, 1, 5, 5)])
    state = seen.dump(0)
    for cut in range(1, len(state)):
        with pytest.raises(BadState):
            Seen().load(0, state[:cut])
    with pytest.raises(BadState, match="too many"):
        Seen().load(0, state + b"x")
    with pytest.raises(BadState, match="version"):
        Seen().load(0, state[:4] + b"\x09" + state[5:])


def test_an_empty_flush_and_an_empty_state():
    seen = Seen()
    assert judge(seen, []) == []
    seen.load(0, b"")
    assert len(seen) == 0
