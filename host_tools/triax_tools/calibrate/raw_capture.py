"""A raw capture on command: every count of a bounded stretch, for noise and response above half the rate of the frames' values.

The command goes out with the next version of the device's configuration, which changes nothing else.
"""

import time

from google.protobuf.message import DecodeError
from triax_proto.names import mqtt_topic
from triax_proto.v1.device_pb2 import Command, ConfigAck
from triax_proto.v1.frame_pb2 import RawFrame

from triax_tools.calibrate import capfile
from triax_tools.calibrate.broker import Broker
from triax_tools.calibrate.errors import DeviceError
from triax_tools.config_push import send

__all__ = ["record_raw"]

_BEGIN_S = 15.0  # a node takes its configuration when it next polls its link; a busy one flushes its backlog first
_SILENT_S = 5.0  # between two raw frames: the capture has ended, or the node is gone
_WHOLE = 0.999  # of the samples asked for: the measured rate is not the nominal one to the last sample


def record_raw(broker: Broker, device: int, seconds: float, writer: capfile.CaptureWriter) -> int:
    """Ask the node for `seconds` of raw samples and write its raw frames; returns the samples written.

    Raises DeviceError: refused, or nothing came.
    """
    raw, acks = mqtt_topic(device, "raw"), mqtt_topic(device, "config/ack")
    broker.subscribe(raw)
    number = int(time.time()) & 0xFFFFFFFF
    command = Command(id=number, kind=Command.KIND_RAW_CAPTURE, duration_ms=round(seconds * 1e3))
    wanted, _ = send(broker, device, [], command)
    samples = 0
    deadline = time.monotonic() + _BEGIN_S
    while (left := deadline - time.monotonic()) > 0:
        for arrival_us, topic, payload in broker.messages(left):
            if topic == acks:
                _refuse(payload, wanted.version)
            elif topic == raw and (found := _frame(payload, number)) is not None:
                writer.write(capfile.RAW, arrival_us, payload)
                samples += found.samples
                deadline = time.monotonic() + _SILENT_S
                if samples >= _WHOLE * seconds * found.rate_hz:
                    return samples
            break  # the deadline may have moved
    if not samples:
        raise DeviceError(
            f"The node {device:016x} sent no raw frame within {_BEGIN_S:g} s: its board has no room for raw captures, or one is "
            "running."
        )
    return samples


def _frame(payload: bytes, number: int) -> RawFrame | None:
    """A raw frame of our capture."""
    frame = RawFrame()
    try:
        frame.ParseFromString(payload)
    except DecodeError:
        return None
    return frame if frame.capture == number else None


def _refuse(payload: bytes, version: int) -> None:
    """Raise DeviceError if the node rejected our command."""
    ack = ConfigAck()
    try:
        ack.ParseFromString(payload)
    except DecodeError:
        return
    if ack.version == version and ack.result == ConfigAck.RESULT_REJECTED:
        raise DeviceError(f"The node refused the raw capture: {ack.field} {ack.reason}.")
