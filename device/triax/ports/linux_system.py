"""Linux as a node needs it: a clock that knows its error, systemd's watchdog, real-time scheduling, checks with reasons."""

import ctypes
import gc
import os
import socket
import time

_TICKS = 0x3FFFFFFF
_STA_UNSYNC = 0x40


class _Timex(ctypes.Structure):
    """struct timex of adjtimex(2); only the first fields are read."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


class Clock:
    """The system's clocks. UTC is known while the kernel says that something (chrony, timesyncd) disciplines it."""

    def __init__(self) -> None:
        self.utc_error_us = 0
        self._timex = _Timex()
        self._adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex

    def ticks_us(self) -> int:
        """Monotonic microseconds modulo 2^30."""
        return time.monotonic_ns() // 1000 & _TICKS

    def utc_us(self):
        """UTC in microseconds; None while the system's clock is not set."""
        self._timex.modes = 0
        if self._adjtimex(ctypes.byref(self._timex)) < 0 or self._timex.status & _STA_UNSYNC:
            return None
        self.utc_error_us = max(self._timex.maxerror, 1)
        return time.time_ns() // 1000


class Systemd:
    """sd_notify(3): READY once, WATCHDOG at each feed. Without systemd nothing happens."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._ready = False
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if self._address else None

    def feed(self) -> None:
        """Samples are read: the node is alive."""
        if self._socket is not None:
            self._socket.sendto(b"WATCHDOG=1" if self._ready else b"READY=1\nWATCHDOG=1", self._address)
            self._ready = True


def real_time(priority: int = 50) -> list:
    """Run before other programs and without pauses of the collector. Returns what could not be had, and why it matters."""
    missing = []
    gc.collect()
    gc.freeze()
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except (OSError, AttributeError) as error:
        missing.append("SCHED_FIFO: %s; another program may stop capture for longer than a FIFO lasts: CAP_SYS_NICE" % error)
    if ctypes.CDLL(None, use_errno=True).mlockall(3):
        missing.append("mlockall: %s; a page fault costs milliseconds: LimitMEMLOCK=infinity" % os.strerror(ctypes.get_errno()))
    return missing


def checks(burst_bytes: int, root: str = "/") -> list:
    """What of this computer would spoil capture, and what to do about it."""
    wrong = []
    size = _read(root + "sys/module/spidev/parameters/bufsiz")
    if size and int(size) < burst_bytes:
        wrong.append("spidev bufsiz is %s, a burst is %d bytes: spidev.bufsiz=65536 in cmdline.txt" % (size, burst_bytes))
    config = _read(root + "boot/firmware/config.txt") or _read(root + "boot/config.txt")
    if config and not any(line.strip().startswith(("core_freq", "force_turbo=1")) for line in config.splitlines()):
        wrong.append("core_freq is not fixed: the SPI clock follows the core's; core_freq=250 (Pi 4: 500) in config.txt")
    governor = _read(root + "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor and governor != "performance":
        wrong.append("CPU governor is %s: waking from low speed costs up to a millisecond; set performance" % governor)
    return wrong


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""
