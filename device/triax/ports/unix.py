"""MicroPython's unix port: tests, and sensors behind a program. It has no SPI and no I2C of its own: `settings["node"]["buses"]`
names a module whose `device(sensor, part)` gives them. What blocks: see triax.ports.stream and triax.ports.flash.
"""

import gc
import sys
import time

from triax.ports.flash import Files, Store, _make
from triax.ports.stream import Link, Udp


class Watchdog:
    """None here; counts."""

    fed = 0

    def feed(self) -> None:
        """Samples are read."""
        self.fed += 1


class Board:
    """A PC."""

    name = "unix"
    slots = None

    def restart(self) -> None:
        """End; whoever started us starts us again."""
        sys.exit(75)

    def update(self, manifest: bytes) -> None:
        """Try the other slot's program after a restart; stay with ours if it is not what was asked for."""
        try:
            self.slots.switch(manifest)
        except ValueError as error:
            print("triax: %s" % error)
        self.restart()

    def free_heap(self) -> int:
        """Bytes."""
        return gc.mem_free()

    def signal_dbm(self) -> int:
        """No radio."""
        return 0


def _bytes(path):
    if not path:
        return None
    with open(path, "rb") as file:
        return file.read()


class Clock:
    """Ticks of the port, UTC of the PC."""

    utc_error_us = 100000

    def ticks_us(self) -> int:
        """Microseconds."""
        return time.ticks_us()

    def utc_us(self):
        """Microseconds since 1970: this port's epoch."""
        return time.time_ns() // 1000


class Port:
    """The hardware of a node.json."""

    def __init__(self, settings: dict) -> None:
        tls = settings.get("tls", {})
        self._folder = settings["node"]["folder"]
        self._buses = __import__(settings["node"]["buses"])
        self.clock = Clock()
        self.udp = Udp() if settings.get("time", {}).get("servers") else None
        self.store = Store(self._folder)
        self.link = Link(_bytes(tls.get("ca")), _bytes(tls.get("certificate")), _bytes(tls.get("key")))
        self.watchdog = Watchdog()
        self.board = Board()

    def files(self, name: str) -> Files:
        """A folder for segments."""
        _make(self._folder + "/spool")
        return Files(self._folder + "/spool/" + name)

    def device(self, sensor: dict, part):
        """From the module of buses."""
        return self._buses.device(sensor, part)

    def data_ready(self, sensor: dict):
        """No pins."""
        return None

    def wait(self, us: int) -> None:
        """Sleep."""
        time.sleep_us(us)
