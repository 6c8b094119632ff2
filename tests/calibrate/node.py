"""A broker and two nodes for the tests: one played by paho from the contract alone, one that is the device package itself."""

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import threading
import time

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from triax.channel import Channel
from triax.chips.iis3dwb import Iis3dwb
from triax.node import Node
from triax.ports.tcp import Link
from triax.spool import Memory, Spool
from triax_proto.v1.device_pb2 import DeviceInfo
from triax_sim.chips import load
from triax_sim.motion import still
from triax_sim.sensor import Imperfections, Sensor
from triax_sim.wiring import connect
from triax_sim.world import World

DEVICE = 0x00112233445566FF


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def mosquitto(folder):
    """A broker of its own on a free port; yields its URL."""
    port = free_port()
    lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", *(["user root"] if os.geteuid() == 0 else [])]
    (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([program, "-c", folder / "mosquitto.conf"], **quiet)
    try:
        end = time.monotonic() + 15
        while time.monotonic() < end:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield f"mqtt://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


class PahoNode:
    """Stores what comes to `calibration` and says its hash in `info`, as the contract wants; `deaf` stores nothing."""

    def __init__(self, url, part="iis3dwb", serial=b"\1\2\3\4\5", range_g=2.0, deaf=False):
        self.info = DeviceInfo(device=DEVICE, boot=1, part=part, sensor_serial=serial, firmware="1.0", range_g=range_g)
        self.info.scale_g = range_g / 32768
        self.deaf = deaf
        self.prefix = f"triax/v1/{DEVICE:016x}/"
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._heard
        self._client.connect("127.0.0.1", int(url.rpartition(":")[2]))
        self._client.subscribe(self.prefix + "calibration", 1)
        self._client.loop_start()
        self.say()

    def say(self):
        self._client.publish(self.prefix + "info", self.info.SerializeToString(), 1, retain=True).wait_for_publish(10)

    def publish(self, kind, payload, retain=False):
        self._client.publish(self.prefix + kind, payload, 1, retain).wait_for_publish(10)

    def _heard(self, _client, _data, message):
        if self.deaf:
            return
        self.info.calibration_hash = hashlib.sha256(message.payload).digest() if message.payload else b""
        self._client.publish(self.prefix + "info", self.info.SerializeToString(), 1, retain=True)

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


class _Store:
    def __init__(self):
        self.data = {}

    def read(self, name):
        return self.data.get(name)

    def write(self, name, data):
        self.data[name] = bytes(data)


class _Clock:
    utc_error_us = 500

    def __init__(self, world):
        self.world, self.ticks_us = world, world.ticks_us

    def utc_us(self):
        return 1_800_000_000_000_000 + self.world.now_us


class _Board:
    name = "virtual"

    def restart(self):
        pass

    def free_heap(self):
        return -1

    def signal_dbm(self):
        return 0


class RealNode:
    """The device package on a virtual IIS3DWB, its world driven by a thread, its socket real."""

    def __init__(self, url, noise_ug=0.0):
        self.world = World()
        sensor = Sensor(still(), Imperfections(noise_ug_rthz=(noise_ug, noise_ug, noise_ug)))
        _, bus = connect(self.world, load("iis3dwb")(self.world, sensor))
        settings = {"range_g": 2, "odr_hz": 26_667}
        link = {"host": "127.0.0.1", "port": int(url.rpartition(":")[2]), "tls": False, "keepalive_s": 20}
        self.store = _Store()
        self._link = Link()
        channel = Channel(DEVICE, Iis3dwb(bus), Spool(Memory(100, 300)), settings, raw_sets=512, raw_slots=64)
        self.node = Node([channel], _Clock(self.world), self._link, self.store, link, _Board(), firmware="test")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def _run(self):
        while not self._stop.is_set():
            self.world.advance(8_000)
            self.node.step()
            time.sleep(0.002)

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(10)
        self._link.close()
