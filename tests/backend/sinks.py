"""A place of its own for a sink's test: a fresh database, own consumer groups, processes that end with the test."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
import uuid

import numpy as np
import psycopg
from confluent_kafka import Consumer, TopicPartition
from triax_backend import hops
from triax_backend.sinks import iceberg
from triax_proto import names
from triax_proto.hop import HOP

from .build import fleet_frames

WAIT_S = 90


class Place:
    """`settings` with an own database on the servers of `settings`; `run` starts sinks as processes."""

    def __init__(self, settings, directory):
        self.name = f"t{uuid.uuid4().hex[:12]}"
        with psycopg.connect(settings.postgres, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {self.name}")
        base = settings.postgres.rpartition("/")[0]
        self.settings = dataclasses.replace(settings, postgres=f"{base}/{self.name}")
        self.directory = directory
        self.processes = []
        self._consumer = None
        self.device = int(self.name[1:9], 16) << 16  # no other test's frames have it

    def frames(self, devices, sequences, **more):
        out = fleet_frames(devices, sequences, **more)
        out["device"] = (out["device"] & np.uint64(0xFFFF)) | np.uint64(self.device)
        from triax_proto import frame

        frame.encode(out)
        return out

    def run(self, sink, *arguments, **environ):
        path = self.directory / f"{sink}-{len(self.processes)}.log"
        log = path.open("wb")
        group = f"{self.name}-{sink}"
        process = subprocess.Popen(
            [sys.executable, "-m", f"triax_backend.sinks.{sink}", "--group", group, *arguments],
            env={**os.environ, **self.settings.environ(), **environ},
            stderr=log,
        )
        log.close()
        process.log = path
        self.processes.append(process)
        return process

    def mine(self, rows):
        """Of arrays of HOP, those of this test's devices."""
        found = [r[(r["device"] >> np.uint64(16)) == np.uint64(self.device >> 16)] for r in rows]
        return np.concatenate(found) if found else np.empty(0, HOP)

    def postgres(self):
        try:
            return self.mine(hops.postgres(self.settings))
        except psycopg.errors.UndefinedTable:
            return np.empty(0, HOP)

    def lake(self):
        return self.mine(hops.lake(self.settings))

    def lake_caught_up(self):
        """Whether the lake holds all of Kafka's frames; without reading a row."""
        if self._consumer is None:
            self._consumer = Consumer({**self.settings.kafka_config(), "group.id": "ends"})
            self._table = iceberg.open_table(iceberg.catalog(self.settings), "frames")
        self._table.refresh()
        at = iceberg.next_offsets(self._table, names.FRAMES)
        parts = [TopicPartition(names.FRAMES, number) for number in range(16)]
        return all(self._consumer.get_watermark_offsets(p, timeout=10)[1] == at.get(p.partition, 0) for p in parts)

    def kafka(self):
        return self.mine(hops.kafka(self.settings))

    def kafka_once(self):
        """Frames in Kafka without repeats."""
        return hops.once(self.kafka())

    def wait(self, done, what="", timeout_s=WAIT_S, alive=()):
        """Poll until done() is true."""
        end = time.monotonic() + timeout_s
        while not (found := done()):
            for process in alive:
                assert process.poll() is None, f"died: {process.log.read_text()[-2000:]}"
            assert time.monotonic() < end, f"waited {timeout_s} s for {what}: {self.logs()}"
            time.sleep(0.2)
        return found

    def logs(self):
        return "\n".join(p.log.read_text()[-1500:] for p in self.processes)

    def stop(self, process):
        """SIGTERM; the exit code."""
        process.send_signal(signal.SIGTERM)
        return process.wait(15)

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            process.wait(10)
        if self._consumer is not None:
            self._consumer.close()


def identities(rows):
    """(device, boot, sequence, checksum) of each row, repeats and all, sorted."""
    return sorted(zip(*(rows[n].tolist() for n in ("device", "boot", "sequence", "checksum")), strict=True))
