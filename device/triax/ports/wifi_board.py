"""What the boards with MicroPython and Wi-Fi have in common; esp32 and rp2 say what differs.

What blocks, so that its gaps are BLOCKED: a name look-up; the cryptographic steps of a TLS handshake (about a second in all); a
write to internal flash (hardware/boards: erase stall). Joining Wi-Fi does not block.
"""

import gc
import os
import time

import machine
import network

from triax.bus import I2cDevice, SpiDevice
from triax.errors import LinkError
from triax.ports.flash import Files, Store, _make
from triax.ports.stream import Link, Udp
from triax.timeserver import TimeServer
from triax.update import Slots


def _bytes(path):
    if not path:
        return None
    with open(path, "rb") as file:
        return file.read()


class WifiLink(Link):
    """The link, on a Wi-Fi that is joined when it is needed."""

    def __init__(self, wifi: dict, ca=None, certificate=None, key=None) -> None:
        super().__init__(ca, certificate, key)
        self._wifi = wifi
        self.station = network.WLAN(network.WLAN.IF_STA)
        self.station.active(True)

    def connect(self, host: str, port: int, tls: bool) -> bool:
        """Begin, if there is Wi-Fi; else join and say so."""
        if not self.station.isconnected():
            if self.station.status() != network.STAT_CONNECTING:
                self.station.connect(self._wifi["ssid"], self._wifi["password"])
            raise LinkError("%s: no Wi-Fi yet (status %s)" % (self._wifi["ssid"], self.station.status()))
        return super().connect(host, port, tls)


class Board:
    """The chip."""

    def __init__(self, name: str, link: WifiLink) -> None:
        self.name = name
        self.slots: "Slots" = None
        self._link = link

    def restart(self) -> None:
        """Reset."""
        machine.reset()

    def update(self, manifest: bytes) -> None:
        """Try the other slot's program after a reset; stay with ours if it is not what was asked for."""
        try:
            self.slots.switch(manifest)
        except ValueError as error:
            print("triax: %s" % error)
        machine.reset()

    def free_heap(self) -> int:
        """Bytes."""
        return gc.mem_free()

    def signal_dbm(self) -> int:
        """Of the access point."""
        return self._link.station.status("rssi") if self._link.station.isconnected() else 0


class Watchdog:
    """The chip's: once started it cannot be stopped, so it starts at the first feed."""

    def __init__(self, timeout_ms: int) -> None:
        self._watchdog: "machine.WDT" = None
        self._timeout_ms = timeout_ms

    def feed(self) -> None:
        """Samples are read."""
        if self._watchdog is None:
            self._watchdog = machine.WDT(timeout=self._timeout_ms)
        self._watchdog.feed()


class BoardPort:
    """The hardware of a node.json."""

    BOARD = "board"
    WATCHDOG_MS = 8000

    def __init__(self, settings: dict) -> None:
        tls = settings.get("tls", {})
        self._folder = settings["node"]["folder"]
        self.store = Store(self._folder)
        self.link = WifiLink(settings["wifi"], _bytes(tls.get("ca")), _bytes(tls.get("certificate")), _bytes(tls.get("key")))
        self.udp = Udp()
        self.clock = TimeServer(self.udp, settings["time"]["servers"], time.ticks_us, os.urandom)
        self.watchdog = Watchdog(self.WATCHDOG_MS)
        self.board = Board(settings["node"].get("board", self.BOARD), self.link)

    def files(self, name: str) -> Files:
        """A folder for segments: on an SD card mounted at `folder`, else on internal flash."""
        _make(self._folder + "/spool")
        return Files(self._folder + "/spool/" + name)

    def device(self, sensor: dict, part):
        """The part on SPI or I2C `bus` with the pins of the settings."""
        if sensor.get("kind", "spi") == "i2c":
            bus = machine.I2C(
                sensor["bus"], scl=machine.Pin(sensor["scl"]), sda=machine.Pin(sensor["sda"]), freq=sensor.get("speed_hz", 400000)
            )
            return I2cDevice(bus, sensor["address"], time.sleep_us)
        speed_hz = min(sensor.get("speed_hz", part.SPI_MAX_HZ), part.SPI_MAX_HZ)
        spi = machine.SPI(
            sensor["bus"],
            baudrate=speed_hz,
            polarity=part.SPI_MODE >> 1,
            phase=part.SPI_MODE & 1,
            sck=machine.Pin(sensor["sck"]),
            mosi=machine.Pin(sensor["mosi"]),
            miso=machine.Pin(sensor["miso"]),
        )
        return SpiDevice(spi, machine.Pin(sensor["select"], machine.Pin.OUT, value=1), time.sleep_us)

    def data_ready(self, sensor: dict):
        """The interrupt line, if one is wired: read as a level, since edges can be lost."""
        return machine.Pin(sensor["ready"], machine.Pin.IN) if "ready" in sensor else None

    def wait(self, us: int) -> None:
        """Sleep."""
        time.sleep_us(us)
