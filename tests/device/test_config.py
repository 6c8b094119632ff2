"""Configuration: decided once, applied as a whole, reverted, remembered."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from triax import config
from triax.config import APPLIED, IGNORED, REJECTED, REVERTED, TRIAL, Configuration
from triax_proto.v1.device_pb2 import Command, Config, ConfigAck

LINK = {"host": "broker", "port": 8883, "tls": True, "keepalive_s": 30}


class Store:
    def __init__(self):
        self.data = {}
        self.broken = False
        self.writes = 0

    def read(self, name):
        return self.data.get(name)

    def write(self, name, data):
        if self.broken:
            raise OSError(28, "no space left on device")
        self.writes += 1
        self.data[name] = bytes(data)


def check(values):
    if values["odr_hz"] not in (16000.0, 32000.0):
        return "odr_hz", "16000 or 32000"
    return None


def make(store=None):
    return Configuration(store or Store(), "config", {"odr_hz": 16000.0, "range_g": 15.0, "decimation": 160}, LINK, check)


def message(version, link=None, **fields):
    new = Config(version=version, **fields)
    if link:
        new.link.CopyFrom(Config.Link(**link))
    return new.SerializeToString()


def ack(configuration):
    return ConfigAck.FromString(configuration.ack())


def test_settings_apply_at_once_and_keep_what_is_left_out():
    one = make()
    assert one.offer(message(1, odr_hz=32000.0, qos=0)) == APPLIED
    assert one.offer(message(2, replay_hz=50)) == APPLIED
    assert one.values["odr_hz"] == 32000.0
    assert one.values["qos"] == 0
    assert one.values["replay_hz"] == 50
    assert one.values["decimation"] == 160
    assert one.version == 2
    assert ack(one) == ConfigAck(version=2, result=ConfigAck.RESULT_APPLIED)


def test_zero_and_false_are_settings():
    one = make()
    one.offer(message(1, test_pattern=True))
    one.offer(message(2, test_pattern=False, keep_newest=False, qos=0))
    assert (one.values["test_pattern"], one.values["keep_newest"], one.values["qos"]) == (False, False, 0)


WRONG = {
    "qos": {"qos": 2},
    "replay_hz": {"replay_hz": 0},
    "health_period_s": {"health_period_s": 100000},
    "odr_hz": {"odr_hz": 12345.0},
    "link.port": {"link": {"port": 70000}},
    "link.keepalive_s": {"link": {"keepalive_s": 0}},
    "link.host": {"link": {"host": "no such host"}},
    "link.password": {"link": {"password": "x" * 257}},
}


@pytest.mark.parametrize("field", WRONG)
def test_one_wrong_field_rejects_all_and_is_named(field):
    one = make()
    before = dict(one.values), dict(one.link)
    assert one.offer(message(1, **{"test_pattern": True, **WRONG[field]})) == REJECTED
    assert (one.values, one.link) == before
    assert one.version == 0
    assert ack(one).field == field
    assert ack(one).reason
    assert one.offer(message(1, **WRONG[field])) == IGNORED
    assert one.offer(message(2, test_pattern=True)) == APPLIED


def test_link_settings_are_tried_and_come_into_force_when_the_node_got_through():
    one = make()
    assert one.offer(message(1, {"host": "other"}, odr_hz=32000.0)) == TRIAL
    assert one.on_trial
    assert one.link == {**LINK, "host": "other"}
    assert one.values["odr_hz"] == 16000.0
    assert one.ack() is None
    assert one.through() == APPLIED
    assert one.values["odr_hz"] == 32000.0
    assert one.version == 1
    assert not one.on_trial
    assert ack(one).result == ConfigAck.RESULT_APPLIED


def test_a_retained_bad_configuration_over_three_reconnects_is_tried_once():
    one = make()
    bad = message(1, {"host": "nowhere"}, odr_hz=32000.0)
    decisions = [one.offer(bad)]
    assert one.failed("no such host") == REVERTED
    assert one.link == LINK
    for _ in range(3):
        decisions.append(one.offer(bad))
    assert decisions == [TRIAL, IGNORED, IGNORED, IGNORED]
    assert ack(one) == ConfigAck(version=1, result=ConfigAck.RESULT_REVERTED, field="link", reason="no such host")
    assert one.values["odr_hz"] == 16000.0
    assert one.offer(message(2, {"host": "other"})) == TRIAL


def test_what_comes_during_a_trial_waits():
    one = make()
    one.offer(message(1, {"host": "other"}))
    assert one.offer(message(2, qos=0)) == IGNORED
    assert one.offer(b"\xff") == IGNORED
    one.through()
    assert one.offer(message(2, qos=0)) == APPLIED


def test_link_settings_that_are_in_force_already_need_no_trial():
    one = make()
    assert one.offer(message(1, {"host": "broker", "port": 8883})) == APPLIED


@pytest.mark.parametrize("store_broken", [False, True])
def test_everything_survives_a_restart(store_broken):
    store = Store()
    one = make(store)
    one.offer(message(1, {"host": "other"}, odr_hz=32000.0))
    one.through()
    store.broken = store_broken
    one.offer(message(2, odr_hz=1.0))
    again = make(store)
    assert again.version == 1
    assert again.link["host"] == "other"
    assert again.values["odr_hz"] == 32000.0
    assert ack(again).result == (ConfigAck.RESULT_APPLIED if store_broken else ConfigAck.RESULT_REJECTED)
    again.acked()
    store.broken = False
    again.acked()
    assert make(store).ack() is None


def test_a_restart_in_the_middle_of_a_trial_is_a_failure():
    store = Store()
    make(store).offer(message(5, {"host": "nowhere"}))
    again = make(store)
    assert again.link == LINK
    assert ack(again).result == ConfigAck.RESULT_REVERTED
    assert again.offer(message(5, {"host": "nowhere"})) == IGNORED
    assert again.offer(message(6, {"host": "nowhere"})) == TRIAL


def test_what_cannot_be_stored_is_not_applied():
    store = Store()
    one = make(store)
    store.broken = True
    assert one.offer(message(1, qos=0)) == REJECTED
    assert one.values["qos"] == 1
    assert "store" in ack(one).reason
    assert one.offer(message(2, {"host": "other"})) == REJECTED
    assert one.link == LINK


def test_a_command_is_carried_out_once_for_each_id():
    store = Store()
    one = make(store)
    restart = Command(id=7, kind=Command.KIND_RESTART)
    one.offer(message(1, command=restart))
    assert one.command()["kind"] == Command.KIND_RESTART
    assert one.command() is None
    again = make(store)
    again.offer(message(1, command=restart))
    assert again.command() is None
    again.offer(message(2, command=restart))
    assert again.command() is None, "the same id under another version"
    again.offer(message(3, command=Command(id=8, kind=Command.KIND_SELF_TEST)))
    assert again.command() == {"id": 8, "kind": Command.KIND_SELF_TEST, "duration_ms": 0, "manifest": b""}


def test_a_command_of_a_rejected_version_is_not_carried_out():
    one = make()
    one.offer(message(1, qos=9, command=Command(id=1, kind=1)))
    assert one.command() is None


def test_garbage_is_rejected_once():
    one = make()
    assert one.offer(b"\x08") == REJECTED
    assert "byte 1" in ack(one).reason
    assert one.offer(b"\x08") == IGNORED
    assert one.offer(b"") == IGNORED
    assert one.offer(message(1, qos=0)) == APPLIED


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100))
def test_fuzz_offers(data):
    one = make()
    assert one.offer(data) in (IGNORED, APPLIED, REJECTED, TRIAL)
    one.ack()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100) | st.integers(0, 200))
def test_fuzz_a_corrupt_store_means_defaults(damage):
    store = Store()
    make(store).offer(message(3, odr_hz=32000.0, qos=0))
    if isinstance(damage, int):
        data = bytearray(store.data["config"])
        data[damage % len(data)] ^= 1 + damage % 255
        store.data["config"] = bytes(data)
    else:
        store.data["config"] = damage
    again = make(store)
    assert again.corrupt
    assert again.version == 0
    assert again.offer(message(3, odr_hz=32000.0, qos=0)) == APPLIED


def test_the_ack_names_the_boot():
    one = make()
    one.boot = 99
    one.offer(message(1, qos=0))
    assert ack(one).boot == 99


def test_trial_time_has_room_for_a_broker_restart():
    assert config.TRIAL_MS >= 60000


def test_what_the_part_does_not_take_is_rejected_and_the_old_holds():
    taken = []

    def use(version, values):
        if values["odr_hz"] == 32000.0:
            raise OSError(5, "input/output error")
        taken.append(version)

    one = Configuration(Store(), "config", {"odr_hz": 16000.0}, LINK, check, use)
    assert one.offer(message(1, odr_hz=32000.0)) == REJECTED
    assert "input/output" in ack(one).reason
    assert one.values["odr_hz"] == 16000.0
    assert one.offer(message(2, {"host": "other"}, odr_hz=32000.0)) == TRIAL
    assert one.through() == REJECTED
    assert one.link == LINK
    assert one.offer(message(3, qos=0)) == APPLIED
    assert taken == [3]


def test_what_could_not_be_stored_is_taken_back_from_the_part():
    taken = []
    store = Store()
    one = Configuration(store, "config", {"odr_hz": 16000.0}, LINK, check, lambda version, values: taken.append(values["odr_hz"]))
    store.broken = True
    assert one.offer(message(1, odr_hz=32000.0)) == REJECTED
    assert taken == [32000.0, 16000.0]
