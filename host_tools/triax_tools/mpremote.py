"""A board on a serial port, by MicroPython's own tool."""

import subprocess
import sys
from pathlib import Path

__all__ = ["Mpremote"]

_REMOVE = """
import os
def remove(path):
    for name, kind, *_ in os.ilistdir(path):
        (remove if kind & 0x4000 else os.remove)(path + '/' + name)
    os.rmdir(path)
try:
    os.stat({path!r})
except OSError:
    pass
else:
    remove({path!r})
"""
# A program of 40 files at 115,200 baud takes half a minute; a board that hangs takes for ever.
_COPY_S = 300


class Mpremote:
    """A board on a serial port. Raises RuntimeError with what to check."""

    def __init__(self, port: str, program: tuple[str, ...] = (sys.executable, "-m", "mpremote")) -> None:
        self._command = [*program, "connect", port]

    def copy(self, folder: Path) -> None:
        """Everything in the folder to the board's root."""
        self._run(["fs", "cp", "-r", *[str(path) for path in sorted(folder.iterdir())], ":/"])

    def remove(self, folder: str) -> None:
        """A folder there with all that it holds: what an earlier program left would be found before this one's. May be absent."""
        self.execute(_REMOVE.format(path=folder))

    def execute(self, code: str) -> str:
        """Run a line there; returns what it printed."""
        return self._run(["exec", code])

    def reset(self) -> None:
        """Start the board again."""
        self._run(["reset"])

    def _run(self, arguments: list[str]) -> str:
        try:
            done = subprocess.run([*self._command, *arguments], check=False, capture_output=True, text=True, timeout=_COPY_S)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"the board did not answer within {_COPY_S} s: unplug it and try again") from None
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            if "No module named mpremote" in done.stderr:
                raise RuntimeError("mpremote is missing: pip install mpremote")
            raise RuntimeError(f"mpremote {arguments[0]}: {' '.join(last)}; is the port right, and does the board run MicroPython?")
        return done.stdout
