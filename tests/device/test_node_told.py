"""What the node is told: configuration, calibration and commands."""

import hashlib
from itertools import pairwise

import pytest
from triax_proto.v1.device_pb2 import Command, Config, ConfigAck, Status
from triax_proto.v1.event_pb2 import Event, Gap, SelfTest
from triax_proto.v1.frame_pb2 import RawFrame

from .node_rig import DEVICE, Broker, Rig

# For tests of minutes: 125 Hz, whose FIFO lasts 256 ms.
SLOW = {"part": "adxl355", "settings": {"odr_hz": 125}}
SLOW_US = 50_000


def test_a_configuration_is_applied_acknowledged_and_in_every_frame():
    rig = Rig(part="adxl382").start().run(1500, 2000)
    rig.configure(7, odr_hz=32000, test_pattern=True)
    rig.run(1500, 1000)
    assert rig.last("config/ack") == ConfigAck(version=7, result=ConfigAck.RESULT_APPLIED, boot=rig.node.boot)
    frames = rig.frames()
    assert {one.config for one in frames} == {0, 7}
    assert {one.decimation for one in frames if one.config == 7} == {320}
    assert rig.last("info").odr_nominal_hz == 32000
    assert rig.last("info").config == 7
    gap = rig.last("event")
    assert (gap.kind, gap.gap.cause) == (Event.KIND_GAP, Gap.CAUSE_CONFIG)
    assert rig.link.session.acked, "the downlink message was acknowledged"


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"odr_hz": 1234}, "odr_hz"), ({"range_g": 3}, "range_g"), ({"decimation": 10**6}, "decimation"), ({"window": 99}, "window")],
)
def test_what_the_part_cannot_do_is_rejected_with_its_reason(fields, field):
    rig = Rig().start().run(500)
    rig.configure(1, **fields)
    rig.run(500)
    ack = rig.last("config/ack")
    assert (ack.result, ack.field) == (ConfigAck.RESULT_REJECTED, field)
    assert ack.reason


def test_a_retained_bad_configuration_over_three_reconnects_is_one_trial():
    rig = Rig(**SLOW).start().run(1000)
    rig.configure(1, link={"host": "nowhere"})
    rig.run(150_000, SLOW_US)
    trials = [i for i, host in enumerate(rig.link.tries) if host == "nowhere"]
    assert trials
    assert trials == list(range(trials[0], trials[-1] + 1))
    for _ in range(3):
        rig.broker.up = False
        rig.run(3000, SLOW_US)
        rig.broker.up = True
        rig.run(20000, SLOW_US)
    assert rig.link.tries[trials[-1] + 1 :].count("nowhere") == 0
    acks = rig.all("config/ack")
    assert [(ack.version, ack.result) for ack in acks] == [(1, ConfigAck.RESULT_REVERTED)]
    assert "no such host" in acks[0].reason
    assert len(rig.broker.connects) >= 5


def test_a_good_link_configuration_moves_the_node_and_an_outage_after_it_reverts_nothing():
    rig = Rig(**SLOW).start().run(1000)
    other = rig.link.brokers["other"] = Broker()
    rig.configure(1, link={"host": "other"})
    rig.run(3000)
    assert rig.node.core.state == 2
    assert other.session is not None
    ack = ConfigAck.FromString(other.messages("config/ack")[-1])
    assert (ack.version, ack.result) == (1, ConfigAck.RESULT_APPLIED)
    other.up = False
    rig.run(200_000, SLOW_US)
    other.up = True
    rig.run(60_000, SLOW_US)
    assert set(rig.link.tries[1:]) == {"other"}
    assert other.session is not None


def test_what_the_new_broker_retains_is_taken_after_the_trial():
    rig = Rig().start().run(1000)
    other = rig.link.brokers["other"] = Broker()
    other.retained[f"triax/v1/{DEVICE:016x}/config"] = Config(version=9, replay_hz=7).SerializeToString()
    rig.configure(1, link={"host": "other"})
    rig.run(3000)
    acks = [ConfigAck.FromString(data) for data in other.messages("config/ack")]
    assert [(ack.version, ack.result) for ack in acks][-1] == (9, ConfigAck.RESULT_APPLIED)
    assert rig.channels[0].configuration.link["host"] == "other"


def test_wrong_credentials_on_trial_are_reverted_at_once():
    rig = Rig()
    rig.broker.username = None
    rig.start().run(1000)
    rig.broker.username = "somebody"
    rig.configure(1, link={"username": "nobody", "password": "x"})
    rig.broker.username = "never"
    rig.run(3000)
    rig.broker.username = None
    rig.run(10000)
    assert rig.last("config/ack").result == ConfigAck.RESULT_REVERTED
    assert "credentials" in rig.last("config/ack").reason


def test_link_settings_of_a_second_device_are_rejected():
    rig = Rig(sensors=2).start().run(500)
    rig.configure(1, DEVICE + 1, link={"host": "other"})
    rig.configure(2, DEVICE, window=4)
    rig.run(500)
    assert rig.last("config/ack", DEVICE + 1).field == "link"
    assert rig.last("config/ack", DEVICE).result == ConfigAck.RESULT_APPLIED
    assert rig.node.core.window.limit == 4


def test_a_calibration_is_stored_and_its_hash_echoed():
    rig = Rig().start().run(500)
    blob = bytes(range(256)) * 16
    rig.broker.send("calibration", blob)
    rig.run(500)
    assert rig.last("info").calibration_hash == hashlib.sha256(blob).digest()
    again = Rig(store=rig.store).start().run(500)
    assert again.last("info").calibration_hash == hashlib.sha256(blob).digest()
    writes = dict(again.store.data)
    again.broker.send("calibration", blob)
    again.run(500)
    assert again.store.data == writes
    again.broker.send("calibration", b"")
    again.run(500)
    assert again.last("info").calibration_hash == b""


def test_a_calibration_that_is_too_large_is_ignored_and_the_connection_lives():
    rig = Rig().start().run(500)
    rig.broker.send("calibration", bytes(20000))
    rig.run(1000)
    assert rig.node.oversize == 1
    assert len(rig.broker.connects) == 1
    assert rig.last("info").calibration_hash == b""
    assert rig.link.session.acked


@pytest.mark.parametrize(("size", "kept"), [(4096, True), (4097, False)])
def test_a_calibration_has_4_kib_at_most(size, kept):
    rig = Rig().start().run(500)
    rig.broker.send("calibration", bytes(size))
    rig.run(500)
    assert (rig.last("info").calibration_hash == hashlib.sha256(bytes(size)).digest()) == kept
    assert rig.node.oversize == (not kept)


def test_a_raw_capture_on_command():
    rig = Rig().start().run(1000)
    rig.configure(1, command=Command(id=77, kind=Command.KIND_RAW_CAPTURE, duration_ms=50))
    rig.run(2000)
    raw = [RawFrame.FromString(data) for data in rig.broker.messages("raw")]
    assert sum(one.samples for one in raw) == pytest.approx(0.05 * 26667, abs=2)
    assert {one.capture for one in raw} == {77}
    assert [one.sequence for one in raw] == list(range(len(raw)))
    rig.configure(2, command=Command(id=77, kind=Command.KIND_RAW_CAPTURE, duration_ms=50))
    rig.run(1000)
    assert len(rig.broker.messages("raw")) == len(raw), "the same id: carried out once"


def test_a_self_test_on_command():
    rig = Rig().start().run(1000)
    rig.configure(1, command=Command(id=1, kind=Command.KIND_SELF_TEST))
    rig.run(3000)
    events = rig.all("event")
    test = next(one for one in events if one.kind == Event.KIND_SELF_TEST)
    assert test.self_test.result in (SelfTest.RESULT_PASS, SelfTest.RESULT_FAIL, SelfTest.RESULT_INCONCLUSIVE)
    assert len(test.self_test.response_g) == len(test.self_test.low_g) == len(test.self_test.high_g) == 3
    assert any(one.kind == Event.KIND_GAP and one.gap.cause == Gap.CAUSE_SELF_TEST for one in events)
    assert [one.number for one in events] == list(range(len(events)))


def test_a_self_test_that_breaks_off_says_why_and_when_it_was_before_utc():
    rig = Rig()
    rig.clock.utc_from_us = 10**12
    rig.start().run(1000)
    part = rig.channels[0].part
    part._mean_mg = lambda *_: (_ for _ in ()).throw(OSError(5, "input/output error"))
    rig.configure(1, command=Command(id=1, kind=Command.KIND_SELF_TEST))
    rig.run(3000)
    test = next(one for one in rig.all("event") if one.kind == Event.KIND_SELF_TEST)
    assert test.self_test.result == SelfTest.RESULT_INCONCLUSIVE
    assert "input/output" in test.self_test.reason
    assert (test.time_error_us, len(test.self_test.response_g)) == (0xFFFFFFFF, 0)
    assert 0 < test.time_us < 4_000_000  # since boot
    count = len(rig.frames())
    rig.run(1000)
    assert len(rig.frames()) > count, "capture goes on"


def test_an_answer_that_was_not_heard_is_given_after_the_restart():
    rig = Rig().start().run(1000)
    rig.broker.acks = False
    rig.configure(1, test_pattern=True)
    rig.run(100)
    again = Rig(store=rig.store).start().run(1000)
    assert (again.last("config/ack").version, again.last("config/ack").result) == (1, ConfigAck.RESULT_APPLIED)
    assert again.frames()[-1].config == 1


def test_a_part_that_is_gone_at_the_goodbye_does_not_keep_the_node():
    rig = Rig().start().run(1000)
    rig.channels[0].part.stop = lambda: (_ for _ in ()).throw(OSError(5, "input/output error"))
    rig.node.stop()
    rig.run(2000)
    assert rig.node.stopped
    assert rig.last("status").reason == Status.REASON_STOPPED
    assert rig.frames()[-1].sequence == len(rig.frames()) - 1


def test_restart_and_update_on_command_come_after_the_goodbye():
    rig = Rig().start().run(1000)
    rig.configure(1, command=Command(id=1, kind=Command.KIND_RESTART))
    rig.run(5000)
    assert rig.board.restarts == 1
    assert rig.node.stopped
    assert rig.last("status").reason == Status.REASON_STOPPED
    again = Rig(store=rig.store)
    again.broker = again.link.brokers["broker"] = rig.broker
    again.start().run(2000)
    assert again.board.restarts == 0, "the retained command is not carried out again"
    rig = Rig().start().run(1000)
    rig.configure(1, command=Command(id=1, kind=Command.KIND_UPDATE, manifest=b"\1" * 32))
    rig.run(5000)
    assert rig.board.updates == [b"\1" * 32]


def test_a_setting_that_does_not_concern_the_part_costs_no_gap():
    rig = Rig().start().run(1000)
    rig.configure(1, replay_hz=50, qos=0)
    rig.run(1000)
    assert rig.last("config/ack").result == ConfigAck.RESULT_APPLIED
    assert rig.broker.messages("event") == []
    frames = rig.frames()
    assert frames[-1].config == 1
    assert all(b.first_sample == a.first_sample + a.samples for a, b in pairwise(frames))


def test_a_part_that_refuses_is_rejected_and_goes_on_as_before():
    rig = Rig(part="adxl382").start().run(1000, 2000)
    part = rig.channels[0].part
    configure, part.configure = part.configure, lambda *_: (_ for _ in ()).throw(OSError(5, "input/output error"))
    rig.configure(1, odr_hz=32000)
    rig.run(500, 2000)
    part.configure = configure
    rig.run(1500, 2000)
    ack = rig.last("config/ack")
    assert ack.result == ConfigAck.RESULT_REJECTED
    assert "did not take" in ack.reason
    assert rig.frames()[-1].config == 0
    assert rig.frames()[-1].decimation == rig.frames()[0].decimation


def test_a_denied_subscription_is_said():
    rig = Rig()
    rig.start().run(1000)
    rig.link.session.outbox += b""
    rig.node._on_event(7)
    assert any("denies" in line for line in rig.log)


def test_commands_that_cannot_be_carried_out_are_said():
    rig = Rig(sensors=2)
    rig.channels[1].part.check = lambda: (_ for _ in ()).throw(OSError(5, "input/output error"))
    rig.start().run(1000)
    rig.configure(1, DEVICE + 1, command=Command(id=1, kind=Command.KIND_SELF_TEST))
    rig.configure(1, command=Command(id=2, kind=Command.KIND_RAW_CAPTURE, duration_ms=10_000))
    rig.run(300)
    rig.configure(2, command=Command(id=3, kind=Command.KIND_RAW_CAPTURE, duration_ms=10_000))
    rig.run(300)
    assert any("nothing is measured" in line for line in rig.log)
    assert any("no room for a raw capture" in line for line in rig.log)


def test_a_calibration_that_cannot_be_stored_is_not_echoed():
    rig = Rig().start().run(500)
    rig.store.broken = True
    rig.broker.send("calibration", b"calibration")
    rig.run(500)
    assert any("not stored" in line for line in rig.log)
    assert rig.last("info").calibration_hash == b""


def test_the_window_of_a_second_device_is_rejected():
    rig = Rig(sensors=2).start().run(500)
    rig.configure(1, DEVICE + 1, window=4)
    rig.run(500)
    assert rig.last("config/ack", DEVICE + 1).field == "window"


def test_a_link_that_breaks_at_the_goodbye_does_not_hang():
    rig = Rig().start().run(1000)
    rig.node.stop()
    rig.link.send = lambda buffer, count: (_ for _ in ()).throw(OSError(104, "connection reset"))
    rig.run(6000)
    assert rig.node.stopped
