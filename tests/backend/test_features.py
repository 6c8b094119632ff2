"""Features, events and device messages on a real PostgreSQL."""

import math
import time

import psycopg
import pytest
from triax_backend.consume import Batch
from triax_backend.frames import Record
from triax_backend.sinks.errors import Moved
from triax_backend.sinks.features import Features
from triax_proto import names
from triax_proto.v1.device_pb2 import ConfigAck, DeviceInfo, Status
from triax_proto.v1.event_pb2 import Event, Feature, FeatureBatch

from .build import raw_to_kafka
from .sinks import Place

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]
NOW_US = int(time.time() * 1e6)
TOP = 0xFFFF_FFFF_FFFF_0001  # a device that is negative in SQL


@pytest.fixture
def place(stack, tmp_path):
    own = Place(stack.settings, tmp_path)
    yield own
    own.close()


@pytest.fixture
def sink(place):
    found = Features(place.settings)
    yield found
    found.close()


@pytest.fixture
def database(place, sink):
    sink.start([])
    with psycopg.connect(place.settings.postgres, autocommit=True) as connection:
        yield connection


class Writer:
    """Feeds records to a sink with consecutive offsets."""

    def __init__(self, sink):
        self.sink, self.at = sink, {}

    def __call__(self, topic, *values, key=None, received_us=NOW_US):
        at = self.at.get(topic, 0)
        records = [Record(topic, 0, at + i, received_us, value, key) for i, value in enumerate(values)]
        self.at[topic] = at + len(records)
        self.sink.write(Batch(records, {(topic, 0): at}, {(topic, 0): at + len(records)}))


def feature(number, mean=1.0, **more):
    given = {"device": 5, "boot": 3, "window": number, "windows": 1, "frames": 10, "samples": 1600, "time_us": NOW_US + number}
    given |= {name: [mean, 2.0, 3.0] for name in ("mean", "rms", "peak", "crest", "minimum", "maximum")}
    return Feature(**(given | {"temperature_c": 21.5} | more))


def test_a_feature_that_comes_again_replaces_the_one_there(sink, database):
    write = Writer(sink)
    write(names.FEATURES, FeatureBatch(features=[feature(i) for i in range(20)]).SerializeToString())
    late = [feature(3, mean=8.0, time_us=NOW_US - 500_000), feature(4, mean=9.0), feature(4, mean=10.0), feature(20)]
    write(names.FEATURES, FeatureBatch(features=late).SerializeToString())
    found = database.execute("SELECT number, mean_x, mean_y, rms_z FROM features ORDER BY number").fetchall()
    assert [row[0] for row in found] == list(range(21))
    assert [row[1] for row in found] == [1, 1, 1, 8, 10, *[1] * 16]
    assert found[0][2:] == (2.0, 3.0)


def test_every_column_and_its_nulls(sink, database):
    write = Writer(sink)
    rows = [
        feature(0, device=TOP, windows=10, flags=2**17 + 5, glitches=3, spike_score=4.5, rate_hz=16001.5, lost_samples=2**32 - 1),
        feature(1, temperature_c=math.nan, score=0.75, model="odd/3"),
        feature(2, score=0.5, model="other/12", time_error_us=0xFFFFFFFF, time_us=1234),
    ]
    write(names.FEATURES, FeatureBatch(features=rows).SerializeToString())
    columns = "device, windows, flags, glitches, spike_score, rate_hz, lost_samples, temperature_c, score, model, own_clock"
    columns += ", time = received"
    found = database.execute(f"SELECT {columns} FROM features ORDER BY number").fetchall()
    assert found == [
        (TOP - 2**64, 10, 2**17 + 5, 3, 4.5, 16001.5, 2**32 - 1, 21.5, None, None, True, True),
        (5, 1, 0, 0, 0.0, 0.0, 0, None, 0.75, "odd/3", True, False),
        (5, 1, 0, 0, 0.0, 0.0, 0, 21.5, 0.5, "other/12", False, True),
    ]


def test_an_event_that_comes_again_is_one_row(sink, database):
    write = Writer(sink)
    gap = Event(device=TOP, boot=3, kind=Event.KIND_GAP, time_us=NOW_US, number=1)
    gap.gap.first_sample, gap.gap.length = 2**40, 7
    spike = Event(device=6, boot=3, kind=Event.KIND_SPIKE, time_us=NOW_US, number=1)
    spike.finding.axis, spike.finding.score = 2, 12.5
    data = [event.SerializeToString() for event in (gap, spike)]
    write(names.EVENTS, data[0], data[0])
    write(names.EVENTS, data[1], data[0])
    found = database.execute("SELECT device, kind, axis, score, detail, message FROM events ORDER BY device").fetchall()
    assert found == [
        (TOP - 2**64, "GAP", None, None, {"first_sample": str(2**40), "length": 7}, data[0]),
        (6, "SPIKE", 2, 12.5, {"axis": 2, "score": 12.5}, data[1]),
    ]
    totals = sink.account.totals
    assert (totals["in"], totals["out"], totals["repeats"]) == (4, 2, 2)


def test_what_a_device_says_of_itself(sink, database):
    write = Writer(sink)
    text = f"{TOP:016x}"
    say = {"info": DeviceInfo(device=TOP, boot=4, part="adxl382", firmware="1.2\0", board="pi")}
    say |= {"status": Status(online=True, boot=4, time_us=NOW_US - 7), "config/ack": ConfigAck(version=9, result=1)}
    for kind, message in say.items():
        write(names.DEVICES, message.SerializeToString(), key=f"{text}/{kind}".encode())
    write(names.DEVICES, b"", key=f"{text}/info".encode())  # a tombstone
    row = database.execute("SELECT id, boot, online, part, firmware, board, config_ack->>'version' FROM devices").fetchone()
    assert row == (text, 4, True, "adxl382", "1.2", "pi", "9")
    write(names.DEVICES, Status(online=False, boot=3).SerializeToString(), key=f"{text}/status".encode())
    assert database.execute("SELECT online FROM devices").fetchone() == (True,), "the last will of the boot before"
    write(names.DEVICES, Status(online=False, boot=4).SerializeToString(), key=f"{text}/status".encode())
    assert database.execute("SELECT online FROM devices").fetchone() == (False,)


@pytest.mark.parametrize(
    ("topic", "value", "key"),
    [
        (names.FEATURES, b"\xff\xff", None),
        (names.FEATURES, FeatureBatch(features=[Feature(device=1, mean=[1.0])]).SerializeToString(), None),
        (names.EVENTS, b"\xff\xff", None),
        (names.EVENTS, Event(boot=1).SerializeToString(), None),
        (names.EVENTS, Event(device=1, kind=Event.KIND_SPIKE, finding={"axis": 40_000}).SerializeToString(), None),
        (names.DEVICES, b"\xff\xff", b"0000000000000001/status"),
        (names.DEVICES, Status(online=True).SerializeToString(), b"0000000000000001/what"),
        (names.DEVICES, Status(online=True).SerializeToString(), b"nonsense"),
    ],
)
def test_what_cannot_be_read_is_dead_lettered_and_the_rest_goes_on(sink, database, topic, value, key):
    write = Writer(sink)
    write(topic, value, key=key)
    write(names.EVENTS, Event(device=1, kind=Event.KIND_GAP, number=5).SerializeToString())
    totals = sink.account.totals
    assert (totals["dead"], totals["out"], sink.account.in_flight) == (1, 1, 0)


def test_a_refused_model_is_an_event_of_no_device(sink, database):
    Writer(sink)(names.EVENTS, Event(kind=Event.KIND_MODEL_REJECTED, number=1).SerializeToString())
    assert database.execute("SELECT count(*) FROM events WHERE kind = 'MODEL_REJECTED'").fetchone() == (1,)
    assert sink.account.totals["dead"] == 0


def test_offsets_are_in_the_transaction_and_another_writer_is_noticed(sink, database):
    write = Writer(sink)
    event = Event(device=1, kind=Event.KIND_GAP).SerializeToString()
    write(names.EVENTS, event)
    part = (names.EVENTS, 0)
    assert sink.start([part]) == {part: 1}
    write.at = {}
    with pytest.raises(Moved, match="is at 1, not 0"):
        write(names.EVENTS, Event(device=2, kind=Event.KIND_GAP).SerializeToString())
    assert database.execute("SELECT count(*) FROM events").fetchone() == (1,)
    assert sink.account.totals["in"] == 2
    assert sink.account.in_flight == 1, "the loop returns what a failed write leaves in flight"


def test_as_a_process(place):
    process = place.run("features", "--flush-s", "0.2")
    numbers = range(5)
    for number in numbers:
        event = Event(device=place.device, boot=1, kind=Event.KIND_MISSING, number=number)
        raw_to_kafka(place.settings, names.EVENTS, event.SerializeToString())

    def count():
        with psycopg.connect(place.settings.postgres) as connection:
            if connection.execute("SELECT to_regclass('events')").fetchone() == (None,):
                return 0
            return connection.execute("SELECT count(*) FROM events WHERE device = %s", (place.device,)).fetchone()[0]

    place.wait(lambda: count() == len(numbers), "events", alive=[process])
    assert place.stop(process) == 0
