"""The newest frame of each device, and who is online, in Redis or Valkey.

python -m triax_backend.sinks.redis [--metrics-port N] [--online-s S] [--group G]

    triax:{P}:latest     hash, one field per device of Kafka partition P: boot and sequence (big-endian), receive time, frame bytes
    triax:{P}:offsets    hash, next offset of each topic
    triax:online:DEVICE  boot of a device that said it is online; expires

"Latest" moves only forwards: the server compares (boot, sequence) itself, so replays and two instances at once do no harm. Of a
flush only the newest frame of each device goes out; the account counts the others as delivered with it.
"""

import argparse
import contextlib
import struct
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import redis
from google.protobuf.message import DecodeError
from triax_proto import names
from triax_proto.v1.device_pb2 import Status

from triax_backend import consume, crash
from triax_backend.consume import Batch, Part
from triax_backend.deadletter import UNREADABLE, DeadLetter, DeadLetters
from triax_backend.frames import Flat, Record, flat, unpack
from triax_backend.metrics import Account
from triax_backend.settings import Settings
from triax_backend.sinks.errors import SinkDown

__all__ = ["STAGE", "Latest", "connect", "latest", "online"]

STAGE = "redis"
ONLINE_S = 180  # three health messages of a minute
_AT_ONCE = 500  # devices in one call: half a millisecond of the server's time, so that others are not kept waiting
_HEAD = struct.Struct(">IIq")  # boot, sequence, received_us
# KEYS: latest; ARGV: device, value, ... Sets those values whose (boot, sequence) is larger; returns how many.
_FORWARD = """
local moved = 0
for i = 1, #ARGV, 2 do
  local old = redis.call('HGET', KEYS[1], ARGV[i])
  local take = not old
  if old then
    local ob, os = struct.unpack('>I4I4', old)
    local nb, ns = struct.unpack('>I4I4', ARGV[i + 1])
    take = nb > ob or (nb == ob and ns > os)
  end
  if take then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    moved = moved + 1
  end
end
return moved
"""
# KEYS: online; ARGV: boot, seconds to live (0: offline). A last will of an earlier boot comes late and says nothing.
_ONLINE = """
local old = tonumber(redis.call('GET', KEYS[1]) or '-1')
if tonumber(ARGV[1]) < old then return 0 end
if tonumber(ARGV[2]) > 0 then redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) else redis.call('DEL', KEYS[1]) end
return 1
"""


def connect(settings: Settings) -> "redis.Redis":
    """A client of TRIAX_REDIS; connects when first used."""
    return redis.Redis.from_url(settings.redis, socket_timeout=5, socket_connect_timeout=5, health_check_interval=30)


class Latest:
    """The sink that the loop in consume.py drives."""

    stage = STAGE
    topics: tuple[str, ...] = (names.FRAMES, names.DEVICES)

    def __init__(self, settings: Settings, online_s: int = ONLINE_S) -> None:
        self.account = Account(STAGE)
        self._client = connect(settings)
        self._forward = self._client.register_script(_FORWARD)
        self._online = self._client.register_script(_ONLINE)
        self._dead = DeadLetters(settings, STAGE, self.account)
        self._online_s = online_s

    def start(self, parts: list[Part]) -> dict[Part, int | None]:
        """Own these partitions: the offsets that the server has."""
        with _down():
            pipe = self._client.pipeline(transaction=False)
            for topic, partition in parts:
                pipe.hget(f"triax:{{{partition}}}:offsets", topic)
            return {part: None if at is None else int(at) for part, at in zip(parts, pipe.execute(), strict=True)}

    def write(self, batch: Batch) -> None:
        """Latest values first, then offsets: what is cut off between the two is done again and changes nothing."""
        records = [r for r in batch.records if r.topic == names.FRAMES]
        frames = flat(unpack(records), records)
        states = [r for r in batch.records if r.topic == names.DEVICES]
        self.account.took(len(frames.unpacked) + len(states))
        for bad in frames.unpacked.bad:
            record = records[bad.record]
            self._dead.put(_letter(record, bad.data, bad.why, "record" if bad.place < 0 else "frame"))
        with _down():
            for partition, values in _newest(frames):
                for at in range(0, len(values), 2 * _AT_ONCE):
                    self._forward(keys=[f"triax:{{{partition}}}:latest"], args=values[at : at + 2 * _AT_ONCE])
            good = len(states) - self._states(states)
            dead = self._dead.flush()
            crash.point("before_offsets", self.account.in_flight)
            pipe = self._client.pipeline(transaction=False)
            for (topic, partition), at in batch.next.items():
                pipe.hset(f"triax:{{{partition}}}:offsets", topic, str(at))
            pipe.execute()
        self.account.settled(out=len(frames) + good)
        for cause, count in dead.items():
            self.account.dead(cause, count)

    def _states(self, records: list[Record]) -> int:
        """Keep the online keys; number of records that cannot be read."""
        bad = 0
        now = time.time()
        for record in records:
            device, _, kind = (record.key or b"").decode(errors="replace").partition("/")
            if kind != "status" or not record.value:
                continue
            try:
                status = Status.FromString(record.value)
            except DecodeError as error:
                self._dead.put(_letter(record, record.value, str(error), "record"))
                bad += 1
                continue
            left = record.received_us / 1e6 + self._online_s - now
            self._online(keys=[f"triax:online:{device}"], args=[status.boot, int(left) if status.online and left >= 1 else 0])
        return bad

    def close(self) -> None:
        self._client.close()


@contextlib.contextmanager
def _down() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        text = " ".join(str(error).split())
        raise SinkDown(f"Redis does not take the write ({type(error).__name__}: {text}); TRIAX_REDIS says where it is") from error


def _newest(frames: Flat) -> Iterator[tuple[int, list[str | bytes]]]:
    """For each partition: device, value, device, value ... of the newest frame of each device."""
    if not len(frames):
        return
    order = np.lexsort((frames.sequence, frames.boot, frames.device))
    device = frames.device[order]
    last = order[np.append(device[1:] != device[:-1], True)]
    for partition in np.unique(frames.partition[last]).tolist():
        values: list[str | bytes] = []
        for i in last[frames.partition[last] == partition].tolist():
            head = _HEAD.pack(int(frames.boot[i]), int(frames.sequence[i]), frames.record_of(i).received_us)
            values += [names.device_text(int(frames.device[i])), head + frames.wire(i)]
        yield partition, values


def _letter(record: Record, data: bytes, detail: str, form: str) -> DeadLetter:
    source = f"{record.topic}/{record.partition}/{record.offset}"
    return DeadLetter(data, UNREADABLE, STAGE, source, 0, record.topic, form, detail, record.key)


def latest(client: "redis.Redis") -> dict[int, tuple[int, int, int, bytes]]:
    """Of each device: boot, sequence, receive time (UTC microseconds), frame bytes. Raises redis.RedisError."""
    out = {}
    for key in client.scan_iter("triax:{*}:latest", count=1000):
        found: Any = client.hgetall(key)
        for device, value in found.items():
            out[int(device, 16)] = (*_HEAD.unpack_from(value), value[_HEAD.size :])
    return out


def online(client: "redis.Redis") -> dict[int, int]:
    """Boot of each device that is online. Raises redis.RedisError."""
    keys = list(client.scan_iter("triax:online:*", count=1000))
    boots: list[Any] = client.mget(keys) if keys else []
    return {int(key.rpartition(b":")[2], 16): int(boot) for key, boot in zip(keys, boots, strict=True) if boot is not None}


def main() -> int:
    """Run as a process until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--online-s", type=int, default=ONLINE_S, help="seconds after which a silent device counts as offline")
    return consume.main(lambda settings, options: Latest(settings, options.online_s), "triax-redis", parser)


if __name__ == "__main__":
    sys.exit(main())
