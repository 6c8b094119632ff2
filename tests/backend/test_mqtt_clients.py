"""Clients of others publish to the ingest front: MQTT.js here, paho and mosquitto_pub in test_ingest.py."""

import base64
import json
import subprocess
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer
from triax_proto import names

from .front_thread import running_front
from .npm import installed
from .wire_client import frames, kafka_frames, topic_records

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]
FRAMES = 50
CLIENT_S = 30
TELL_S = 20


def mqttjs(port, publish, subscribe=None):
    """What it heard on `subscribe` after it had published everything."""
    told = {
        "port": port,
        "subscribe": subscribe,
        "publish": [(topic, qos, base64.b64encode(data).decode()) for topic, qos, data in publish],
    }
    done = subprocess.run(
        ["node", "client.mjs"],
        cwd=installed(Path(__file__).parent / "mqttjs"),
        input=json.dumps(told),
        capture_output=True,
        text=True,
        timeout=CLIENT_S,
    )
    assert done.returncode == 0, done.stderr
    heard = json.loads(done.stdout)
    return None if heard is None else base64.b64decode(heard)


@pytest.mark.parametrize("qos", [0, 1])
def test_mqttjs_publishes_everything_a_node_does(stack, qos):
    """Frames in order and once, states and events under their keys, and configuration comes back."""
    device = 0xCC_00 + qos
    text = f"{device:016x}"
    send = [(names.mqtt_topic(device, "frame"), qos, row.tobytes()) for row in frames(device, 0, FRAMES)]
    send += [(names.mqtt_topic(device, kind), 1, kind.encode()) for kind in ("info", "event")]
    producer = Producer(stack.settings.kafka_config())
    producer.produce(names.CONFIG, b"version 7", f"{text}/config", names.partition(device, 16))
    producer.flush(10)
    with running_front(stack.settings) as (port, front):
        deadline = time.monotonic() + TELL_S
        while front.downlink.get(f"{text}/config") is None:
            assert time.monotonic() < deadline, "the configuration did not come from Kafka"
            time.sleep(0.02)
        assert mqttjs(port, send, names.mqtt_topic(device, "config")) == b"version 7"
    # The front has drained: what it took is in Kafka.
    assert kafka_frames(stack.settings, {device}) == [(device, 1, n) for n in range(FRAMES)]
    assert [v for _, k, v, _ in topic_records(stack.settings, names.DEVICES) if k == f"{text}/info".encode()] == [b"info"]
    assert [v for _, k, v, _ in topic_records(stack.settings, names.EVENTS) if k == text.encode()] == [b"event"]
