"""What a frame costs each process of the path, at a given rate, in units of what a lone mosquitto costs to move the same frames.

    python tests/bench/path.py [--devices 2000] [--seconds 30] [--pairs 1] [--qos 1]

Arms alternate in one run: the generator and one mosquitto with one subscriber that throws everything away; then the whole path by
mosquitto and bridge; then by the ingest front. Same frames, QoS, TCP, devices and rate. CPU is user + system of all processes but
the generator.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from triax_backend.stack import Stack
from triax_sim.pipeline import System
from triax_sim.run import run
from triax_sim.scenario import Scenario, Tampering, load
from triax_tools.path import path

SUBSCRIBER = """
import socket, sys
sys.path.insert(0, '')
link = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
link.sendall(bytes([0x10, 19]) + b'\\0\\x04MQTT\\x04\\x02\\0\\0\\0\\x07counter')
link.recv(4)
topic = b'triax/v1/+/frame'
link.sendall(bytes([0x82, 5 + len(topic), 0, 1, 0, len(topic)]) + topic + b'\\0')
print('ready', flush=True)
buffer = bytearray(1 << 20)
while link.recv_into(buffer):
    pass
"""


@contextlib.contextmanager
def lone(directory: Path) -> Iterator[System]:
    """One mosquitto and one subscriber at QoS 0 that parses nothing."""
    with Stack(directory / "lone", only=("mqtt",)) as stack:
        port = urlsplit(stack.settings.mqtt).port
        child = subprocess.Popen([sys.executable, "-c", SUBSCRIBER, str(port)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        try:
            yield System(stack.settings, "bridge", (), stack.status)
        finally:
            child.kill()
            child.wait()
            child.stdout.close()


def arm(scenario: Scenario, system: System, directory: Path) -> tuple[dict[str, float], float, str]:
    """CPU us per frame of each process of the path, of the generator, and the verdict."""
    report = run(scenario, system, directory)
    costs = {row["name"]: row["us_per_frame"] for row in report.data["processes"]}
    return costs, report.data["generator"]["cpu_us_per_frame"], f"{report.verdict} {'; '.join(report.data['reasons'])}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--qos", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    scenario = load("ten-thousand").with_(devices=options.devices, qos=options.qos, duration_s=options.seconds)
    plain = replace(scenario, cohorts=scenario.of_kind("bulk"), tampering=Tampering(devices=0))
    found: dict[str, list[dict[str, float]]] = {"mosquitto alone": [], "mosquitto + bridge": [], "ingest front": []}
    with tempfile.TemporaryDirectory(prefix="triax-bench-") as folder:
        for pair in range(options.pairs):
            with lone(Path(folder)) as system:
                found["mosquitto alone"].append(_record(plain, system, Path(folder) / f"lone-{pair}"))
            for name, way in (("mosquitto + bridge", "bridge"), ("ingest front", "ingest")):
                with path(Path(folder), "embedded", way, stream=False) as system:
                    time.sleep(2)
                    found[name].append(_record(plain, system, Path(folder) / f"{way}-{pair}"))
    _print(found, options)


def _record(scenario: Scenario, system: System, directory: Path) -> dict[str, float]:
    costs, generator, verdict = arm(scenario, system, directory)
    print(f"<!-- {directory.name}: {verdict} -->", file=sys.stderr)
    return {**costs, "generator": generator}


def _print(found: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> None:
    medians = {name: {key: statistics.median(one[key] for one in runs) for key in runs[0]} for name, runs in found.items()}
    unit = sum(value for key, value in medians["mosquitto alone"].items() if key == "mqtt")
    if options.json:
        print(json.dumps({"unit_us": unit, "arms": medians}))
        return
    machine = f"{psutil.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{options.devices:,} devices x 10 frames/s, QoS {options.qos}, {options.seconds:g} s, {machine}\n")
    print("| process, CPU µs/frame | " + " | ".join(medians) + " |\n|---|" + "---|" * len(medians))
    for key in dict.fromkeys(key for costs in medians.values() for key in costs):
        print(f"| {key} | " + " | ".join(f"{costs[key]:.2f}" if key in costs else "" for costs in medians.values()) + " |")
    total = {name: sum(v for k, v in costs.items() if k != "generator") for name, costs in medians.items()}
    print("| **all but the generator** | " + " | ".join(f"{value:.2f}" for value in total.values()) + " |")
    print("| **in units of a lone mosquitto** | " + " | ".join(f"{value / unit:.2f}" for value in total.values()) + " |")


if __name__ == "__main__":
    main()
