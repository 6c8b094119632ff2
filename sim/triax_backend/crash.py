"""Named points at which a test may have this process killed, to show that nothing is lost or repeated there.

TRIAX_CRASH=after_copy        SIGKILL at the first pass of that point
TRIAX_CRASH=after_copy:3      at the third
TRIAX_CRASH_ONCE=path         and never again once that file is there (made before the kill), whoever restarts the process; it
                              holds the number of frames that were in flight
"""

import os
import signal
from pathlib import Path

__all__ = ["point"]

_passes: dict[str, int] = {}


def point(name: str, in_flight: int = 0) -> None:
    """Die here if the environment asks for it; else nothing. `in_flight`: frames taken and not settled."""
    wanted = os.environ.get("TRIAX_CRASH")
    if not wanted:
        return
    target, _, count = wanted.partition(":")
    if target != name:
        return
    _passes[name] = _passes.get(name, 0) + 1
    if _passes[name] != int(count or 1):
        return
    once = os.environ.get("TRIAX_CRASH_ONCE")
    if once:
        try:
            with Path(once).open("x") as note:
                note.write(str(in_flight))
        except FileExistsError:
            return
    os.kill(os.getpid(), signal.SIGKILL)
