"""Driver and twin of every part on MicroPython of 64 bits (unix port) and 32 bits (WebAssembly build)."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from .conftest import pairs

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCRIPT = HERE / "on_micropython.py"
FOLDERS = {"triax": ROOT / "device/triax", "triax_sim": ROOT / "sim/triax_sim"}


def node_modules():
    """Folder with the WebAssembly build, installed by npm once for all tests (tests/device pins it)."""
    folder = ROOT / ".triax" / "micropython-wasm"
    wanted = ROOT / "tests/device/package-lock.json"
    have = folder / "package-lock.json"
    if not have.exists() or have.read_bytes() != wanted.read_bytes() or not (folder / "node_modules").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(wanted.with_name(name), folder / name)
        subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=folder, check=True, timeout=120)
    return folder


def run(command, **environment):
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=55, env=os.environ | environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@cache
def results(bits):
    """What the script says of all pairs, in one run a build."""
    folder = ROOT / ".triax" / "contract"
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / f"contract{bits}.py"
    script.write_text(f"PAIRS = {pairs()!r}\n" + SCRIPT.read_text())
    if bits == 64:
        path = ":".join(str(source.parent) for source in FOLDERS.values())
        return run([Path(sys.executable).parent / "micropython", "-X", "heapsize=64m", script], MICROPYPATH=path)
    mounts = [str(word) for name, source in FOLDERS.items() for word in (source, "/" + name)]
    return run(["node", HERE / "micropython.mjs", node_modules(), script, *mounts])


@pytest.mark.parametrize("bits", [64, 32])
def test_contract_holds_on_micropython(pair, bits):
    assert results(bits)["-".join(pair)] == "ok"
