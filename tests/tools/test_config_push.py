"""`triax config`: the next version keeps what was set, and the device's answer decides the exit code."""

import contextlib
import importlib.util
import json
import socket
import threading
import time
from pathlib import Path

import pytest
from triax_proto.v1.device_pb2 import Command, Config, ConfigAck, DeviceInfo
from triax_tools import config_push
from triax_tools.calibrate.errors import BadInput
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
DEVICE = "0211223344556677"
_spec = importlib.util.spec_from_file_location("device_brokers", ROOT / "tests/device/brokers.py")
brokers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(brokers)


def test_a_version_carries_what_was_set_before_but_no_old_command():
    old = Config(version=4, odr_hz=16000, qos=0, link=Config.Link(host="broker"), command=Command(id=1, kind=1))
    new = config_push.next_version(old.SerializeToString(), ["range_g=30", "link.port=8883", "test_pattern=false"], None)
    want = Config(version=5, odr_hz=16000, qos=0, range_g=30, test_pattern=False, link=Config.Link(host="broker", port=8883))
    assert new == want
    assert new.HasField("test_pattern")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("odr=1", "one of odr_hz"),
        ("odr_hz", "NAME=VALUE"),
        ("version=9", "NAME=VALUE"),
        ("link=x", "NAME=VALUE"),
        ("link.hosts=x", "link.host"),
        ("qos=one", "invalid literal"),
        ("test_pattern=yes", "true or false"),
        ("qos=-1", "qos"),
        ("odr_hz=fast", "could not convert"),
    ],
)
def test_what_sets_nothing_is_said(text, what):
    with pytest.raises(BadInput, match=what):
        config_push.assign(Config(), text)


@pytest.fixture
def broker(tmp_path):
    one = brokers.Mosquitto(tmp_path)
    yield one
    one.close()


class Device(threading.Thread):
    """Answers every Config with one result."""

    def __init__(self, port, result, reason=""):
        super().__init__(daemon=True)
        self.listener = brokers.Listener(port, f"triax/v1/{DEVICE}/config")
        self.result, self.reason = result, reason
        self.stop = threading.Event()
        self.start()

    def run(self):
        answered = 0
        while not self.stop.is_set():
            for _, payload, retained in self.listener.messages[answered:]:
                answered += 1
                if not retained:
                    version = Config.FromString(payload).version
                    ack = ConfigAck(version=version, result=self.result, field="odr_hz" if self.reason else "", reason=self.reason)
                    self.listener.publish(f"triax/v1/{DEVICE}/config/ack", ack.SerializeToString(), False)
            time.sleep(0.01)
        self.listener.close()


def push(port, *arguments):
    url = f"mqtt://127.0.0.1:{port}"
    return CliRunner().invoke(config_push.app, [*arguments, "--mqtt", url])


@pytest.mark.servers
def test_push_waits_for_the_answer(broker):
    device = Device(broker.port, ConfigAck.RESULT_APPLIED)
    told = push(broker.port, "push", DEVICE, "odr_hz=16000", "--json")
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout) == {"device": DEVICE, "version": 1, "result": "APPLIED", "field": "", "reason": ""}
    told = push(broker.port, "push", DEVICE, "link.password=secret")
    assert "version 2 APPLIED" in told.stdout
    told = push(broker.port, "push", DEVICE, "--raw", "500")
    assert told.exit_code == 0
    shown = json.loads(push(broker.port, "show", DEVICE, "--json").stdout)
    assert shown["version"] == 3
    assert shown["odr_hz"] == 16000
    assert shown["link"] == {"password": "***"}
    assert shown["command"]["duration_ms"] == 500
    device.stop.set()
    device.join()


@pytest.mark.servers
def test_a_rejection_is_told_and_is_exit_code_1(broker):
    device = Device(broker.port, ConfigAck.RESULT_REJECTED, "16000 or 32000")
    told = push(broker.port, "push", DEVICE, "odr_hz=1")
    assert told.exit_code == 1
    assert "REJECTED: odr_hz: 16000 or 32000" in told.stdout
    device.stop.set()
    device.join()


@pytest.mark.servers
@pytest.mark.parametrize("result", [ConfigAck.RESULT_REJECTED, ConfigAck.RESULT_REVERTED])
def test_what_a_device_did_not_take_is_in_no_later_version(broker, result):
    device = Device(broker.port, ConfigAck.RESULT_APPLIED)
    assert push(broker.port, "push", DEVICE, "odr_hz=16000").exit_code == 0
    device.result = result
    told = push(broker.port, "push", DEVICE, "link.host=typo", "--json")
    assert (told.exit_code, json.loads(told.stdout)["restored"]) == (1, 3)
    assert json.loads(push(broker.port, "show", DEVICE, "--json").stdout) == {"version": 3, "odr_hz": 16000.0}
    device.result = ConfigAck.RESULT_APPLIED
    assert "version 4 APPLIED" in push(broker.port, "push", DEVICE, "qos=1").stdout
    assert "typo" not in push(broker.port, "show", DEVICE).stdout
    device.stop.set()
    device.join()


@pytest.mark.servers
def test_a_version_that_the_device_runs_is_not_used_again(broker):
    """A broker that was set up anew: version 1 would be ignored for ever."""
    device = Device(broker.port, ConfigAck.RESULT_APPLIED)
    info = DeviceInfo(device=int(DEVICE, 16), config=7)
    device.listener.publish(f"triax/v1/{DEVICE}/info", info.SerializeToString(), True)
    told = push(broker.port, "push", DEVICE, "qos=1")
    assert "version 8 APPLIED" in told.stdout
    assert "holds no settings" in told.stderr
    device.stop.set()
    device.join()


@contextlib.contextmanager
def far_away(port, delay_s):
    """A port whose answers come late: those of the broker at `port`."""
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(source, target, wait_s):
        with contextlib.suppress(OSError), source, target:
            while data := source.recv(65536):
                time.sleep(wait_s)
                with contextlib.suppress(BlockingIOError):  # what came meanwhile is not later than that
                    data += source.recv(65536, socket.MSG_DONTWAIT)
                target.sendall(data)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", port))
                for way in ((near, far, 0.0), (far, near, delay_s)):
                    threading.Thread(target=carry, args=way, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.mark.servers
def test_what_is_retained_far_away_is_kept(broker):
    device = Device(broker.port, ConfigAck.RESULT_APPLIED)
    assert push(broker.port, "push", DEVICE, "odr_hz=16000").exit_code == 0
    with far_away(broker.port, 1.2) as port:
        told = push(port, "push", DEVICE, "qos=1")
    assert "version 2 APPLIED" in told.stdout, told.output
    assert json.loads(push(broker.port, "show", DEVICE, "--json").stdout)["odr_hz"] == 16000
    device.stop.set()
    device.join()


@pytest.mark.servers
def test_no_answer_says_that_it_is_kept(broker, monkeypatch):
    monkeypatch.setattr(config_push, "_ANSWER_S", 0.3)
    told = push(broker.port, "push", DEVICE, "qos=1")
    assert told.exit_code == 1
    assert "retained" in told.stderr


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["push", "12", "qos=1"], "16 hex digits"),
        (["push", DEVICE, "--raw", "5", "--restart"], "one command"),
        (["push", DEVICE, "--update", "xyz"], "64 hex digits"),
        (["push", DEVICE, "qos=1"], "No broker"),
    ],
)
def test_bad_input(arguments, what):
    told = push(brokers.free_port(), *arguments)
    assert told.exit_code == 1
    assert what in told.stderr
    assert "Traceback" not in told.output
