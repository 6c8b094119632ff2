"""The node's encoder gives the bytes of triax_proto.frame and of Google's protobuf."""

from array import array

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from triax import frame
from triax.average import Average
from triax.chips import NOT_MEASURED
from triax_proto import frame as wire
from triax_proto.v1 import frame_pb2


@st.composite
def frames(draw):
    decimation = draw(st.integers(1, 4))
    length = draw(st.sampled_from([1, 2, 10, 31, 32, 40]))
    sets = draw(st.integers(1, decimation * length))
    edges = st.one_of(st.integers(-32768, 32767), st.sampled_from([-32768, 32767]))
    counts = draw(st.lists(edges, min_size=3 * sets, max_size=3 * sets))
    scalars = {
        "device": draw(st.integers(0, 2**64 - 1)),
        "boot": draw(st.integers(0, 2**32 - 1)),
        "sequence": draw(st.integers(0, 2**32 - 1)),
        "first_sample": draw(st.integers(0, 2**64 - 1)),
        "time_us": draw(st.integers(-(2**63), 2**63 - 1)),
        "time_error_us": draw(st.integers(0, 2**32 - 1)),
        "rate_hz": draw(st.floats(width=32, allow_nan=False)),
        "scale_g": draw(st.floats(width=32, allow_nan=False)),
        "lost_samples": draw(st.integers(0, 2**32 - 1)),
        "config": draw(st.integers(0, 2**32 - 1)),
        "flags": draw(st.integers(0, 127)),
        "temperature_mc": draw(st.one_of(st.integers(-60000, 150000), st.just(NOT_MEASURED))),
    }
    return decimation, length, counts, scalars


def node_bytes(decimation, length, counts, scalars):
    encoder = frame.FrameEncoder(scalars["device"], scalars["boot"], length, scalars["sequence"], scalars["first_sample"])
    encoder.configure(scalars["config"], decimation, scalars["scale_g"])
    encoder.lost[:] = scalars["lost_samples"].to_bytes(4, "little")
    encoder.buffer[frame.TIME_US : frame.TIME_US + 8] = scalars["time_us"].to_bytes(8, "little", signed=True)
    encoder.buffer[frame.TIME_ERROR_US : frame.TIME_ERROR_US + 4] = scalars["time_error_us"].to_bytes(4, "little")
    encoder.buffer[frame.RATE_HZ : frame.RATE_HZ + 4] = np.float32(scalars["rate_hz"]).tobytes()
    average = Average(decimation, length, 16)
    average.fold(array("i", counts), 0, len(counts) // 3)
    return bytes(encoder.buffer[: encoder.encode(average, scalars["flags"], scalars["temperature_mc"])])


@given(frames())
@settings(deadline=None, max_examples=150)
def test_three_encoders_give_the_same_bytes(case):
    decimation, _, counts, scalars = case
    data = node_bytes(*case)
    sets = np.array(counts, np.int64).reshape(-1, 3)
    whole = len(sets) // decimation
    sums = sets[: whole * decimation].reshape(whole, decimation, 3).sum(axis=1)
    fields = dict(scalars, samples=len(sets), decimation=decimation)
    if fields["temperature_mc"] == NOT_MEASURED:
        fields["temperature_mc"] = wire.NO_TEMPERATURE
    fields |= {"minimum": sets.min(0), "maximum": sets.max(0), "sum_squares": (sets**2).sum(0)}
    if whole:
        fields |= {"x": sums[:, 0], "y": sums[:, 1], "z": sums[:, 2]}
    array_of_one = wire.empty(1, whole)
    message = frame_pb2.Frame()
    for name, value in fields.items():
        array_of_one[name] = value
        if isinstance(value, np.ndarray):
            getattr(message, name).extend(value.tolist())
        else:
            setattr(message, name, value)
    assert data == wire.encode(array_of_one).tobytes()
    message.checksum = int.from_bytes(data[1:5], "little")
    assert data == message.SerializeToString(deterministic=True)
    assert len(data) == frame.size(whole) == wire.wire_size(whole)


def test_ten_values_are_273_bytes():
    assert frame.size(10) == 273


@pytest.mark.parametrize("start", [2**30 - 2, 2**32 - 2, 2**64 - 3])
def test_counters_go_on_over_their_limits(start):
    encoder = frame.FrameEncoder(1, 2, 1, start % 2**32, start)
    encoder.lost[:] = (start % 2**32).to_bytes(4, "little")
    encoder.skip(5)
    for _ in range(3):
        encoder.next(1000)
    buf = encoder.buffer
    assert int.from_bytes(buf[frame.SEQUENCE : frame.SEQUENCE + 4], "little") == (start + 3) % 2**32
    assert int.from_bytes(buf[frame.FIRST_SAMPLE : frame.FIRST_SAMPLE + 8], "little") == (start + 3005) % 2**64
    assert int.from_bytes(encoder.lost, "little") == (start + 5) % 2**32
    assert buf[frame.SEQUENCE + 4] == 5 << 3 | 1  # the neighbour's tag
