"""Batches into a Kafka that refuses, forgets and breaks: order, poison, the unknown, a producer's fatal end."""

import itertools

import numpy as np
import pytest
from confluent_kafka import KafkaError, KafkaException
from triax_backend import mqtt_wire as wire
from triax_backend import produce
from triax_backend.frame_rows import cut_rows, to_rows
from triax_backend.metrics import Account
from triax_backend.settings import Settings
from triax_proto import batch, names

from .wire_client import frames

DEVICE = 0xE1


class _Error(KafkaError):
    def __init__(self, code, *, fatal=False):
        super().__init__(code)
        self._fatal = fatal

    def fatal(self):
        return self._fatal


class FakeProducer:
    """Keeps what is produced until the test says what became of it."""

    made = []

    def __init__(self, config, logger=None):
        self.config, self.kept, self.full, self.raises = config, [], False, None
        FakeProducer.made.append(self)

    def list_topics(self, topic, timeout):
        class Topic:
            error, partitions = None, dict.fromkeys(range(16))

        return type("Metadata", (), {"topics": {topic: Topic}})

    def produce(self, topic, value, key, partition, on_delivery, timestamp, headers):
        if self.full:
            raise BufferError
        if self.raises is not None:
            error, self.raises = self.raises, None
            raise KafkaException(error)
        self.kept.append((topic, value, on_delivery, dict(headers)))

    def report(self, index=0, error=None):
        topic, value, on_delivery, _ = self.kept.pop(index)
        on_delivery(error, None)
        return topic, value

    def poll(self, _wait):
        return 0

    def purge(self):
        pass


@pytest.fixture
def out(monkeypatch):
    FakeProducer.made = []
    monkeypatch.setattr(produce, "Producer", FakeProducer)
    monkeypatch.setattr(produce, "_RETRY_S", 0.0)
    return produce.KafkaOut(Settings(), Account("test"), stage="test")


def _rows(count, device=DEVICE, first=0):
    topic = names.mqtt_topic(device, "frame")
    rows = enumerate(frames(device, first, count))
    data = b"".join(wire.write_publish(topic, row.tobytes(), qos=1, packet_id=n + 1) for n, row in rows)
    return to_rows(*cut_rows(np.frombuffer(data, np.uint8), 0))


def _producer():
    return FakeProducer.made[-1]


def _batch(out, token, count=3, first=0):
    one = out.begin(token)
    out.rows(one, _rows(count, first=first))
    out.seal(one)
    return one


def _done(out):
    return [one.token for one in out.poll()]


def test_batches_complete_in_the_order_in_which_they_were_begun(out):
    for token in "abc":
        _batch(out, token)
    empty = out.begin("d")
    assert _done(out) == []
    _producer().report(2)
    _producer().report(1)
    assert _done(out) == []
    _producer().report(0)
    assert _done(out) == ["a", "b", "c"]
    out.seal(empty)
    assert _done(out) == ["d"]
    assert out.account.totals["in"] == out.account.totals["out"] == 9


def test_the_unknown_is_produced_again_until_it_is_known(out):
    _batch(out, "a")
    value = _producer().kept[0][1]
    for code in (KafkaError._MSG_TIMED_OUT, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError._PURGE_QUEUE):
        _producer().report(0, _Error(code))
        assert _done(out) == []
        assert [kept[1] for kept in _producer().kept] == [value]
    _producer().report()
    assert _done(out) == ["a"]
    assert (out.account.totals["out"], out.in_flight) == (3, 0)


def test_a_full_queue_and_a_refusal_at_once_are_tried_again(out):
    _producer().full = True
    _batch(out, "a")
    assert _done(out) == []
    _producer().full = False
    _producer().raises = _Error(KafkaError._QUEUE_FULL)
    assert _done(out) == []
    assert _done(out) == []
    _producer().report()
    assert _done(out) == ["a"]


def test_a_record_that_kafka_never_takes_becomes_a_dead_letter(out):
    one = out.begin("a")
    out.message(one, names.mqtt_topic(DEVICE, "raw"), b"bad")
    out.seal(one)
    _producer().report(0, _Error(KafkaError.INVALID_RECORD))
    assert _done(out) == []
    topic, value, _, headers = _producer().kept[0]
    assert (topic, value) == (names.DEADLETTER, b"bad")
    assert headers["cause"] == b"refused by Kafka: INVALID_RECORD"
    assert headers["source"] == names.mqtt_topic(DEVICE, "raw").encode()
    _producer().report(0, _Error(KafkaError.MSG_SIZE_TOO_LARGE))  # a dead letter is never given up
    _done(out)
    _producer().report()
    assert _done(out) == ["a"]
    assert (out.account.totals["dead"], out.in_flight) == (1, 0)


def test_a_refused_batch_of_frames_is_halved_until_the_one_is_alone(out):
    _batch(out, "a", count=8)
    bad = frames(DEVICE, 0, 8)[5].tobytes()
    for _ in range(100):
        if not _producer().kept:
            break
        topic, value, *_ = _producer().kept[0]
        refuse = topic == names.FRAMES and bad in batch.split(value)
        _producer().report(0, _Error(KafkaError.INVALID_RECORD) if refuse else None)
    assert _done(out) == ["a"]
    assert (out.account.totals["out"], out.account.totals["dead"], out.in_flight) == (7, 1, 0)


def test_a_fatal_error_ends_a_producer_and_loses_nothing(out):
    for token, first in (("a", 0), ("b", 3)):
        _batch(out, token, first=first)
    old = _producer()
    values = [kept[1] for kept in old.kept]
    out.config["error_cb"](_Error(KafkaError._FATAL, fatal=True))
    assert _done(out) == []
    new = _producer()
    assert new is not old
    assert [kept[1] for kept in new.kept] == values
    new.report()
    for _ in range(2):
        old.report()  # late reports of the old one
    assert _done(out) == ["a", "b"]
    assert out.in_flight == 0


def test_dead_letters_keep_the_bytes_or_the_head_of_what_is_too_large(out):
    one = out.begin("a")
    out.message(one, "x/" * 2_000, b"payload")
    out.message(one, names.mqtt_topic(DEVICE, "raw"), bytes(produce.MESSAGE_BYTES))
    out.seal(one)
    (_, small, _, small_headers), (_, large, _, large_headers) = _producer().kept
    assert small == b"payload"
    assert small_headers["cause"] == b"unknown topic"
    assert len(small_headers["source"]) == 1_000
    assert len(large) == 64_000
    assert (large_headers["cause"], large_headers["bytes"]) == (b"too large", b"1000000")
    assert int(small_headers["time_us"]) > 1_700_000_000_000_000
    assert small_headers["stage"] == b"test"


def test_configuration_may_be_set_only_where_that_is_allowed(out):
    one = out.begin("a")
    topic = names.mqtt_topic(DEVICE, "config")
    for payload, downlink in itertools.product((b"v1", b""), ("", None)):
        out.message(one, topic, payload, downlink=downlink)
    assert [kept[:2] for kept in _producer().kept] == [
        (names.CONFIG, b"v1"),
        (names.DEADLETTER, b"v1"),
        (names.CONFIG, None),
        (names.DEADLETTER, b""),
    ]
