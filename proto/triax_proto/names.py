"""Names that every part agrees on: EUI-64 as text, MQTT and Kafka topics, the partition of a device."""

import re
import zlib

__all__ = [
    "CONFIG",
    "DEADLETTER",
    "DEVICES",
    "EVENTS",
    "FEATURES",
    "FRAMES",
    "KAFKA_TOPICS",
    "MODELS",
    "RAW",
    "device_id",
    "device_text",
    "mqtt_topic",
    "partition",
    "split_topic",
]

FRAMES = "triax.frames.v1"
RAW = "triax.raw.v1"
DEVICES = "triax.devices.v1"
CONFIG = "triax.config.v1"
FEATURES = "triax.features.v1"
EVENTS = "triax.events.v1"
MODELS = "triax.models.v1"
DEADLETTER = "triax.deadletter.v1"

# topic: compacted
KAFKA_TOPICS: dict[str, bool] = {
    FRAMES: False,
    RAW: False,
    DEVICES: True,
    CONFIG: True,
    FEATURES: False,
    EVENTS: False,
    MODELS: True,
    DEADLETTER: False,
}

_TOPIC = re.compile(r"triax/v1/([0-9a-f]{16})/(frame|raw|info|status|config|config/ack|calibration|event)")


def device_text(device: int) -> str:
    """EUI-64 as 16 lower-case hex digits."""
    return f"{device:016x}"


def device_id(text: str) -> int:
    """The EUI-64 of 16 lower-case hex digits. Raises ValueError."""
    if not re.fullmatch("[0-9a-f]{16}", text):
        raise ValueError(f"{text!r} is no device: want 16 lower-case hex digits")
    return int(text, 16)


def mqtt_topic(device: int, kind: str) -> str:
    """triax/v1/<device>/<kind>"""
    return f"triax/v1/{device:016x}/{kind}"


def split_topic(topic: str) -> tuple[int, str] | None:
    """Device and kind of an MQTT topic of ours, else None."""
    match = _TOPIC.fullmatch(topic)
    return (int(match[1], 16), match[2]) if match else None


def partition(device: int, partitions: int) -> int:
    """Kafka partition of a device: CRC-32 of its 8 bytes, big-endian, modulo the topic's partitions."""
    return zlib.crc32(device.to_bytes(8, "big")) % partitions
