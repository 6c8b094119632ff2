"""Latest values and online keys on a real Valkey."""

import time

import pytest
from triax_backend import hops
from triax_backend.consume import Batch
from triax_backend.frames import Record
from triax_backend.sinks import redis as sink
from triax_proto import names
from triax_proto.v1.device_pb2 import Status

from .build import record, to_kafka, wire
from .sinks import Place

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


@pytest.fixture
def place(stack, tmp_path):
    own = Place(stack.settings, tmp_path)
    yield own
    own.close()


@pytest.fixture
def latest(place):
    found = sink.Latest(place.settings, online_s=30)
    yield found
    found.close()


def batch(*records):
    out = Batch(list(records))
    for one in records:
        part = one.topic, one.partition
        out.first.setdefault(part, one.offset)
        out.next[part] = one.offset + 1
    return out


def held(place):
    return {d: at for d, at in hops.redis(place.settings).items() if d >> 16 == place.device >> 16}


def test_only_forwards_by_boot_and_sequence(place, latest):
    def after(frames, offset):
        latest.write(batch(record(wire(frames), partition=40, offset=offset)))
        return held(place)[place.device]

    new, old = place.frames(1, 5, boot=2**31 + 7), place.frames(1, 20, boot=6)
    assert after(new[:3], 0) == (2**31 + 7, 2)
    assert after(old, 1) == (2**31 + 7, 2), "an earlier boot is older, whatever its number"
    assert after(new[1:2], 2) == (2**31 + 7, 2)
    assert after(new[::-1], 3) == (2**31 + 7, 4), "the newest of a flush, in any order"
    value = sink.latest(latest._client)[place.device]
    assert value[3] == wire(new)[4]
    assert latest.account.totals["out"] == latest.account.totals["in"] == 29


def test_only_the_newest_of_each_device_goes_out(place, latest, monkeypatch):
    calls = []
    forward = latest._forward
    monkeypatch.setattr(latest, "_forward", lambda keys, args: calls.append(len(args) // 2) or forward(keys=keys, args=args))
    latest.write(batch(record(wire(place.frames(30, 10)), partition=41)))
    assert calls == [30]


def test_offsets_are_where_reading_goes_on(place, latest):
    part = (names.FRAMES, 42)
    assert latest.start([part]) == {part: None}
    latest.write(batch(record(wire(place.frames(1, 1)), partition=42, offset=17)))
    assert latest.start([part]) == {part: 18}


def test_online_lives_as_long_as_it_was_said_and_a_late_will_is_not_believed(place, latest):
    key = f"{place.device:016x}/status".encode()

    def say(offset, ago_s=0.0, **status):
        received = int((time.time() - ago_s) * 1e6)
        latest.write(batch(Record(names.DEVICES, 43, offset, received, Status(**status).SerializeToString(), key)))
        return sink.online(latest._client).get(place.device)

    assert say(0, online=True, boot=5) == 5
    assert 0 < latest._client.ttl(f"triax:online:{place.device:016x}") <= 30
    assert say(1, online=True, boot=6) == 6
    assert say(2, online=False, boot=5) == 6, "the last will of the boot before"
    assert say(3, online=False, boot=6) is None
    assert say(4, online=True, boot=7, ago_s=31) is None, "read again a day later it is not news"


def test_what_cannot_be_read_is_counted_and_stops_nothing(place, latest):
    bad = Record(names.DEVICES, 44, 0, 0, b"\xff\xff", f"{place.device:016x}/status".encode())
    frames = record([*wire(place.frames(1, 2)), b"junk"], partition=44)
    latest.write(batch(bad, frames))
    totals = latest.account.totals
    assert (totals["in"], totals["out"], totals["dead"], latest.account.in_flight) == (4, 2, 2, 0)
    assert held(place)[place.device] == (7, 1)


def test_as_a_process(place):
    frames = place.frames(20, 10)
    process = place.run("redis", "--flush-s", "0.2")
    to_kafka(place.settings, frames)
    place.wait(lambda: set(held(place).values()) == {(7, 9)} and len(held(place)) == 20, "20 devices", alive=[process])
    assert place.stop(process) == 0
