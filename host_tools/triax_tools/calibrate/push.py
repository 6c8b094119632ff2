"""A calibration to the node and back: retained at triax/v1/<device>/calibration, proved by the hash that the node echoes.

A calibration belongs to a part and to a sensor's serial number. A node whose sensor was changed keeps the old one until it is told
otherwise; it is NOT VALID there, and both directions say so.
"""

from datetime import datetime

from triax_proto.names import mqtt_topic
from triax_proto.v1.device_pb2 import DeviceInfo

from triax_tools.calibrate import compact
from triax_tools.calibrate.broker import ANSWER_S, Broker, identity_of
from triax_tools.calibrate.document import Document
from triax_tools.calibrate.errors import BadDocument, DeviceError, NotValid

__all__ = ["pull", "push"]


def push(broker: Broker, device: int, document: Document, now: datetime, answer_s: float = ANSWER_S) -> bytes:
    """Store a calibration on the node; returns the blob's SHA-256 once the node has echoed it.

    Raises NotValid (another part or sensor), BadDocument (expired, another range, too long), DeviceError (no echo).
    """
    blob = compact.encode(document)
    info = broker.info(device)
    _belongs(document, info)
    document.check(identity_of(info), now)
    topics = [mqtt_topic(device, kind) for kind in ("calibration", "info")]
    broker.subscribe(*topics)
    broker.publish(topics[0], blob, retain=True)
    wanted = compact.digest(blob)
    held, echoed = False, info.calibration_hash == wanted
    for _, topic, payload in broker.messages(answer_s):
        if topic == topics[0]:
            held = payload == blob
        elif topic == topics[1]:
            echoed = DeviceInfo.FromString(payload).calibration_hash == wanted
        if held and echoed:
            return wanted
    if not held:
        raise DeviceError("The broker gives back another calibration than was sent: someone else is pushing too. Push again.")
    raise DeviceError(
        f"The node {device:016x} did not confirm the calibration within {answer_s:g} s. It is retained at the broker and will be "
        "taken when the node is back; see its hash with `pull`."
    )


def pull(broker: Broker, device: int, now: datetime, wait_s: float = 3.0) -> tuple[Document, bytes]:
    """The calibration that the node holds, and its SHA-256.

    Raises DeviceError (none there, or the node holds another than the broker), NotValid (another sensor now), BadDocument (damaged,
    expired, another range).
    """
    info = broker.info(device)
    topic = mqtt_topic(device, "calibration")
    broker.subscribe(topic)
    blob = next((payload for _, heard, payload in broker.messages(wait_s) if heard == topic), b"")
    if not blob:
        if info.calibration_hash:
            raise DeviceError("The node holds a calibration that the broker does not retain: push its file again.")
        raise DeviceError(f"Device {device:016x} has no calibration. Make one with capture and fit, then push it.")
    if info.calibration_hash != compact.digest(blob):
        raise DeviceError(
            "The node holds another calibration than the broker retains "
            f"({info.calibration_hash.hex()[:12] or 'none'}, not {compact.digest(blob).hex()[:12]}): push it again."
        )
    document = compact.decode(blob)
    _belongs(document, info)
    document.check(identity_of(info), now)
    return document, compact.digest(blob)


def _belongs(document: Document, info: DeviceInfo) -> None:
    """Raise NotValid unless the node carries the sensor that was calibrated."""
    own, there = document.identity, identity_of(info)
    if own.part and there.part and own.part != there.part:
        raise NotValid(f"NOT VALID: calibrated was a part {own.part}, the node carries a {there.part} now. Calibrate it.")
    if own.sensor_serial != there.sensor_serial:
        raise NotValid(
            f"NOT VALID: calibrated was the sensor with serial {own.sensor_serial or 'unknown'}, the node carries "
            f"{there.sensor_serial or 'one without a serial'} now. Calibrate the new sensor."
        )
    if own.device and own.device != there.device:
        raise BadDocument(f"This calibration is of device {own.device}, not of {there.device}.")
