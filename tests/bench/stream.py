"""What the stream and its sink cost a frame, in units of a lone mosquitto that moves the same frames; and PyFlink beside it.

    python tests/bench/stream.py [--devices 10000] [--seconds 15] [--flink]

In one run: the generator and one mosquitto with a subscriber that throws everything away; then frames of as many devices put into
Kafka at 10 a second each, the runner and the features sink following live. CPU is user + system of whole processes. With --flink
the job then reads the same frames out of Kafka as fast as it can, in one slot, beside our functions alone on the same records.
"""

import argparse
import contextlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from confluent_kafka import Producer
from path import arm, lone
from triax_backend import pipeline, scan
from triax_backend.pipeline import FLINK, FLINK_JVM
from triax_backend.servers.ports import free_port
from triax_backend.servers.process import usage
from triax_backend.settings import Settings
from triax_backend.stack import Stack
from triax_backend.stream.columns import of_records
from triax_backend.stream.process import Stream
from triax_proto import batch, frame, names
from triax_sim.motions import bank
from triax_sim.pipeline import group_lag
from triax_sim.scenario import Tampering, load

ROOT = Path(__file__).parents[2]
PARTITIONS = 16
FLINK_ROUND = 32  # records that flink_job.py, which imports PyFlink, processes at once
TICK_S = 0.02  # a round of the way into Kafka: its records hold what a fifth of the devices sent
WARM_S = 6.0  # states exist, detectors are warm
READ_S = 45.0


def feed(environ: dict[str, str], devices: int, seconds: float, sent: Any) -> None:
    """Frames of a fleet in real time, as the way in writes them; `sent` gets their number and the worst lateness in s."""
    os.environ.update(environ)
    producer = Producer({**Settings.from_env().kafka_config(), "linger.ms": 1, "queue.buffering.max.kbytes": 1_000_000})
    banks = [bank("adxl382", motion, 0.0, seed, 64).frames for motion in ("smooth", "rotor") for seed in (1, 2)]
    templates = np.concatenate([one.view(np.uint8).reshape(len(one), -1) for one in banks])
    ids = np.arange(devices, dtype=np.uint64) + np.uint64(0x0200_0000_0000_0000)
    places = np.array([names.partition(int(device), PARTITIONS) for device in ids])
    rng = np.random.default_rng(1)
    start, boot, worst, ticks = time.time(), int(time.time()), 0.0, int(seconds / TICK_S)
    for tick in range(ticks):
        mine = np.arange(tick % 5, devices, 5)
        frames = templates[rng.integers(0, len(templates), len(mine))].view(frame.frame_dtype()).ravel()
        frames["device"], frames["boot"], frames["sequence"] = ids[mine], boot, tick // 5
        frames["first_sample"] = tick // 5 * 1600
        frames["time_us"], frames["time_error_us"] = int((start + tick // 5 * 0.1) * 1e6), 500
        frames["rate_hz"], frames["temperature_mc"] = 16_000, 25_000
        wire = frame.encode(frames)
        for number in range(PARTITIONS):
            part = wire[places[mine] == number]
            if len(part):
                producer.produce(names.FRAMES, batch.join_array(part), partition=number)
        producer.poll(0)
        rest = start + (tick + 1) * TICK_S - time.time()
        worst = max(worst, -rest)
        if rest > 0:
            time.sleep(rest)
    producer.flush(30)
    sent.put((len(range(ticks)) * devices // 5, worst))


@contextlib.contextmanager
def worker(settings: Settings, module: str, log: Path) -> Iterator[tuple[psutil.Process, int]]:
    """A process of ours and its metrics port."""
    port = free_port()
    with log.open("wb") as out:
        command = [sys.executable, "-m", f"triax_backend.{module}", "--metrics-port", str(port)]
        process = subprocess.Popen(command, env={**os.environ, **settings.environ()}, stderr=out)
    try:
        yield psutil.Process(process.pid), port
    finally:
        process.terminate()
        process.wait(30)


def live(stack: Stack, directory: Path, devices: int, seconds: float) -> tuple[dict[str, float], float, int]:
    """CPU microseconds a frame of each process while the frames come; the feeder's worst lateness; records behind at the end."""
    sent: Any = multiprocessing.Queue()
    feeder = multiprocessing.Process(target=feed, args=(stack.settings.environ(), devices, seconds + WARM_S, sent))
    with (
        worker(stack.settings, "stream.runner", directory / "runner.log") as (runner, port),
        worker(stack.settings, "sinks.features", directory / "sink.log") as (sink, _),
    ):
        of = {
            "stream runner": runner,
            "features sink": sink,
            "postgres": stack["postgres"].process,
            "kafka": stack["kafka"].process,
        }
        time.sleep(3)
        feeder.start()
        time.sleep(WARM_S)
        before = {name: usage(process)[0] for name, process in of.items()}
        account = pipeline.account(port)
        assert account is not None, (directory / "runner.log").read_text()[-2000:]
        time.sleep(seconds - 2)
        now = pipeline.account(port)
        after = {name: usage(process)[0] for name, process in of.items()}
        assert now is not None
        frames = now.frames_in - account.frames_in
        assert frames > 0, "the runner took nothing"
        _, worst = sent.get(timeout=60)
        feeder.join(30)
    return {name: (after[name] - before[name]) / frames * 1e6 for name in of}, worst, now.lag_records


def threads(tree: psutil.Process) -> Counter[str]:
    """CPU seconds of the threads of a process and its children, by name."""
    out: Counter[str] = Counter()
    for process in (tree, *tree.children(recursive=True)):
        with contextlib.suppress(psutil.Error, OSError):
            for thread in process.threads():
                name = Path(f"/proc/{process.pid}/task/{thread.id}/comm").read_text().strip()
                out[name.rstrip("0123456789#/- ")] += thread.user_time + thread.system_time
    return out


def flink(stack: Stack, directory: Path) -> tuple[float, float, Counter[str]]:
    """Frames/s, CPU microseconds a frame and those of each thread of the PyFlink job in one slot, over what Kafka holds."""
    path = os.pathsep.join(str(ROOT / part) for part in ("proto", "sim"))
    environ = {**os.environ, **stack.settings.environ(), "PYTHONPATH": path, **FLINK_JVM}
    environ["PATH"] = f"{FLINK / 'bin'}{os.pathsep}{os.environ['PATH']}"
    command = [str(FLINK / "bin/python"), "-m", "triax_backend.stream.flink_job", "--checkpoints", str(directory / "checkpoints")]
    per_record = sum(len(batch.split(r.value)) for r in _records(stack.settings, 200)) / 200
    with (directory / "flink.log").open("wb") as out:
        process = subprocess.Popen(
            [*command, "--no-models"], env=environ, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        tree = psutil.Process(process.pid)
        points: list[tuple[float, int, float, Counter[str]]] = []  # s, records left, CPU s, of threads
        until = time.monotonic() + READ_S
        while time.monotonic() < until and process.poll() is None:
            left = group_lag(stack.settings, ["triax-stream-flink"])["triax-stream-flink"]
            if not points or left != points[-1][1]:
                points.append((time.monotonic(), left, usage(tree)[0], threads(tree)))
            if not left:
                break
            time.sleep(0.25)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait(10)
    if len(points) < 5:
        raise SystemExit(f"Flink did not get far: {(directory / 'flink.log').read_text()[-1500:]}")
    # Between checkpoints in full work: start-up is before the first, and the last waits for partitions that have nothing more.
    first, last = points[1], points[-2]
    frames = (first[1] - last[1]) * per_record
    of_threads = Counter({name: (used - first[3][name]) / frames * 1e6 for name, used in last[3].items()})
    return frames / (last[0] - first[0]), (last[2] - first[2]) / frames * 1e6, of_threads


def _records(settings: Settings, most: int) -> list[Any]:
    out: list[Any] = []
    for found in scan.records(settings, names.FRAMES):
        out += found
        if len(out) >= most:
            break
    return out[:most]


def alone(settings: Settings) -> float:
    """CPU microseconds a frame of our functions, called as the Flink job calls them: FLINK_ROUND records of one partition."""
    by_partition: dict[int, list[tuple[int, bytes]]] = {}
    for record in _records(settings, 6000):
        by_partition.setdefault(record.partition, []).append((record.partition, record.value))
    rounds = [part[at : at + FLINK_ROUND] for part in by_partition.values() for at in range(0, len(part), FLINK_ROUND)]
    stream, half = Stream(), len(rounds) // 2
    for records in rounds[:half]:
        stream.process(of_records(records)[0])
    frames, began = stream.frames, time.process_time()
    for records in rounds[half:]:
        stream.process(of_records(records)[0])
    return (time.process_time() - began) / (stream.frames - frames) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--flink", action="store_true")
    options = parser.parse_args()
    scenario = load("ten-thousand").with_(devices=options.devices, duration_s=options.seconds)
    plain = replace(scenario, cohorts=scenario.of_kind("bulk"), tampering=Tampering(devices=0))
    with tempfile.TemporaryDirectory(prefix="triax-bench-") as folder:
        directory = Path(folder)
        with lone(directory) as system:
            unit = arm(plain, system, directory / "run")[0]["mqtt"]
        with Stack(directory / "stack", only=("kafka", "postgres", "s3")) as stack:
            costs, worst, lag = live(stack, directory, options.devices, options.seconds)
            print(f"{options.devices:,} devices x 10 frames/s, {options.seconds:g} s, {psutil.cpu_count()} cores\n")
            print(f"The feeder was at most {worst * 1e3:.0f} ms late, {lag} records waited for the runner at the end.\n")
            print("| process | CPU us/frame | lone mosquittos |\n|---|---|---|")
            print(f"| lone mosquitto | {unit:.2f} | 1 |")
            for name, cost in costs.items():
                print(f"| {name} | {cost:.2f} | {cost / unit:.2f} |")
            ours = costs["stream runner"] + costs["features sink"]
            print(f"| **runner + its sink** | {ours:.2f} | **{ours / unit:.2f}** |", flush=True)
            if options.flink:
                pure = alone(stack.settings)
                rate, cost, of_threads = flink(stack, directory)
                print(f"\nPyFlink, one slot: {rate:,.0f} frames/s, {cost:.2f} us of CPU a frame, of which our functions {pure:.2f}")
                print("by thread: " + ", ".join(f"{name} {used:.2f}" for name, used in of_threads.most_common(6)))


if __name__ == "__main__":
    main()
