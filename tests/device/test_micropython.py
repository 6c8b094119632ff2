"""The node's path from FIFO to frame on MicroPython, 64 and 32 bits, heap locked: the same bytes as on CPython."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from . import tape

HERE = Path(__file__).parent
TIMEOUT_S = 55
ROOT = HERE.parents[1]
LIMITS = {"2^30": 2**30, "2^32": 2**32}  # time and both counters pass it within the run
TWO = [("adxl382", "spi"), ("iis3dwb", "spi")]
OTHERS = [
    ("adxl380", "spi"),
    ("adxl355", "spi"),
    ("adxl345", "spi"),
    ("mpu6050", "i2c"),
    ("icm42688p", "spi"),
    ("lis3dh", "i2c"),
    ("lis2dw12", "i2c"),
]
RUNS = [(part, bus, below) for part, bus in TWO for below in LIMITS] + [(part, bus, "2^30") for part, bus in OTHERS]


def unix_port():
    return Path(sys.executable).parent / "micropython"


@cache
def node_modules():
    """Folder with the WebAssembly build, installed by npm once."""
    folder = ROOT / ".triax" / "micropython-wasm"
    wanted = HERE / "package-lock.json"
    have = folder / "package-lock.json"
    if not have.exists() or have.read_bytes() != wanted.read_bytes() or not (folder / "node_modules").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder / name)
        subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=folder, check=True, timeout=120)
    return folder


def run(command, **environment):
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=os.environ | {k: str(v) for k, v in environment.items()},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def replay64(tape_path, out_path):
    command = [unix_port(), "-X", "heapsize=64m", HERE / "replay.py", tape_path, out_path]
    return run(command, MICROPYPATH=ROOT / "device")


def replay32(tape_path, out_path):
    return run(["node", HERE / "micropython.mjs", ROOT / "device/triax", HERE / "replay.py", tape_path, out_path, node_modules()])


@cache
def recorded(part, bus, limit, frames):
    return tape.record(part, bus, limit, decimation=4 if frames <= 1000 else 1, frames=frames)


def check(tmp_path, replay, part, bus, below, frames):
    data, wanted = recorded(part, bus, LIMITS[below], frames)
    (tmp_path / "tape").write_bytes(data)
    told = replay(tmp_path / "tape", tmp_path / "out")
    assert told["allocated"] == 0
    assert told["gaps"] == 2  # overruns are on the tape: a gap costs no memory either
    assert (tmp_path / "out").read_bytes() == b"".join(wanted)
    return told


@pytest.mark.parametrize(("part", "bus", "below"), RUNS)
def test_ten_thousand_frames_on_64_bits(tmp_path, part, bus, below):
    told = check(tmp_path, replay64, part, bus, below, 10_000)
    assert (told["bits"], told["kernels"]) == (64, "viper")


@pytest.mark.parametrize(("part", "bus", "below"), RUNS)
def test_a_thousand_frames_on_32_bits(tmp_path, part, bus, below):
    told = check(tmp_path, replay32, part, bus, below, 1000)
    assert (told["bits"], told["kernels"]) == (32, "plain")


@pytest.mark.slow
@pytest.mark.parametrize(("part", "bus", "below"), RUNS)
def test_ten_thousand_frames_on_32_bits(tmp_path, part, bus, below):
    """Bytecode: 15 s a part."""
    check(tmp_path, replay32, part, bus, below, 10_000)


PROBE = """
import json
import micropython


def fails(make, value):
    micropython.heap_lock()
    try:
        make(value)
        return False
    except MemoryError:
        return True
    finally:
        micropython.heap_unlock()


told = {"list": fails(lambda v: [v], 1 << 29), "int": fails(lambda v: v + v, 1 << 29)}
with open(OUT, "wb") as file:
    file.write(b"")
print(json.dumps(told))
"""


def test_the_lock_tells_on_both(tmp_path):
    """The harness is checked: a list fails under the lock, and on 32 bits an int of 2^30 does too."""
    (tmp_path / "tape").write_bytes(b"")
    for out in (tmp_path / "out", "/out.bin"):
        (tmp_path / "probe.py").write_text(PROBE.replace("OUT", repr(str(out))))
        if out != "/out.bin":
            assert run([unix_port(), tmp_path / "probe.py"]) == {"list": True, "int": False}
            continue
        modules = node_modules()
        command = [
            "node",
            HERE / "micropython.mjs",
            ROOT / "device/triax",
            tmp_path / "probe.py",
            tmp_path / "tape",
            tmp_path / "out",
        ]
        assert run([*command, modules]) == {"list": True, "int": True}
