"""Frames by the thousand: the same verdict as one by one, and FrameBatch records that any reader understands."""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from triax_backend import frame_rows as fr
from triax_backend import mqtt_wire as wire
from triax_proto import batch, frame, names
from triax_proto.errors import FrameError

from .wire_client import frames

DEVICES = [0x1000 + n for n in range(7)]


def _mixed(count, seed=1):
    """`count` frames (count, 273) of several devices."""
    rng = np.random.default_rng(seed)
    return np.concatenate([frames(int(rng.choice(DEVICES)), n, 1) for n in range(count)])


def _device(row):
    return int(frame.decode(np.ascontiguousarray(row))["device"][0])


def _stream(rows, qos=1, first_id=1):
    return b"".join(
        wire.write_publish(names.mqtt_topic(_device(row), "frame"), row.tobytes(), qos=qos, packet_id=first_id + n)
        for n, row in enumerate(rows)
    )


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("count", [1, 5, 33, 500])
def test_a_stretch_of_frames_is_cut_whole(qos, count):
    sent = _mixed(count)
    data = _stream(sent, qos)
    for tail in (b"", data[:100], wire.pingresp):
        packets, found = fr.cut_rows(np.frombuffer(data + tail, np.uint8), 0)
        assert (len(packets), found) == (count, qos)
        rows = fr.to_rows(packets, found)
        assert (rows.frames == sent).all()
        assert rows.packet_ids.tolist() == ([0] * count if qos == 0 else list(range(1, count + 1)))
        assert [bytes(text).decode() for text in rows.texts] == [f"{_device(row):016x}" for row in sent]


def test_repeated_and_retained_flags_do_not_matter():
    data = bytearray(_stream(_mixed(3)))
    data[0] |= 8
    data[311] |= 9
    assert len(fr.cut_rows(np.frombuffer(data, np.uint8), 0)[0]) == 3


@pytest.mark.parametrize("at", [0, 1, 40, 200])
def test_a_stretch_ends_before_anything_else(at):
    sent = _mixed(200)
    data = (
        _stream(sent[:at])
        + wire.write_publish("triax/v1/0000000000001000/info", bytes(278), qos=1, packet_id=9)
        + _stream(sent[at:])
    )
    packets, _ = fr.cut_rows(np.frombuffer(data, np.uint8), 0)
    assert len(packets) == at


def test_rows_become_records_in_order_by_partition():
    sent = _mixed(300)
    partitions = fr.Partitioner(16)(sent)
    assert partitions.tolist() == [names.partition(_device(row), 16) for row in sent]
    out = fr.by_partition(fr.to_records(sent), partitions)
    for number, value, count in out:
        want = [row.tobytes() for row, its in zip(sent, partitions, strict=True) if its == number]
        assert batch.split(value) == want
        assert count == len(want)
    assert sum(count for *_, count in out) == 300


def test_large_groups_stay_below_kafkas_record_limit():
    sent = np.repeat(frames(DEVICES[0], 0, 1), 4_100, axis=0)
    out = fr.by_partition(fr.to_records(sent), np.full(4_100, 3, np.uint32))
    assert [count for *_, count in out] == [2_000, 2_000, 100]
    assert max(len(value) for _, value, _ in out) < 600_000


def _verdict(row, text):
    """The slow way, one frame at a time."""
    try:
        one = frame.parse(row.tobytes())
    except FrameError as error:
        return "checksum" if "checksum" in str(error) else "not a frame"
    return None if f"{int(one['device'][0]):016x}" == text else "topic of another device"


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 70),
    st.lists(st.tuples(st.integers(0, 69), st.integers(0, 272), st.integers(1, 255)), max_size=4),
    st.lists(st.integers(0, 69), max_size=2),
)
def test_the_verdict_is_that_of_each_frame_alone(count, flips, liars):
    sent = _mixed(count)
    texts = fr.device_texts(sent).copy()
    for index in liars:
        if index < count:
            texts[index] = np.frombuffer(b"00000000000000ff", np.uint8)
    records = fr.to_records(sent)
    for index, byte, change in flips:
        if index < count:
            records[index, 3 + byte] ^= change
    good, causes = fr.prove(records, texts)
    for index in range(count):
        want = _verdict(records[index, 3:], bytes(texts[index]).decode())
        got = causes.get(index)
        assert (got is None) == (want is None) == bool(good[index])
        # A wrong tag is called a wrong checksum by the parser that does not insist on the layout.
        assert got == want or {got, want} == {"not a frame", "checksum"}


def test_two_errors_that_cancel_in_a_plain_sum_do_not_here():
    records = fr.to_records(_mixed(64))
    records[10, 100] ^= 0x10
    records[11, 100] ^= 0x10
    assert fr.prove(records, fr.device_texts(records[:, 3:]))[1] == {10: "checksum", 11: "checksum"}


@pytest.mark.parametrize("count", [0, 1, 2, 3, 127, 128, 129])
def test_one_checksum_over_all_rows_follows_from_theirs(count):
    records = fr.to_records(_mixed(count) if count else np.empty((0, 273), np.uint8))
    good, causes = fr.prove(records, fr.device_texts(records[:, 3:]))
    assert good.all()
    assert not causes
    if count:
        stored = np.ascontiguousarray(records[:, 4:8]).view("<u4").ravel()
        assert fr._expected_crc(stored) == zlib.crc32(records.tobytes())


def test_a_frame_of_another_shape():
    odd = frame.empty(1, 3)
    odd["device"], odd["sequence"] = 5, 1
    data = frame.encode(odd)[0].tobytes()
    assert fr.odd_frame_cause(data, 5) is None
    assert fr.odd_frame_cause(data, 6) == "topic of another device"
    assert fr.odd_frame_cause(data[:-1] + b"\x01", 5) == "checksum"
    assert fr.odd_frame_cause(data[:20], 5) == "not a frame"
