"""A real mosquitto on a free port, with TLS if wanted, and a paho client that keeps what it hears."""

import atexit
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import paho.mqtt.client as paho


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(condition, what, seconds=15):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError(f"waited {seconds} s for {what}")


class Mosquitto:
    """`tls`: (ca, certificate, key) files; clients then need a certificate of that authority."""

    def __init__(self, folder: Path, tls=None, extra=""):
        self.port = free_port()
        self.folder = folder
        self.config = folder / "mosquitto.conf"
        lines = [
            f"listener {self.port} 127.0.0.1",
            "allow_anonymous true",
            "max_queued_messages 0",
            f"log_dest file {folder}/mosquitto.log",
        ]
        if tls:
            ca, certificate, key = tls
            lines += [f"cafile {ca}", f"certfile {certificate}", f"keyfile {key}", "require_certificate true"]
        if os.geteuid() == 0:
            lines.append("user root")
        self.config.write_text("\n".join([*lines, extra]) + "\n")
        self.process = None
        self.start()
        atexit.register(self.close)  # a test that fails leaves none behind

    def start(self):
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        self.process = subprocess.Popen([program, "-c", self.config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def listens():
            assert self.process.poll() is None, (self.folder / "mosquitto.log").read_text()
            with socket.socket() as one:
                return one.connect_ex(("127.0.0.1", self.port)) == 0

        wait_for(listens, "mosquitto")

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(10)


class Listener:
    """A plain paho client that knows topics and .proto files only."""

    def __init__(self, port, topic="triax/v1/#"):
        self.messages = []
        self.subscribed = threading.Event()
        self.topic = topic
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self.client.reconnect_delay_set(0.1, 0.2)
        self.client.on_connect = lambda client, *_: client.subscribe(self.topic, 1)
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.on_disconnect = lambda *_: self.subscribed.clear()
        self.client.on_message = lambda _client, _data, message: self.messages.append(
            (message.topic, message.payload, message.retain)
        )
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self.subscribed.wait(10)

    def _keep(self, _client, _data, message):
        self.messages.append((message.topic, message.payload, message.retain))

    def publish(self, topic, payload, retain=True):
        self.client.publish(topic, payload, 1, retain).wait_for_publish(10)

    def of(self, kind):
        return [payload for topic, payload, _ in self.messages if topic.endswith("/" + kind)]

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()
