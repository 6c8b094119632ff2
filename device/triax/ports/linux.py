"""CPython on a Raspberry Pi (or any Linux with spidev): two sensors on CE0 and CE1, TCP or TLS, files on the SD card.

What blocks: nothing in the loop but transfers on the bus (a full FIFO of an IIS3DWB at 10 MHz: 2.9 ms) and writes to the store (one
fsync, on a configuration or calibration from the broker). Connecting and the spool's fsyncs run in threads.
"""

import ctypes
import fcntl
import os
import struct
import sys
import time

from triax.bus import I2cDevice, SpiDevice
from triax.errors import BadSetting
from triax.ports.disk import Files, Store
from triax.ports.linux_system import Clock, Systemd
from triax.ports.tcp import Link

_SPI_IOC_MESSAGE_1 = 0x40206B00  # linux/spi/spidev.h


def _module(name: str, package: str):
    try:
        return __import__(name)
    except ImportError as error:
        raise BadSetting("no module %s: pip install 'triax[node]' (or %s)" % (name, package)) from error


def _sleep_us(us: int) -> None:
    time.sleep(us / 1e6)


class Spi:
    """spidev with `write_readinto`: one ioctl a transfer, from and into the caller's buffers (py-spidev only makes lists)."""

    def __init__(self, bus: int, select: int, mode: int, speed_hz: int) -> None:
        self._spi = _module("spidev", "spidev").SpiDev()
        self._spi.open(bus, select)
        self._spi.mode = mode
        self._spi.max_speed_hz = speed_hz
        self._descriptor = self._spi.fileno()
        self._speed_hz = speed_hz

    def write_readinto(self, tx, rx) -> None:
        """Exchange tx for rx; the kernel holds the chip select meanwhile."""
        kind = ctypes.c_char * len(tx)
        out, into = kind.from_buffer(tx), kind.from_buffer(rx)
        transfer = struct.pack("=QQIIHBBI", ctypes.addressof(out), ctypes.addressof(into), len(tx), self._speed_hz, 0, 8, 0, 0)
        fcntl.ioctl(self._descriptor, _SPI_IOC_MESSAGE_1, transfer)


class I2c:
    """smbus2 with MicroPython's names."""

    def __init__(self, bus: int) -> None:
        self._smbus2 = _module("smbus2", "smbus2")
        self._bus = self._smbus2.SMBus(bus)

    def readfrom_mem_into(self, address: int, register: int, buffer) -> None:
        """Read into the buffer from a register on."""
        ask = self._smbus2.i2c_msg.write(address, [register])
        answer = self._smbus2.i2c_msg.read(address, len(buffer))
        self._bus.i2c_rdwr(ask, answer)
        buffer[:] = bytes(answer)

    def writeto_mem(self, address: int, register: int, buffer) -> None:
        """Write the buffer to a register."""
        self._bus.i2c_rdwr(self._smbus2.i2c_msg.write(address, [register, *buffer]))


class Board:
    """The computer."""

    def __init__(self, name: str) -> None:
        self.name = name

    def restart(self) -> None:
        """End with a code on which systemd starts us again."""
        sys.exit(75)

    def update(self, manifest: bytes) -> None:
        """Packages are the system's business; a restart takes what it has installed."""
        self.restart()

    def free_heap(self) -> int:
        """Bytes of memory that are free."""
        return min(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), 0xFFFFFFFE)

    def signal_dbm(self) -> int:
        """Of the first wireless interface; 0: none."""
        try:
            with open("/proc/net/wireless") as file:
                return int(float(file.readlines()[2].split()[3]))
        except (OSError, IndexError):
            return 0


class Port:
    """The hardware of a node.toml."""

    def __init__(self, settings: dict) -> None:
        tls = settings.get("tls", {})
        self._folder = settings["node"]["folder"]
        self._chip = settings["node"].get("gpio", "/dev/gpiochip0")
        self.clock = Clock()
        self.udp = None
        self.store = Store(os.path.join(self._folder, "store"))
        self.link = Link(tls.get("ca"), tls.get("certificate"), tls.get("key"))
        self.watchdog = Systemd()
        self.board = Board(settings["node"].get("board", "raspberry-pi-4"))
        self._buses = {}

    def files(self, name: str) -> Files:
        """A folder for segments."""
        return Files(os.path.join(self._folder, "spool", name))

    def device(self, sensor: dict, part):
        """The part on spidev<bus>.<select>, or on i2c-<bus> at `address`."""
        if sensor.get("kind", "spi") == "i2c":
            bus = sensor["bus"]
            if bus not in self._buses:
                self._buses[bus] = I2c(bus)
            return I2cDevice(self._buses[bus], sensor["address"], _sleep_us)
        speed_hz = min(sensor.get("speed_hz", part.SPI_MAX_HZ), part.SPI_MAX_HZ)
        spi = Spi(sensor["bus"], sensor["select"], part.SPI_MODE, speed_hz)
        return SpiDevice(spi, lambda level: None, _sleep_us)  # the kernel drives chip select

    def data_ready(self, sensor: dict):
        """The interrupt line, if one is wired."""
        if "ready" not in sensor:
            return None
        gpiod = _module("gpiod", "gpiod")
        pin = sensor["ready"]
        request = gpiod.request_lines(self._chip, consumer="triax", config={pin: gpiod.LineSettings()})
        return lambda: request.get_value(pin) == gpiod.line.Value.ACTIVE

    def wait(self, us: int) -> None:
        """Sleep."""
        time.sleep(us / 1e6)
