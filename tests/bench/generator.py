"""What a message costs the generator: ours beside mqttwrk, MQTT.js and locust, and ours at 1,000 and 10,000 devices.

    python tests/bench/generator.py [--clients 1000] [--hz 20] [--qos 1] [--seconds 10] [--only opponents]

Each generator alone against the same mosquitto, to which nobody subscribes, with payloads of 273 bytes. Messages are the broker's
own count, told once a second; CPU is user + system of the generator's processes between two such counts, once all are connected.

Nothing is installed: an opponent that is not there is named. mqttwrk: MQTTWRK or PATH. locust: LOCUST or PATH. MQTT.js: NODE_PATH,
or the node_modules that tests/backend/test_mqtt_clients.py leaves.
"""

import argparse
import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import paho.mqtt.client as paho
import psutil
from triax_backend.servers.mosquitto import Mosquitto
from triax_backend.servers.process import usage
from triax_proto.frame import VALUES, wire_size
from triax_sim.generators import Generator
from triax_sim.plan import Cohort, Plan, Target

HERE = Path(__file__).parent
MQTTJS = HERE.parent / "backend" / "mqttjs" / "node_modules"
CONNECT_S = 25.0  # for all clients; then what there is, is measured
SETTLE_S = 2.0  # of sending, before the first count
# Devices and frames/s each, in pairs: the same frames/s in all, the same frames/s each.
PAIRS = (((1_000, 10.0), (10_000, 1.0)), ((1_000, 2.0), (10_000, 2.0)))


class Broker(Mosquitto):
    """mosquitto as in the stack, but it counts every second."""

    def prepare(self):
        super().prepare()
        path = self.data / "mosquitto.conf"
        path.write_text(path.read_text().replace("sys_interval 5", "sys_interval 1"))


class Load(NamedTuple):
    """What every generator is told."""

    port: int
    clients: int
    hz: float
    qos: int
    bytes: int = wire_size(VALUES)

    def json(self):
        return json.dumps(self._asdict())


class Count(NamedTuple):
    """The broker's words, and what the generator had used by then."""

    received: int
    clients: int
    at_s: float
    cpu_s: float
    memory_bytes: int


class Result(NamedTuple):
    """One generator, measured."""

    clients: int
    rate: float
    cpu_us: float
    memory_bytes: int


class Counts:
    """Follows mosquitto's $SYS topics; `process` is looked at in the moment a count comes."""

    def __init__(self, port):
        self.process = None
        self._clients = 0
        self._heard = queue.SimpleQueue()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="counts")
        self._client.on_message = self._message
        self._client.connect("127.0.0.1", port)
        self._client.subscribe([("$SYS/broker/clients/connected", 0), ("$SYS/broker/publish/messages/received", 0)])
        self._client.loop_start()

    def _message(self, _client, _data, message):
        if message.topic.endswith("connected"):
            self._clients = int(message.payload) - 1  # this one
        elif self.process is not None:
            with contextlib.suppress(psutil.Error):
                used, memory = usage(self.process)
                self._heard.put(Count(int(message.payload), self._clients, time.monotonic(), used, memory))

    def measure(self, process, clients, seconds):
        """Let it connect and settle, then count for `seconds`; None if it does not send."""
        self.process, first, ready_s = process, None, None
        limit_s = time.monotonic() + CONNECT_S
        try:
            while True:
                count = self._heard.get(timeout=CONNECT_S)
                if ready_s is None and (count.clients >= clients or count.at_s > limit_s):
                    ready_s = count.at_s
                elif first is None and ready_s is not None and count.at_s - ready_s >= SETTLE_S:
                    first = count
                elif first is not None and count.at_s - first.at_s >= seconds - 0.5:
                    return result(first, count)
        except queue.Empty:
            return None
        finally:
            self.process = None
            while not self._heard.empty():
                self._heard.get()

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


def result(first, last):
    messages = last.received - first.received
    rate = messages / (last.at_s - first.at_s)
    return Result(last.clients, rate, (last.cpu_s - first.cpu_s) / max(1, messages) * 1e6, last.memory_bytes)


@contextlib.contextmanager
def ours(load, directory):
    """One fleet process."""
    name = f"ours-{load.clients}-{load.hz:g}-{load.qos}"
    cohort = Cohort("bulk", 0, load.clients, frame_hz=load.hz, qos=load.qos)
    ledger, stats = (str(directory / f"{name}.{end}") for end in ("ledger", "json"))
    plan = Plan(Target(port=load.port), (cohort,), ledger, stats, duration_s=120.0, drain_s=2.0, wait=True)
    generator = Generator("fleet", plan, directory / f"{name}.log")
    try:
        generator.wait_for("ready", 60)
        generator.say(f"go {time.time_ns() // 1000 + 100_000}")
        yield psutil.Process(generator.process.pid)
    finally:
        generator.process.terminate()
        generator.end()


@contextlib.contextmanager
def opponent(command, environ, log):
    """Another generator, killed afterwards."""
    with log.open("wb") as out:
        child = subprocess.Popen(command, env=os.environ | environ, stdout=out, stderr=out, cwd=log.parent)
    try:
        yield psutil.Process(child.pid)
    finally:
        child.kill()
        child.wait()


def found(variable, name):
    """Path of a program: a variable's, or in PATH; None."""
    path = os.environ.get(variable) or shutil.which(name)
    return path if path and Path(path).exists() else None


def opponents(load):
    """(name, command or None, environment) of each."""
    wrk = found("MQTTWRK", "mqttwrk")
    per_client = int(load.hz * 600)
    arguments = ["bench", "-S", "127.0.0.1", "-P", load.port, "-p", load.clients, "-n", per_client, "-r", int(load.hz)]
    arguments += ["-m", load.bytes, "--publish-qos", load.qos]
    yield "mqttwrk", wrk and [wrk, *map(str, arguments)], {}
    modules = Path(os.environ.get("NODE_PATH") or MQTTJS)
    node = shutil.which("node") if (modules / "mqtt").exists() else None
    yield "MQTT.js", node and [node, str(HERE / "opponents" / "mqttjs.cjs"), load.json()], {"NODE_PATH": str(modules)}
    locust = found("LOCUST", "locust")
    users = ["--headless", "--only-summary", "-u", str(load.clients), "-r", str(load.clients // 5)]
    told = {"TRIAX_LOAD": load.json()}
    yield "system calls alone", [sys.executable, str(HERE / "opponents" / "bare.py"), load.json()], {}
    yield "locust", locust and [locust, "-f", str(HERE / "opponents" / "locust_mqtt.py"), *users], told


def beside(load, counts, seconds, directory):
    """The table of all generators under one load."""
    rows = {}
    with ours(load, directory) as process:
        rows["triax fleet"] = counts.measure(process, load.clients, seconds)
    for name, command, environ in opponents(load):
        if command is None:
            rows[name] = "absent"
            continue
        with opponent(command, environ, directory / f"{name}.log") as process:
            rows[name] = counts.measure(process, load.clients, seconds)
    unit = rows["triax fleet"].cpu_us
    print(f"{load.clients:,} clients x {load.hz:g} messages/s, QoS {load.qos}, {load.bytes} bytes, {seconds:g} s each\n")
    print("| generator | clients | messages/s | CPU us/message | in units of ours |\n|---|---|---|---|---|")
    for name, row in rows.items():
        if not isinstance(row, Result):
            print(f"| {name} | {row or 'sent nothing'} | | | |")
        else:
            print(f"| {name} | {row.clients:,} | {row.rate:,.0f} | {row.cpu_us:.1f} | {row.cpu_us / unit:.1f} |")


def ladder(load, counts, seconds, directory):
    """Ours alone, 1,000 devices against 10,000."""
    print(f"\none process, QoS {load.qos}, {seconds:g} s each\n")
    names = ("devices", "frames/s each", "frames/s", "CPU us/frame", "x its pair", "MB", "kB a device more")
    print(f"| {' | '.join(names)} |\n{'|---' * len(names)}|")
    for pair in PAIRS:
        small = None
        for devices, hz in pair:
            one = load._replace(clients=devices, hz=hz)
            with ours(one, directory) as process:
                row = counts.measure(process, devices, seconds)
            compared = ""
            if small is not None:
                more = (row.memory_bytes - small.memory_bytes) / 1e3 / (devices - small.clients)
                compared = f"{row.cpu_us / small.cpu_us:.2f} | {row.memory_bytes / 1e6:.0f} | {more:.1f}"
            else:
                small, compared = row, f"| {row.memory_bytes / 1e6:.0f} |"
            print(f"| {devices:,} | {hz:g} | {row.rate:,.0f} | {row.cpu_us:.2f} | {compared} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1_000)
    parser.add_argument("--hz", type=float, default=20.0)
    parser.add_argument("--qos", type=int, choices=(0, 1), default=1)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--only", choices=("opponents", "devices"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="triax-bench-") as folder:
        directory = Path(folder)
        broker = Broker(directory)
        broker.start()
        counts = Counts(broker.port)
        try:
            load = Load(broker.port, options.clients, options.hz, options.qos)
            for name, table in (("opponents", beside), ("devices", ladder)):
                if options.only in (None, name):
                    table(load, counts, options.seconds, directory)
        finally:
            counts.close()
            broker.stop()


if __name__ == "__main__":
    sys.exit(main())
