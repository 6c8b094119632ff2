"""The MQTT broker as calibration needs it: what is retained, what arrives, with deadlines. Nothing else here knows sockets."""

import queue
import threading
import time
from collections.abc import Iterator

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from triax_backend.mqtt_link import Address
from triax_backend.settings import BadUrl
from triax_proto.names import device_id, mqtt_topic
from triax_proto.v1.device_pb2 import DeviceInfo

from triax_tools.calibrate.errors import BadInput, DeviceError
from triax_tools.calibrate.recording import Identity

__all__ = ["Broker", "identity_of", "parse_device"]

_CONNECT_S = 10.0
ANSWER_S = 20.0  # a node's flash write and its next birth message; its reconnect backoff is not waited for


def parse_device(text: str) -> int:
    """16 hex digits, in any case, with or without separators. Raises BadInput."""
    plain = text.lower().replace(":", "").replace("-", "")
    try:
        return device_id(plain)
    except ValueError:
        raise BadInput(f"{text!r} is no device: want its EUI-64, 16 hex digits") from None


def identity_of(info: DeviceInfo) -> Identity:
    """The sensor as its node describes it."""
    import numpy as np

    return Identity(
        device=f"{info.device:016x}",
        part=info.part,
        sensor_serial=info.sensor_serial.hex(),
        firmware=info.firmware,
        range_g=info.range_g,
        scale_g=float(str(np.float32(info.scale_g))),
    )


class Broker:
    """A connection: `subscribe`, `publish`, and `messages` that ends at a deadline. Raises DeviceError, BadInput (the URL)."""

    def __init__(self, url: str) -> None:
        try:
            address = Address.of(url)
        except BadUrl as error:
            raise BadInput(str(error)) from None
        self.address = address
        self._arrived: queue.SimpleQueue[tuple[int, str, bytes]] = queue.SimpleQueue()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        if address.user is not None:
            self._client.username_pw_set(address.user, address.password)
        if address.tls:
            self._client.tls_set(address.ca, address.cert, address.key)
        self._accepted, self._subscribed = threading.Event(), threading.Event()
        self._topics: list[str] = []
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._subscribed.set()

    def __enter__(self) -> "Broker":
        try:
            self._client.connect(self.address.host, self.address.port, keepalive=30)
        except OSError as error:
            raise DeviceError(f"No broker at {self.address!r}: {error}. Give its address with --mqtt or TRIAX_MQTT.") from None
        self._client.loop_start()
        if not self._accepted.wait(_CONNECT_S):
            self.__exit__()
            raise DeviceError(f"The broker at {self.address!r} did not accept the connection within {_CONNECT_S:g} s.")
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def subscribe(self, *topics: str) -> None:
        """Hear topics, also after a reconnect. The broker has answered on return: what is retained follows at once."""
        self._topics += topics
        self._subscribed.clear()
        self._client.subscribe([(topic, 1) for topic in topics])
        if not self._subscribed.wait(_CONNECT_S):
            raise DeviceError(f"The broker did not answer a subscription within {_CONNECT_S:g} s.")

    def publish(self, topic: str, payload: bytes, retain: bool) -> None:
        """Publish with QoS 1 and wait for the broker's PUBACK."""
        sent = self._client.publish(topic, payload, qos=1, retain=retain)
        try:
            sent.wait_for_publish(_CONNECT_S)
        except (RuntimeError, ValueError) as error:
            raise DeviceError(f"The broker did not take {topic}: {error}") from None
        if not sent.is_published():
            raise DeviceError(f"The broker did not acknowledge {topic} within {_CONNECT_S:g} s.")

    def messages(self, seconds: float) -> Iterator[tuple[int, str, bytes]]:
        """(arrival UTC in microseconds, topic, payload) as they come, until `seconds` have passed."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                yield self._arrived.get(timeout=left)
            except queue.Empty:
                return

    def info(self, device: int, seconds: float = _CONNECT_S) -> DeviceInfo:
        """The device's retained birth message. Raises DeviceError if there is none."""
        topic = mqtt_topic(device, "info")
        self.subscribe(topic)
        for _, heard, payload in self.messages(seconds):
            if heard == topic:
                info = DeviceInfo()
                info.ParseFromString(payload)
                return info
        raise DeviceError(f"Device {device:016x} has never been seen at {self.address!r}: is the node on, and is this its broker?")

    def _on_connect(self, client: paho.Client, _data: object, _flags: object, reason: object, _properties: object) -> None:
        if not client.is_connected():
            return  # refused: user, password or client id
        self._accepted.set()
        if self._topics:
            client.subscribe([(topic, 1) for topic in self._topics])

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        self._arrived.put((time.time_ns() // 1000, message.topic, bytes(message.payload)))
