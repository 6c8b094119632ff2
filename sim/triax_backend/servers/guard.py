"""A small process that ends our servers when the program that started them is gone, killed ones included."""

import signal
import subprocess
import sys
import threading

__all__ = ["Guard"]

# Reads "pid signal" lines until its standard input closes: by `close` (a last line "done") or by our death. A pid counts only
# while its start time is the one it had when the line came.
_SCRIPT = """
import os, signal, sys
def started(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[19]
    except OSError:
        return None
signal.signal(signal.SIGINT, signal.SIG_IGN)
watched = []
for line in sys.stdin:
    if line == "done\\n":
        sys.exit()
    pid, number = map(int, line.split())
    watched.append((pid, number, started(pid)))
for pid, number, start in watched:
    if start is not None and started(pid) == start:
        os.kill(pid, number)
"""


class Guard:
    """Watches over processes on behalf of this one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        command = [sys.executable, "-S", "-E", "-c", _SCRIPT]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)

    def watch(self, pid: int, number: int = signal.SIGTERM) -> None:
        """Send signal `number` to `pid` if this program ends without `close`."""
        self._say(f"{pid} {int(number)}\n")

    def _say(self, line: str) -> None:
        with self._lock:
            if self._child.stdin is not None:
                self._child.stdin.write(line)
                self._child.stdin.flush()

    def close(self) -> None:
        """End the guard; the processes that it watched live on."""
        self._say("done\n")
        if self._child.stdin is not None:
            self._child.stdin.close()
        self._child.wait(10)
