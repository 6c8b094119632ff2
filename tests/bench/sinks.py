"""CPU per frame of the sinks and of the servers behind them: Kafka filled first, then each sink empties it. A Markdown table.

python tests/bench/sinks.py [--devices 10000] [--frames 100]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from confluent_kafka import Producer
from triax_backend import pipeline
from triax_backend.servers.ports import free_port
from triax_backend.servers.process import usage
from triax_backend.stack import Stack
from triax_proto import batch, frame, names

SINKS = {"timescale": "postgres", "lake": "s3", "redis": "redis"}
PER_RECORD = 125  # 20 ms of 10,000 devices over 16 partitions
WAIT_S = 300


def fill(settings, devices, count):
    """`count` frames of each device, as a fleet sends them; values with the spread of a quiet machine."""
    producer = Producer({**settings.kafka_config(), "linger.ms": 5, "queue.buffering.max.kbytes": 1_000_000})
    rng = np.random.default_rng(1)
    ids = np.arange(devices, dtype=np.uint64) + np.uint64(0x0200_0000_0000_0000)
    partition = np.array([names.partition(int(i), 16) for i in ids])
    start_us = int(time.time() * 1e6) - count * 100_000
    for number in range(count):
        frames = frame.empty(devices)
        frames["device"], frames["boot"], frames["sequence"] = ids, int(start_us / 1e6), number
        frames["first_sample"], frames["samples"] = number * 1600, 1600
        frames["time_us"], frames["time_error_us"] = start_us + number * 100_000, 300
        frames["rate_hz"], frames["decimation"], frames["scale_g"] = 16_000, 160, 0.0005
        for axis in "xyz":
            frames[axis] = rng.normal(0, 2000, (devices, 10))
        frames["minimum"], frames["maximum"] = rng.integers(-900, -700, (devices, 3)), rng.integers(700, 900, (devices, 3))
        frames["sum_squares"] = rng.integers(10**8, 2 * 10**8, (devices, 3))
        wire = frame.encode(frames)
        for p in range(16):
            mine = wire[partition == p]
            for at in range(0, len(mine), PER_RECORD):
                producer.produce(names.FRAMES, batch.join_array(mine[at : at + PER_RECORD]), partition=p)
        producer.poll(0)
    producer.flush()


def measure(stack, sink, total):
    """Frames/s and CPU microseconds a frame (sink, its server) from the first delivery to the last."""
    port = free_port()
    server = stack[SINKS[sink]].process
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", f"triax_backend.sinks.{sink}", "--metrics-port", str(port)],
            env={**os.environ, **stack.settings.environ()},
            stderr=log,
        )
        try:
            first, end = None, time.monotonic() + WAIT_S
            while time.monotonic() < end:
                time.sleep(0.05)
                account = pipeline.account(port)
                now = (
                    account.frames_out if account else 0,
                    time.monotonic(),
                    usage(psutil.Process(process.pid))[0],
                    usage(server)[0],
                )
                if now[0] and first is None:
                    first = now
                if now[0] >= total:
                    break
            else:
                raise SystemExit(f"{sink} delivered {now[0]} of {total} frames in {WAIT_S} s")
        finally:
            process.terminate()
            process.wait(30)
    count = now[0] - first[0]
    if not count:
        raise SystemExit("one flush held everything: more --frames")
    return count / (now[1] - first[1]), (now[2] - first[2]) / count * 1e6, (now[3] - first[3]) / count * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--frames", type=int, default=100, help="of each device")
    options = parser.parse_args()
    total = options.devices * options.frames
    with (
        tempfile.TemporaryDirectory(prefix="triax-bench-") as directory,
        Stack(Path(directory), only=("kafka", *SINKS.values())) as stack,
    ):
        fill(stack.settings, options.devices, options.frames)
        print(f"{total} frames of {options.devices} devices, emptied out of Kafka; load average {os.getloadavg()[0]:.1f}\n")
        print("| sink | frames/s alone | sink, us/frame | its server, us/frame |\n|---|---|---|---|")
        for sink in SINKS:
            rate, own, server = measure(stack, sink, total)
            print(f"| {sink} | {rate:,.0f} | {own:.2f} | {server:.2f} |", flush=True)


if __name__ == "__main__":
    main()
