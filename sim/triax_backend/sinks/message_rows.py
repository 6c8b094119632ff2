"""Events and device messages as rows: JSON of the message for people, its bytes for programs."""

import hashlib
import json
from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToDict
from triax_proto import names
from triax_proto.v1.device_pb2 import ConfigAck, DeviceInfo, Status
from triax_proto.v1.event_pb2 import Event

from triax_backend.frames import Record
from triax_backend.sinks.runs import event_time

__all__ = ["event", "signed", "state"]

# A sensor that differs from the one of the boots before is a new row of `sensors`; the first that is known counts from boot 0.
_INFO = """
WITH told AS (
    INSERT INTO devices AS d (device, boot, part, board, firmware, info, info_message, info_received)
    VALUES (%(device)s, %(boot)s, %(part)s, %(board)s, %(firmware)s, %(json)s::jsonb, %(message)s, triax_utc(%(received)s))
    ON CONFLICT (device) DO UPDATE SET boot = greatest(d.boot, excluded.boot), part = excluded.part, board = excluded.board,
        firmware = excluded.firmware, info = excluded.info, info_message = excluded.info_message,
        info_received = excluded.info_received
    WHERE d.info_received IS NULL OR d.info_received <= excluded.info_received
)
INSERT INTO sensors (device, boot, part, serial)
SELECT %(device)s, CASE WHEN EXISTS (SELECT FROM sensors WHERE device = %(device)s) THEN %(boot)s ELSE 0 END, %(part)s, %(serial)s
WHERE NOT EXISTS (
    SELECT FROM (SELECT * FROM sensors WHERE device = %(device)s AND boot <= %(boot)s ORDER BY boot DESC LIMIT 1) s
    WHERE s.part = %(part)s AND s.serial = %(serial)s
)
ON CONFLICT (device, boot) DO UPDATE SET part = excluded.part, serial = excluded.serial
"""
# A last will of an earlier boot comes late: it must not put a device offline that has started again since.
_STATUS = """
INSERT INTO devices AS d (device, boot, online, status_time, status, status_received)
VALUES (%(device)s, %(boot)s, %(online)s, triax_utc(%(time)s), %(json)s::jsonb, triax_utc(%(received)s))
ON CONFLICT (device) DO UPDATE SET boot = greatest(d.boot, excluded.boot), online = excluded.online,
    status_time = excluded.status_time, status = excluded.status, status_received = excluded.status_received
WHERE (d.status_received IS NULL OR d.status_received <= excluded.status_received) AND (d.boot IS NULL OR d.boot <= excluded.boot)
"""
_ACK = """
INSERT INTO devices AS d (device, config_ack, config_ack_received)
VALUES (%(device)s, %(json)s::jsonb, triax_utc(%(received)s))
ON CONFLICT (device) DO UPDATE SET config_ack = excluded.config_ack, config_ack_received = excluded.config_ack_received
WHERE d.config_ack_received IS NULL OR d.config_ack_received <= excluded.config_ack_received
"""


def signed(value: int) -> int:
    """An EUI-64 as SQL's bigint: the same bits."""
    return value - (1 << 64) if value >> 63 else value


def _json(message: Any) -> str:
    """JSON that PostgreSQL takes: its text has no NUL, its JSON no NaN."""
    return json.dumps(MessageToDict(message, preserving_proto_field_name=True)).replace("\\u0000", "\\ufffd")


_SMALLINT = 0x7FFF


def event(record: Record) -> dict[str, Any]:
    """Row of an Event. Raises DecodeError, ValueError."""
    found = Event.FromString(record.value)
    if not found.device and found.kind != Event.KIND_MODEL_REJECTED:  # that one is the stream's own
        raise ValueError("an event without a device")
    detail = found.WhichOneof("detail")
    if detail == "finding" and found.finding.axis > _SMALLINT:
        raise ValueError(f"a finding on axis {found.finding.axis}")
    kind = Event.Kind.Name(found.kind) if found.kind in Event.Kind.values() else f"KIND_{found.kind}"
    time_us, own = event_time(np.array([found.time_us]), np.array([found.time_error_us]), np.array([record.received_us]))
    return {
        "time": int(time_us[0]),
        "received": record.received_us,
        "device": signed(found.device),
        "boot": found.boot,
        "kind": kind.removeprefix("KIND_"),
        "number": found.number,
        "own_clock": bool(own[0]),
        "axis": found.finding.axis if detail == "finding" else None,
        "score": found.finding.score if detail == "finding" else None,
        "detail": _json(getattr(found, detail)) if detail else "{}",
        "message": record.value,
        "digest": int.from_bytes(hashlib.blake2b(record.value, digest_size=8).digest(), "big", signed=True),
    }


def state(record: Record) -> tuple[str, dict[str, Any]]:
    """Statement and values for a message of triax.devices.v1, by its key <device>/<kind>. Raises DecodeError, ValueError."""
    text, _, kind = (record.key or b"").decode(errors="replace").partition("/")
    device = signed(names.device_id(text))
    values: dict[str, Any] = {"device": device, "received": record.received_us}
    if kind == "info":
        info = DeviceInfo.FromString(record.value)
        values |= {"boot": info.boot, "part": info.part, "board": info.board, "firmware": info.firmware}
        values |= {"json": _json(info), "message": record.value, "serial": info.sensor_serial.hex()}
        return _INFO, {k: v.replace("\0", "") if isinstance(v, str) else v for k, v in values.items()}
    if kind == "status":
        status = Status.FromString(record.value)
        return _STATUS, values | {
            "boot": status.boot,
            "online": status.online,
            "time": _sane(status, record),
            "json": _json(status),
        }
    if kind == "config/ack":
        return _ACK, values | {"json": _json(ConfigAck.FromString(record.value))}
    raise ValueError(f"key {record.key!r} names no kind of message: want <device>/info, status or config/ack")


def _sane(status: Status, record: Record) -> int:
    time_us, _ = event_time(np.array([status.time_us]), np.array([0]), np.array([record.received_us]))
    return int(time_us[0])
