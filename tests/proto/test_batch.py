"""FrameBatch: cut and joined without a parser, the same bytes as Google's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from triax_proto import batch, frame
from triax_proto.errors import FrameError, Malformed, Truncated
from triax_proto.v1.frame_pb2 import FrameBatch

FRAMES = st.lists(st.binary(max_size=400), max_size=20)


@given(FRAMES)
def test_join_and_split_agree_with_google(frames):
    data = batch.join(frames)
    assert data == FrameBatch(frames=frames).SerializeToString()
    assert batch.split(data) == frames


@given(FRAMES)
def test_every_truncation_is_found(frames):
    data = batch.join(frames)
    whole = {len(batch.join(frames[:n])) for n in range(len(frames) + 1)}
    for cut in range(len(data)):
        if cut not in whole:
            with pytest.raises(Truncated):
                batch.split(data[:cut])


@given(st.binary(max_size=300))
def test_garbage_never_hangs(data):
    try:
        frames = batch.split(data)
    except FrameError:
        return
    assert sum(map(len, frames)) <= len(data)


def test_another_field_is_malformed():
    with pytest.raises(Malformed, match="no tag"):
        batch.split(b"\x12\x01a")


@pytest.mark.parametrize("values", [0, 10, 40])
def test_uniform_records_are_one_view(values):
    wire = frame.encode(frame.empty(7, values))
    data = batch.join_array(wire)
    assert data == batch.join(row.tobytes() for row in wire)
    rows = batch.split_array(data, values)
    assert rows is not None
    assert np.array_equal(rows, wire)
    assert batch.split_array(data, values + 1) is None
    assert batch.split_array(data + b"\x0a\x00", values) is None
    assert batch.split_array(b"", values) is None
