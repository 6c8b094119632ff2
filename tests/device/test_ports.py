"""The Linux port on buses of its own making, and its main: what is asked of the kernel, and what is said when it is not there."""

import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from triax import main
from triax.errors import BadSetting
from triax.ports import disk, linux, linux_system
from triax.segments import Segments
from triax.spool import Spool

from .brokers import Listener, Mosquitto, wait_for

DEVICE = "0011223344556677"


class FakeSpidev(types.ModuleType):
    def __init__(self):
        super().__init__("spidev")
        self.opened = []
        self.SpiDev = lambda: self

    def open(self, bus, select):
        self.opened.append((bus, select))

    def fileno(self):
        return 77


@pytest.fixture
def kernel(monkeypatch):
    """spidev and the ioctl behind it: a part that answers with each byte plus one."""
    spidev = FakeSpidev()
    monkeypatch.setitem(sys.modules, "spidev", spidev)
    transfers = []

    def ioctl(descriptor, request, data):
        assert (descriptor, request) == (77, 0x40206B00)
        assert len(data) == 32, "struct spi_ioc_transfer"
        out, into, length, speed, delay, bits, change, _ = struct.unpack("=QQIIHBBI", data)
        assert (delay, bits, change) == (0, 8, 0)
        transfers.append((ctypes.string_at(out, length), speed))
        ctypes.memmove(into, bytes((byte + 1) & 255 for byte in ctypes.string_at(out, length)), length)

    monkeypatch.setattr("fcntl.ioctl", ioctl)
    return spidev, transfers


def test_a_transfer_is_one_ioctl_in_the_callers_buffers(kernel):
    spidev, transfers = kernel
    spi = linux.Spi(0, 1, 3, 10_000_000)
    assert spidev.opened == [(0, 1)]
    assert (spidev.mode, spidev.max_speed_hz) == (3, 10_000_000)
    tx, rx = bytearray(b"\x01\x02\x03"), bytearray(3)
    spi.write_readinto(tx, rx)
    assert rx == b"\x02\x03\x04"
    big = bytearray(10)
    spi.write_readinto(memoryview(tx)[:2], memoryview(big)[4:6])
    assert big == b"\0\0\0\0\x02\x03\0\0\0\0"
    assert transfers == [(b"\x01\x02\x03", 10_000_000), (b"\x01\x02", 10_000_000)]


class Message(list):
    pass


@pytest.fixture
def smbus(monkeypatch):
    module = types.ModuleType("smbus2")
    log = []

    class I2cMsg:
        @staticmethod
        def write(address, data):
            return Message(["write", address, list(data)])

        @staticmethod
        def read(address, length):
            return Message([7] * length)

    class SMBus:
        def __init__(self, bus):
            log.append(bus)

        def i2c_rdwr(self, *messages):
            log.append(messages)

    module.i2c_msg, module.SMBus = I2cMsg, SMBus
    monkeypatch.setitem(sys.modules, "smbus2", module)
    return log


def settings(tmp_path, **sensor):
    one = {"device": DEVICE, "part": "iis3dwb", "range_g": 16, "odr_hz": 26667, "bus": 0, "select": 0, **sensor}
    return {"node": {"folder": str(tmp_path)}, "link": {"host": "127.0.0.1", "tls": False}, "sensor": [one]}


def test_i2c_by_micropythons_names(smbus, tmp_path):
    port = linux.Port(settings(tmp_path))
    sensor = {"kind": "i2c", "bus": 1, "address": 0x68}
    device = port.device(sensor, main.part_class("mpu6050"))
    assert device.read(0x75) == 7
    device.write(0x6B, 0x80)
    assert smbus[0] == 1
    assert smbus[2][0] == ["write", 0x68, [0x6B, 0x80]]
    port.device(sensor, main.part_class("mpu6050"))
    assert smbus.count(1) == 1, "one bus for both"


def test_a_missing_module_is_named_with_its_package(monkeypatch, tmp_path):
    for name in ("spidev", "smbus2", "gpiod"):
        monkeypatch.setitem(sys.modules, name, None)
    port = linux.Port(settings(tmp_path))
    part = main.part_class("iis3dwb")
    with pytest.raises(BadSetting, match=r"pip install 'triax\[node\]'"):
        port.device({"bus": 0, "select": 0}, part)
    with pytest.raises(BadSetting, match="smbus2"):
        port.device({"kind": "i2c", "bus": 0, "address": 1}, part)
    with pytest.raises(BadSetting, match="gpiod"):
        port.data_ready({"ready": 25})
    assert port.data_ready({}) is None


def test_the_interrupt_line(monkeypatch, tmp_path):
    gpiod = types.ModuleType("gpiod")
    gpiod.line = types.SimpleNamespace(Value=types.SimpleNamespace(ACTIVE=1))
    gpiod.LineSettings = lambda: "input"
    level = [0]
    gpiod.request_lines = lambda chip, consumer, config: types.SimpleNamespace(get_value=lambda pin: level[0], asked=(chip, config))
    monkeypatch.setitem(sys.modules, "gpiod", gpiod)
    ready = linux.Port(settings(tmp_path)).data_ready({"ready": 25})
    assert not ready()
    level[0] = 1
    assert ready()


def test_the_clock_tells_utc_only_while_it_is_disciplined(monkeypatch):
    clock = linux_system.Clock()
    first = clock.ticks_us()
    assert 0 <= first < 1 << 30
    assert (clock.ticks_us() - first) & 0x3FFFFFFF < 1_000_000

    def adjtimex(status, error):
        def call(reference):
            reference._obj.status, reference._obj.maxerror = status, error
            return 0

        return call

    monkeypatch.setattr(clock, "_adjtimex", adjtimex(0x40, 1))
    assert clock.utc_us() is None
    monkeypatch.setattr(clock, "_adjtimex", adjtimex(0, 1500))
    assert abs(clock.utc_us() - time.time() * 1e6) < 1e6
    assert clock.utc_error_us == 1500
    monkeypatch.setattr(clock, "_adjtimex", lambda _: -1)
    assert clock.utc_us() is None


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_hears_ready_once_and_the_watchdog_at_each_feed(monkeypatch, tmp_path, abstract):
    name = f"@triax-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name[1:] if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        systemd = linux_system.Systemd()
        systemd.feed()
        systemd.feed()
        assert listener.recv(100) == b"READY=1\nWATCHDOG=1"
        assert listener.recv(100) == b"WATCHDOG=1"
        systemd._socket.close()


def test_without_systemd_feeding_does_nothing(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    linux_system.Systemd().feed()


def test_what_would_spoil_capture_is_said_with_its_cure(tmp_path):
    root = f"{tmp_path}/"
    assert linux_system.checks(3585, root) == []
    files = {
        "sys/module/spidev/parameters/bufsiz": "4096",
        "boot/firmware/config.txt": "dtparam=spi=on\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    wrong = linux_system.checks(5000, root)
    assert [any(word in line for line in wrong) for word in ("bufsiz=65536", "core_freq", "performance")] == [True] * 3
    (tmp_path / "boot/firmware/config.txt").write_text("dtparam=spi=on\ncore_freq=500\n")
    (tmp_path / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").write_text("performance\n")
    assert linux_system.checks(3585, root) == []


def test_real_time_says_what_it_could_not_have(monkeypatch):
    def refused(*_):
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr("os.sched_setscheduler", refused)
    monkeypatch.setattr("gc.freeze", lambda: None)
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: types.SimpleNamespace(mlockall=lambda _: -1))
    missing = linux_system.real_time()
    assert "CAP_SYS_NICE" in missing[0]
    assert "MEMLOCK" in missing[1]


def test_the_store_keeps_the_old_value_until_the_new_one_is_whole(tmp_path, monkeypatch):
    store = disk.Store(str(tmp_path / "store"))
    assert store.read("a") is None
    store.write("a", b"1")

    def cut(*_):
        raise OSError(28, "no space left on device")

    monkeypatch.setattr("os.fsync", cut)
    with pytest.raises(OSError, match="no space"):
        store.write("a", b"22")
    assert disk.Store(str(tmp_path / "store")).read("a") == b"1"


def test_files_are_synced_aside(tmp_path):
    files = disk.Files(str(tmp_path / "spool"))
    storage = Segments(files, 16, 24, 8, sync_frames=1)
    spool = Spool(storage)
    for number in range(20):
        spool.put(b"frame %d" % number, 8 if number > 9 else 7)
    storage.close()
    wait_for(files._queue.empty, "the syncs")
    again = Spool(Segments(disk.Files(str(tmp_path / "spool")), 16, 24, 8))
    assert again.depth == 16


def test_store_and_files_of_the_boards(tmp_path, monkeypatch):
    """The same modules run on MicroPython in test_upy_node."""
    from triax.ports import flash

    store = flash.Store(str(tmp_path / "store"))
    assert store.read("a") is None
    store.write("a", b"1")
    store.write("a", b"22")
    assert flash.Store(str(tmp_path / "store")).read("a") == b"22"
    monkeypatch.setattr("os.rename", lambda *_: (_ for _ in ()).throw(OSError(28, "no space left on device")))
    with pytest.raises(OSError, match="no space"):
        store.write("a", b"333")
    assert store.read("a") == b"22"
    files = flash.Files(str(tmp_path / "spool"))
    storage = Segments(files, 16, 24, 8, sync_frames=1)
    spool = Spool(storage)
    for number in range(20):
        spool.put(b"frame %02d" % number, 8)
    storage.close()
    again = Segments(flash.Files(str(tmp_path / "spool")), 16, 24, 8)
    assert Spool(again).depth == 16
    again.close()
    name = files.names()[0]
    files.remove(name)
    assert name not in files.names()


def test_free_memory_and_signal(monkeypatch, tmp_path):
    board = linux.Port(settings(tmp_path)).board
    assert board.free_heap() > 1_000_000
    wireless = "Inter-\n face\n wlan0: 0000   58.  -52.  -256\n"
    (tmp_path / "wireless").write_text(wireless)
    real = open
    monkeypatch.setattr(
        "builtins.open", lambda path, *a, **k: real(tmp_path / "wireless" if path == "/proc/net/wireless" else path, *a, **k)
    )
    assert board.signal_dbm() == -52
    (tmp_path / "wireless").write_text("Inter-\n face\n")
    assert board.signal_dbm() == 0
    with pytest.raises(SystemExit):
        board.update(b"")


HEAD = "[node]\nfolder='FOLDER'\n"
HOST = "[link]\nhost='h'\n"
SENSOR = "[[sensor]]\ndevice='0011223344556677'\n"
WRONG = {
    "no sensor": (HEAD + HOST, "no [[sensor]]"),
    "no host": (HEAD + SENSOR + "part='iis3dwb'\n", "no host"),
    "no part": (HEAD + HOST + SENSOR + "part='bmi270'\n", "no driver"),
    "no name of a part": (HEAD + HOST + SENSOR + "part='../x'\n", "is no part"),
    "no TOML": ("[node\n", "node.toml"),
}


def start(tmp_path, text, *arguments):
    (tmp_path / "node.toml").write_text(text.replace("FOLDER", str(tmp_path)))
    command = [sys.executable, "-m", "triax.main", "--config", tmp_path / "node.toml", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)


@pytest.mark.parametrize("name", WRONG)
def test_settings_that_are_wrong_end_with_2_and_a_line(tmp_path, name):
    text, what = WRONG[name]
    process = start(tmp_path, text)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 2, errors
    assert what in errors
    assert "Traceback" not in errors


def test_no_settings_at_all(tmp_path):
    with pytest.raises(BadSetting, match="nowhere"):
        main.load(str(tmp_path / "nowhere.toml"))
    with pytest.raises(BadSetting, match=r"\.json"):
        main.load(str(tmp_path / "nowhere.json"))


def test_check_says_and_stops(tmp_path):
    text = HEAD + HOST + SENSOR + "part='iis3dwb'\n"
    process = start(tmp_path, text, "--check")
    process.communicate(timeout=20)
    assert process.returncode == 0


FAKE = """
import sys, types
sys.path.insert(0, {tests!r})
from triax_sim import chips
from triax_sim.wiring import connect
from triax_sim.world import World
import numpy as np, time
from triax.ports import linux

world = World()
start = time.monotonic_ns() // 1000
twin = chips.load("iis3dwb")(world, lambda first, count: np.zeros((count, 3), dtype=np.int32))
spi, device = connect(world, twin)
real = spi.write_readinto
def write_readinto(tx, rx):
    world.advance_to(time.monotonic_ns() // 1000 - start)
    real(tx, rx)
spi.write_readinto = write_readinto
linux.Port.device = lambda self, sensor, part: device
linux.Port.data_ready = lambda self, sensor: None
from triax import main
from triax.ports import linux_system
linux_system.real_time = lambda: ["not tried in a test"]
sys.exit(main._main_linux(sys.argv[1:]))
"""


@pytest.mark.servers
def test_the_main_of_the_raspberry_pi_publishes_and_says_goodbye_on_sigterm(tmp_path):
    from triax import boot
    from triax_proto.v1.device_pb2 import Status

    broker = Mosquitto(tmp_path)
    listener = Listener(broker.port)
    boot.seed(disk.Store(str(tmp_path / "store")), 1_800_000_000)
    (tmp_path / "fake.py").write_text(FAKE.format(tests=str(Path(__file__).parent)))
    text = f"""
[node]
folder = "{tmp_path}"
[link]
host = "127.0.0.1"
port = {broker.port}
tls = false
[spool]
frames = 512
files = true
[[sensor]]
device = "{DEVICE}"
part = "iis3dwb"
range_g = 16
odr_hz = 26667
bus = 0
select = 0
"""
    (tmp_path / "node.toml").write_text(text)
    command = [sys.executable, tmp_path / "fake.py", "--config", tmp_path / "node.toml"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: len(listener.of("frame")) >= 10 or process.poll() is not None, "frames")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=15)
    finally:
        process.kill()
        broker_log = listener.of("status")
        listener.close()
        broker.close()
    assert process.returncode == 0, errors
    assert "not tried in a test" in errors
    assert Status.FromString(broker_log[-1]).reason == Status.REASON_STOPPED
    assert list((tmp_path / "spool" / DEVICE).iterdir())
