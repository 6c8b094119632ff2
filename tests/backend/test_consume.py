"""The sink loop against a sink that fails, moves and dies; a mock broker stands for Kafka."""

import threading
import time

import pytest
from confluent_kafka import OFFSET_END, Producer, TopicPartition
from triax_backend import crash
from triax_backend.consume import Loop
from triax_backend.metrics import Account
from triax_backend.settings import Settings
from triax_backend.silence import Silence
from triax_backend.sinks.errors import Moved, SinkDown
from triax_proto import names

pytestmark = pytest.mark.timeout(90)
PARTS = 4  # what the mock gives a topic


@pytest.fixture(scope="module")
def settings():
    """librdkafka's own mock cluster lives as long as the client that made it."""
    maker = Producer({"test.mock.num.brokers": 1, "log_level": 0, "bootstrap.servers": ""})
    address = next(iter(maker.list_topics(timeout=10).brokers.values()))
    yield Settings(kafka=f"kafka://{address.host}:{address.port}")
    del maker


class Memory:
    """A sink that keeps values by offset and does what `script` says at each write."""

    stage = "memory"

    def __init__(self, topic, script=()):
        self.topics = (topic,)
        self.account = Account("memory")
        self.script = list(script)
        self.at, self.values, self.starts, self.closed = {}, [], [], False

    def start(self, parts):
        self.starts.append(sorted(parts))
        step = self.script.pop(0) if self.script and self.script[0] == "down at start" else None
        if step:
            raise SinkDown("away at start")
        return {part: self.at.get(part) for part in parts}

    def write(self, batch):
        self.account.took(len(batch.records))
        step = self.script.pop(0) if self.script else "ok"
        if step == "down":
            raise SinkDown("away")
        if step == "moved":
            raise Moved("elsewhere")
        for part, first in batch.first.items():
            assert self.at.get(part, first) == first, "offsets go on where they were"
        self.values += [r.value for r in batch.records]
        self.at |= batch.next
        if step == "written but not told":
            raise SinkDown("the answer was lost")
        self.account.settled(out=len(batch.records))

    def close(self):
        self.closed = True


def run(settings, sink, values, enough):
    """Run a loop until the sink has `enough` of these values; the loop's group is the sink's own, the topics are everyone's."""
    producer = Producer(settings.kafka_config())
    for i, value in enumerate(values):
        producer.produce(sink.topics[0], value, partition=i % PARTS)
    assert producer.flush(10) == 0
    loop = Loop(settings, sink, group=f"g{id(sink)}", flush_s=0.1)
    thread = threading.Thread(target=loop.run)
    thread.start()
    end = time.monotonic() + 60
    try:
        while len(set(values).intersection(sink.values)) < enough and time.monotonic() < end:
            time.sleep(0.05)
    finally:
        loop.stop()
        thread.join(30)
    assert sink.closed


@pytest.mark.parametrize("step", ["ok", "down", "moved", "written but not told", "down at start"])
def test_each_record_once_whatever_the_sink_does(settings, step):
    topic = names.FRAMES
    values = [f"{step} {i}".encode() for i in range(100)]
    sink = Memory(topic, [step])
    sink.at = {}
    run(settings, sink, values, 100)
    mine = [v for v in sink.values if v.startswith(step.encode() + b" ")]
    assert sorted(mine) == sorted(values)
    t = sink.account.totals
    assert t["in"] == t["out"] + t["returned"]
    assert (t["returned"] > 0) == (step in ("down", "moved", "written but not told"))
    assert sink.starts[0] == [(topic, p) for p in range(PARTS)]


def test_it_reads_on_where_the_sink_stands_not_where_the_group_does(settings):
    topic = names.EVENTS
    values = [f"{i}".encode() for i in range(40)]
    sink = Memory(topic)
    sink.at = {(topic, p): 5 for p in range(PARTS)}
    run(settings, sink, values, 20)
    assert sorted(int(v) for v in sink.values) == list(range(20, 40))


def test_a_partition_that_falls_silent_is_taken_up_anew(settings):
    """Kafka's client forgets all partitions but one: what comes into the others arrives all the same, once."""
    topic, first = names.RAW, [f"first {i}".encode() for i in range(40)]
    then = [f"then {i}".encode() for i in range(40)]
    producer = Producer(settings.kafka_config())

    class Forgotten(Memory):
        def write(self, batch):
            super().write(batch)
            if len(self.values) == len(first):
                loop._consumer.assign([TopicPartition(topic, 0, self.at[topic, 0])])
                produce(then)

    def produce(values):
        for i, value in enumerate(values):
            producer.produce(topic, value, partition=i % PARTS)
        assert producer.flush(10) == 0

    produce(first)
    sink = Forgotten(topic)
    loop = Loop(settings, sink, group="silent", flush_s=0.1)
    loop._silence = Silence(0.3)
    thread = threading.Thread(target=loop.run)
    thread.start()
    end = time.monotonic() + 30
    while len(sink.values) < 80 and time.monotonic() < end:
        time.sleep(0.05)
    loop.stop()
    thread.join(30)
    assert sorted(sink.values) == sorted(first + then)
    assert len(sink.starts) == 2


def test_a_look_at_silence_asks_about_what_stands_still_in_one_request():
    """A request waits behind the fetch: one for each partition stopped a sink for five seconds every fifteen."""
    asked = []

    class Kafka:
        def offsets_for_times(self, parts, timeout):
            asked.append([(one.topic, one.partition, one.offset) for one in parts])
            return [TopicPartition(one.topic, one.partition, 5 if one.offset == OFFSET_END else 0) for one in parts]

    moves, stands, empty = (("t", n) for n in range(3))
    silence = Silence(0.0)
    assert silence.fallen(Kafka(), {moves: 1, stands: 1, empty: 5}) == []
    assert asked == []
    assert silence.fallen(Kafka(), {moves: 2, stands: 1, empty: 5}) == []
    assert asked == [[("t", 1, OFFSET_END), ("t", 2, OFFSET_END)]]
    assert silence.fallen(Kafka(), {moves: 3, stands: 1, empty: 5}) == [stands]


def test_a_crash_point_kills_at_its_pass_and_once(monkeypatch, tmp_path):
    killed = []
    monkeypatch.setattr(crash.os, "kill", lambda pid, number: killed.append(number))
    monkeypatch.setattr(crash, "_passes", {})
    crash.point("here")
    assert killed == []
    monkeypatch.setenv("TRIAX_CRASH", "here:3")
    monkeypatch.setenv("TRIAX_CRASH_ONCE", str(tmp_path / "once"))
    for _ in range(5):
        crash.point("here")
        crash.point("there")
    assert killed == [9]
    monkeypatch.setattr(crash, "_passes", {})
    for _ in range(5):
        crash.point("here")
    assert killed == [9], "the file says that it was"
