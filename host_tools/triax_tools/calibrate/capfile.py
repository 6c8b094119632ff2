"""Capture files: a line of JSON about the sensor, then records as they arrived. Frames are kept byte for byte.

    {"format": "triax-capture/1", "device": ..., "part": ..., ...}\\n
    kind u8, length u32, arrival UTC microseconds i64, payload        little-endian
        1 frame    2 raw frame    3 mark (JSON)

A capture that was interrupted is a shorter capture: `capture` goes on where the file ends.
"""

import hashlib
import json
import struct
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from google.protobuf.message import DecodeError
from triax_proto.v1 import frame_pb2

from triax_tools.calibrate.errors import BadInput
from triax_tools.calibrate.recording import Identity, Mark, Recording, from_frames, from_values

__all__ = ["FRAME", "MARK", "RAW", "CaptureWriter", "load", "read_records"]

FRAME, RAW, MARK = 1, 2, 3
_FORMAT = "triax-capture/1"
_HEAD = struct.Struct("<BIq")
_LARGEST = 1 << 24  # bytes of a record: a damaged length must not read the rest of the disk


class CaptureWriter:
    """Appends records; each is on disk when the call returns, so that pulling the plug loses only what was not accepted yet."""

    def __init__(self, path: Path, identity: Identity, **more: object) -> None:
        self._file: BinaryIO
        if path.exists() and path.stat().st_size:
            header, self.resumed = read_records(path)
            for name, value in asdict(identity).items():
                if header.get(name) != value:
                    raise BadInput(f"{path}: holds a capture of {name} {header.get(name)!r}, not {value!r}: give another file")
            whole = path.read_bytes().index(b"\n") + 1 + sum(_HEAD.size + len(payload) for _, _, payload in self.resumed)
            self._file = path.open("r+b")
            self._file.truncate(whole)  # a record that was cut off would hide all that follow it
            self._file.seek(whole)
        else:
            self.resumed = []
            self._file = path.open("wb")
            header = {"format": _FORMAT, **asdict(identity), **more}
            self._file.write(json.dumps(header).encode() + b"\n")
            self._file.flush()

    def write(self, kind: int, arrival_us: int, payload: bytes) -> None:
        """Append one record."""
        self._file.write(_HEAD.pack(kind, len(payload), arrival_us) + payload)
        self._file.flush()

    def mark(self, arrival_us: int, **content: object) -> None:
        """Append what the guide decided."""
        self.write(MARK, arrival_us, json.dumps(content).encode())

    def close(self) -> None:
        """End the file."""
        self._file.close()


def read_records(path: Path) -> tuple[dict[str, object], list[tuple[int, int, bytes]]]:
    """Header and (kind, arrival_us, payload) of a capture. A last record that was cut off is left out. Raises BadInput."""
    data = path.read_bytes()
    if not data:
        raise BadInput(f"{path}: the file is empty")
    line, _, body = data.partition(b"\n")
    try:
        header = json.loads(line)
    except (ValueError, UnicodeDecodeError):
        raise BadInput(f"{path}: is no capture of triax (its first line is no JSON)") from None
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise BadInput(f"{path}: is no capture of format {_FORMAT}")
    records = []
    at = 0
    while at + _HEAD.size <= len(body):
        kind, length, arrival = _HEAD.unpack_from(body, at)
        if kind not in (FRAME, RAW, MARK) or length > _LARGEST:
            raise BadInput(f"{path}: byte {len(line) + 1 + at} is no record: the file was damaged there")
        if at + _HEAD.size + length > len(body):
            break
        records.append((kind, arrival, body[at + _HEAD.size : at + _HEAD.size + length]))
        at += _HEAD.size + length
    return header, records


def marks_of(records: list[tuple[int, int, bytes]]) -> list[dict[str, int | str]]:
    """Accepted rests that were not given back, in the order of acceptance: cell, boot, start and stop in raw samples."""
    kept: dict[str, dict[str, int | str]] = {}
    for kind, _, payload in records:
        if kind != MARK:
            continue
        content = json.loads(payload)
        if "open" in content:
            kept.pop(content["open"], None)
        elif "accepted" in content:
            kept[content["accepted"]] = content
    return list(kept.values())


def load(path: Path) -> Recording:
    """A capture as a recording: raw frames if it has any, else frames. Raises BadInput."""
    header, records = read_records(path)
    names = {f.name for f in fields(Identity)}
    identity = Identity(**{name: value for name, value in header.items() if name in names})  # type: ignore[arg-type]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    raw = [(arrival, payload) for kind, arrival, payload in records if kind == RAW]
    if raw:
        return _raw_recording(raw, identity, digest, str(path))
    frames = [(arrival, payload) for kind, arrival, payload in records if kind == FRAME]
    if not frames:
        raise BadInput(f"{path}: holds no frames: nothing arrived while it was recorded")
    arrivals = np.array([arrival for arrival, _ in frames], float) / 1e6
    payloads = [payload for _, payload in frames]
    local = header.get("gravity_m_s2", 0.0)
    recording = from_frames(payloads, arrivals, identity, data_sha256=digest, source=str(path), gravity_m_s2=local)
    return replace(recording, marks=tuple(_place(recording, mark) for mark in marks_of(records)))


def _place(recording: Recording, mark: dict[str, int | str]) -> Mark:
    """Raw sample numbers as indices of values."""
    inside = (recording.boot == mark["boot"]) & (recording.sample >= mark["start"]) & (recording.sample < mark["stop"])
    where = np.flatnonzero(inside)
    if len(where) == 0 or where[-1] - where[0] + 1 != len(where):
        raise BadInput(f"{recording.source}: the rest {mark['accepted']} is not in the frames of the file: it was damaged")
    return Mark(str(mark["accepted"]), int(where[0]), int(where[-1]) + 1)


def _raw_recording(raw: list[tuple[int, bytes]], identity: Identity, digest: str, source: str) -> Recording:
    """RawFrames: the first count as it is, then differences."""
    parts, starts, expected, at = [], [], None, 0
    message = frame_pb2.RawFrame()
    counts, arrivals = [], []
    for arrival, payload in raw:
        try:
            message.ParseFromString(payload)
        except DecodeError as error:
            raise BadInput(f"{source}: a raw frame of {len(payload)} bytes is damaged: {error}") from None
        values = np.stack([np.cumsum(np.asarray(axis, np.int64)) for axis in (message.x, message.y, message.z)], axis=1)
        if (message.boot, message.first_sample) != expected:
            starts.append(at)
        expected = (message.boot, message.first_sample + len(values))
        at += len(values)
        parts.append(values)
        counts.append(message.first_sample + len(values))
        arrivals.append(arrival / 1e6)
    scale = float(str(np.float32(message.scale_g)))
    named = Identity(**{**asdict(identity), "scale_g": identity.scale_g or scale})
    return from_values(
        np.concatenate(parts),
        message.rate_hz,
        named,
        starts=tuple(starts),
        block_count=np.array(counts, float),
        block_arrival_s=np.array(arrivals),
        data_sha256=digest,
        source=source,
    )
