"""Goals I1 and I2 over a real broker: file to node to file, and what each side says when something is wrong."""

import shutil
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from triax_tools.calibrate import compact, document, fit, gravity, pose, simulate
from triax_tools.calibrate import push as pushing
from triax_tools.calibrate.broker import Broker, parse_device
from triax_tools.calibrate.errors import BadDocument, BadInput, DeviceError, NotValid
from triax_tools.calibrate.recording import Identity

from .node import DEVICE, PahoNode, RealNode, mosquitto

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    if shutil.which("mosquitto") is None and shutil.which("/usr/sbin/mosquitto") is None:
        pytest.skip("mosquitto is not installed")
    with mosquitto(tmp_path_factory.mktemp("broker")) as url:
        yield url


def make(**changes):
    rng = np.random.default_rng(1)
    unit = simulate.draw_unit(rng)
    poses = simulate.hand_poses(pose.CELLS, rng)
    result = fit.fit(unit.model.respond(poses) + rng.normal(0, 0.3, poses.shape), gravity.given(9.81))
    known = {
        "device": f"{DEVICE:016x}",
        "part": "iis3dwb",
        "sensor_serial": "0102030405",
        "firmware": "1.0",
        "range_g": 2.0,
        "scale_g": 2 / 32768,
    }
    return document.build(result, Identity(**{**known, **changes}), NOW, [], "00" * 32)


@pytest.fixture
def node(broker):
    made = []

    def start(**options):
        made.append(PahoNode(broker, **options))
        return made[-1]

    yield start
    for one in made:
        one.publish("calibration", b"", retain=True)
        one.publish("info", b"", retain=True)
        one.close()


@pytest.mark.servers
def test_i1_to_the_node_and_back_bit_for_bit(broker, node):
    node()
    made = make()
    with Broker(broker) as link:
        digest = pushing.push(link, DEVICE, made, NOW)
    assert digest == compact.digest(compact.encode(made))
    with Broker(broker) as link:
        back, held = pushing.pull(link, DEVICE, NOW)
    assert held == digest
    assert document.dump(back) == document.dump(made)


@pytest.mark.servers
def test_pushing_the_same_again_is_confirmed_at_once(broker, node):
    node()
    for _ in range(2):
        with Broker(broker) as link:
            assert pushing.push(link, DEVICE, make(), NOW)


@pytest.mark.servers
def test_i2_a_changed_sensor_makes_it_not_valid(broker, node):
    there = node()
    with Broker(broker) as link:
        pushing.push(link, DEVICE, make(), NOW)
    there.info.sensor_serial = b"\xff\xff"
    there.say()
    with Broker(broker) as link, pytest.raises(NotValid, match=r"NOT VALID: .* serial 0102030405, the node carries ffff now"):
        pushing.pull(link, DEVICE, NOW)
    there.info.part = "adxl382"
    there.say()
    with Broker(broker) as link, pytest.raises(NotValid, match=r"NOT VALID: calibrated was a part iis3dwb, .* adxl382 now"):
        pushing.pull(link, DEVICE, NOW)


@pytest.mark.servers
@pytest.mark.parametrize(
    ("changes", "now", "error", "match"),
    [
        ({"sensor_serial": "beef"}, NOW, NotValid, "NOT VALID: calibrated was the sensor with serial beef"),
        ({"part": "adxl382"}, NOW, NotValid, "NOT VALID: calibrated was a part adxl382"),
        ({"device": "00000000000000aa"}, NOW, BadDocument, "is of device 00000000000000aa"),
        ({"scale_g": 16 / 32768, "range_g": 16.0}, NOW, BadDocument, r"of full scale \+-16 g"),
        ({}, NOW + timedelta(days=400), BadDocument, "expired on 2027-03-01"),
    ],
)
def test_i2_nothing_is_sent_that_does_not_belong_there(broker, node, changes, now, error, match):
    there = node()
    with Broker(broker) as link, pytest.raises(error, match=match):
        pushing.push(link, DEVICE, make(**changes), now)
    assert there.info.calibration_hash == b""


@pytest.mark.servers
def test_a_node_that_does_not_answer(broker, node):
    node(deaf=True)
    with Broker(broker) as link, pytest.raises(DeviceError, match=r"did not confirm the calibration within 0\.5 s"):
        pushing.push(link, DEVICE, make(), NOW, answer_s=0.5)


@pytest.mark.servers
def test_a_node_without_a_calibration_and_one_with_another(broker, node):
    there = node()
    with Broker(broker) as link, pytest.raises(DeviceError, match=r"has no calibration. Make one"):
        pushing.pull(link, DEVICE, NOW, wait_s=0.3)
    with Broker(broker) as link:
        pushing.push(link, DEVICE, make(), NOW)
    there.info.calibration_hash = bytes(32)
    there.say()
    with Broker(broker) as link, pytest.raises(DeviceError, match="holds another calibration than the broker retains"):
        pushing.pull(link, DEVICE, NOW)
    there.deaf = True
    there.publish("calibration", b"", retain=True)
    with Broker(broker) as link, pytest.raises(DeviceError, match="that the broker does not retain"):
        pushing.pull(link, DEVICE, NOW, wait_s=0.3)


@pytest.mark.servers
def test_a_damaged_copy_is_said(broker, node):
    there = node()
    blob = bytearray(compact.encode(make()))
    blob[700] ^= 4
    there.publish("calibration", bytes(blob), retain=True)
    end = time.monotonic() + 10
    while not there.info.calibration_hash and time.monotonic() < end:
        time.sleep(0.01)
    there.say()
    with Broker(broker) as link, pytest.raises(BadDocument, match="fails its checksum"):
        pushing.pull(link, DEVICE, NOW, wait_s=1)


@pytest.mark.servers
def test_an_unknown_device(broker):
    with Broker(broker) as link, pytest.raises(DeviceError, match="has never been seen"):
        link.info(0xABCD, seconds=0.3)


@pytest.mark.servers
def test_i1_the_real_node_stores_it_and_echoes_its_hash(broker):
    made = make(sensor_serial="", scale_g=6.1e-05)
    with RealNode(broker) as there:
        with Broker(broker) as link:
            digest = pushing.push(link, DEVICE, made, NOW)
        assert compact.encode(made) in there.store.data.values()
        with Broker(broker) as link:
            back, held = pushing.pull(link, DEVICE, NOW)
    assert held == digest
    assert document.dump(back) == document.dump(made)


def test_no_broker_and_no_url():
    with pytest.raises(DeviceError, match=r"No broker at mqtt://127.0.0.1:1"), Broker("mqtt://127.0.0.1:1"):
        pass
    with pytest.raises(BadInput, match="want mqtt://host:1883"):
        Broker("http://somewhere")


@pytest.mark.parametrize("text", ["00112233445566FF", "00:11:22:33:44:55:66:ff", "00-11-22-33-44-55-66-FF"])
def test_devices_are_read_as_people_write_them(text):
    assert parse_device(text) == DEVICE


def test_what_is_no_device():
    with pytest.raises(BadInput, match="16 hex digits"):
        parse_device("1234")
