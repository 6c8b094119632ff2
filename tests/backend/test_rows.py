"""Runs as COPY bytes and back: every frame is encoded again to its own bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from triax_backend.frames import flat, unpack
from triax_backend.sinks import rows, runs
from triax_proto import frame
from triax_proto.errors import FrameError

from .build import START_US, fleet_frames, odd_frame, random_frames, record, wire


def rows_of(records, doubtful=False):
    """Rows as the server gives them back: one chunk each, with the stream's head and end."""
    chunks = [rows.COPY_HEAD]
    received = np.array([r.received_us for r in records])
    for group in unpack(records).groups:
        placed = runs.place(group, received[group.record], np.full(len(group), doubtful))
        for piece, count in runs.copy_bytes(placed):
            data = bytes(piece)
            if group.original is None:
                size = len(data) // count
                chunks += [data[i * size : (i + 1) * size] for i in range(count)]
            else:
                chunks += list(_odd_rows(data, count, group))
    return [chunks[0] + chunks[1], *chunks[2:], rows.COPY_END] if len(chunks) > 1 else [chunks[0], rows.COPY_END]


def _odd_rows(data, count, group):
    size = len(rows.blank(1, 1, group.values).tobytes())
    for original in group.original:
        yield data[: size + len(original)]
        data = data[size + len(original) :]
    assert not data


def read_back(chunks):
    """[(wire bytes, run length)] of every frame."""
    out = []
    for found, originals, _ in rows.read(chunks):
        again = rows.reassemble(found)
        assert frame.checksums_ok(again).all() or originals
        length = int(found["frames"][0])
        out += [(one, length) for one in (originals or wire(again))]
    return out


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 25)), max_size=60, unique=True),
    st.sampled_from([0, 1, 3, 10]),
    st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_any_frames_come_back_to_the_byte(identities, values, seed):
    if not identities:
        assert read_back(rows_of([])) == []
        return
    devices, numbers = np.array(identities).T
    frames = random_frames(len(identities), values, seed, device=devices.astype(np.uint64), boot=1, sequence=numbers)
    back = read_back(rows_of([record(wire(frames))]))
    assert sorted(one for one, _ in back) == sorted(wire(frames))
    assert all(1 <= length <= rows.MOST_FRAMES for _, length in back)


def test_a_flush_of_a_fleet_is_one_row_a_device():
    frames = fleet_frames(30, 10, start_us=START_US - 1_000_000)
    chunks = rows_of([record(wire(frames[i : i + 50])) for i in range(0, 300, 50)])
    assert len(chunks) == 30 + 1
    found, originals, _ = next(rows.read(chunks))
    assert originals is None
    assert found["frames"].tolist() == [10] * 30
    assert (found["time"] + rows.EPOCH_US == START_US - 1_000_000).all()
    assert (found["time_end"] + rows.EPOCH_US == START_US).all(), "the last frame's 100 ms are in the range"
    assert (found["received"] + rows.EPOCH_US == START_US).all()
    assert found["own_clock"].all()
    assert sorted(wire(rows.reassemble(found))) == sorted(wire(frames))


def test_a_run_ends_where_numbers_or_boots_do_and_after_ten():
    numbers = np.array([0, 1, 2, 4, 5, *range(10, 23)])
    frames = random_frames(len(numbers), device=5, boot=1, sequence=numbers, time_us=START_US, time_error_us=0)
    other = random_frames(2, device=5, boot=2, sequence=[23, 24], time_us=START_US, time_error_us=0)
    lengths = sorted(length for _, length in read_back(rows_of([record(wire(frames) + wire(other))])))
    assert lengths == [2] * 2 + [2] * 2 + [3] * 3 + [3] * 3 + [10] * 10


def test_frames_of_another_shape_keep_their_bytes_alone_in_their_row():
    odd = [odd_frame(seed=s, device=9, boot=1, sequence=s) for s in range(3)]
    plain = wire(random_frames(4, device=9, boot=1, sequence=np.arange(3, 7), seed=3))
    back = read_back(rows_of([record([odd[0], *plain, odd[1], odd[2]])]))
    assert sorted(one for one, _ in back) == sorted(odd + plain)
    assert {one: length for one, length in back if one in odd} == dict.fromkeys(odd, 1)


def test_mixed_sizes_in_one_record():
    pieces = wire(random_frames(5, 10)) + wire(random_frames(2, 4, 1)) + wire(random_frames(1, 0, 2))
    assert sorted(one for one, _ in read_back(rows_of([record(pieces)]))) == sorted(pieces)


def test_what_cannot_be_read_is_told_apart_and_spoils_nothing():
    good = wire(random_frames(6))
    bad = bytearray(good[2])
    bad[100] ^= 1
    records = [record([*good[:2], bytes(bad), good[3], b"junk"]), record(good[4:]), record([])]
    records.append(records[0].__class__("t", 0, 9, 0, b"\xff\xff"))
    found = unpack(records)
    kept = [g.frames[i].tobytes() for g in found.groups for i in range(len(g))]
    assert sorted(kept) == sorted([*good[:2], *good[3:]])
    assert sorted((b.record, b.place, b.data) for b in found.bad) == [(0, 2, bytes(bad)), (0, 4, b"junk"), (3, -1, b"\xff\xff")]
    assert all(b.why for b in found.bad)


def test_arrival_order_across_shapes():
    pieces = [wire(random_frames(1, values, values, sequence=i))[0] for i, values in enumerate([10, 3, 10, 0, 3])]
    records = [record(pieces[:2], 3), record(pieces[2:], 4)]
    found = flat(unpack(records), records)
    assert found.sequence.tolist() == [0, 1, 2, 3, 4]
    assert found.partition.tolist() == [3, 3, 4, 4, 4]
    assert [found.wire(i) for i in range(5)] == pieces
    assert [found.record_of(i).partition for i in range(5)] == [3, 3, 4, 4, 4]


@pytest.mark.parametrize(
    ("late_us", "error_us", "own"),
    [
        (0, 1_000_000, True),
        (0, 1_000_001, False),
        (0, 0xFFFFFFFF, False),
        (30 * 86400 * 10**6, 0, True),
        (30 * 86400 * 10**6 + 1, 0, False),
        (-60_000_000, 0, True),
        (-60_000_001, 0, False),
    ],
)
def test_event_time_is_the_nodes_own_inside_its_bounds(late_us, error_us, own):
    time_us, mine = runs.event_time(np.array([START_US - late_us]), np.array([error_us], np.uint32), np.array([START_US]))
    assert (time_us[0], bool(mine[0])) == (START_US - late_us if own else START_US, own)


def test_the_codec_refuses_a_frame_cut_anywhere():
    one = wire(random_frames(1))[0]
    for cut in range(len(one)):
        with pytest.raises(FrameError):
            frame.parse(one[:cut])
