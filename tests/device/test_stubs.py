"""The ports of boards that cannot run here, type-checked against MicroPython's stubs for them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEVICE = ROOT / "device"
VERSION = "1.29.0.post1"
PORTS = ("wifi_board.py", "stream.py", "flash.py")


def stubs(board):
    """Folder with a board's stubs, installed once; they describe other modules than CPython's, so not into our environment."""
    folder = ROOT / ".triax" / "stubs" / f"{board}-{VERSION}"
    if not (folder / "machine.pyi").exists():
        package = f"micropython-{board}-stubs=={VERSION}"
        uv = Path(sys.executable).parent / "uv"
        subprocess.run(
            [uv, "pip", "install", "-q", "--python", sys.executable, "--target", folder, package], check=True, timeout=55
        )
    return folder


@pytest.mark.parametrize("board", ["esp32", "rp2"])
def test_a_port_uses_its_board_as_it_is(tmp_path, board):
    folder = stubs(board)
    files = [f"triax/ports/{name}" for name in (f"{board}.py", *PORTS)]
    options = ["--config-file", "/dev/null", "--no-strict-optional", "--check-untyped-defs", "--explicit-package-bases"]
    command = [sys.executable, "-m", "mypy", *options, "--follow-imports", "silent", "--cache-dir", tmp_path]
    command += ["--custom-typeshed-dir", folder, *files]
    done = subprocess.run(command, cwd=DEVICE, capture_output=True, text=True, env={"MYPYPATH": str(folder)}, check=False)
    ours = [line for line in done.stdout.splitlines() if line.startswith("triax/")]
    assert not ours, "\n".join(ours)
    assert done.returncode in (0, 1), done.stderr
    assert "checked 4 source files" in done.stdout


def test_ports_are_thin():
    for path in (DEVICE / "triax/ports").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 150, path.name
