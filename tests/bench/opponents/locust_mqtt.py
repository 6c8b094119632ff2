"""Load with locust: a user is a client of locust.contrib.mqtt at constant throughput. TRIAX_LOAD: JSON of port, hz, qos, bytes."""

import itertools
import json
import os

from locust import constant_throughput, task
from locust.contrib.mqtt import MqttUser

TOLD = json.loads(os.environ["TRIAX_LOAD"])
NUMBER = itertools.count()
PAYLOAD = bytes(TOLD["bytes"])


class Device(MqttUser):
    host, port = "127.0.0.1", TOLD["port"]
    use_loop_selectors = True  # else select() ends it at 340 connections
    wait_time = constant_throughput(TOLD["hz"])

    def on_start(self):
        self.topic = f"triax/v1/{next(NUMBER):016x}/frame"

    @task
    def frame(self):
        self.client.publish(self.topic, PAYLOAD, qos=TOLD["qos"])
