"""How a generator runs as a process: its plan from the command line, SIGTERM to cut it short, priority, no garbage collection."""

import contextlib
import gc
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from triax_sim.plan import BadPlan, Plan

__all__ = ["Generating", "serve"]


class Generating(Protocol):
    """A Fleet or a Gold."""

    stop: bool

    def run(self) -> dict[str, Any]:
        """All of it; the statistics."""


def _take_priority(nice: int) -> None:
    """Raise this process's priority where that is allowed."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    # Where sessions share the processor as groups (sched_autogroup), nice counts only within one; ours is a session of its own.
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(nice))


def serve(module: str, make: Callable[[Plan], Generating], arguments: list[str] | None) -> int:
    """Run the plan given as the only argument (`-`: a line of standard input).

    Exit code 0 whatever became of the frames: that is for the ledger to say. 2: no such plan.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if len(words) != 1:
        print(f"usage: python -m triax_sim.{module} PLAN (one JSON object, or - to read it from standard input)", file=sys.stderr)
        return 2
    try:
        plan = Plan.from_json(sys.stdin.readline() if words[0] == "-" else words[0])
        generator = make(plan)
    except BadPlan as error:
        print(error, file=sys.stderr)
        return 2

    def stop(*_: object) -> None:
        generator.stop = True

    signal.signal(signal.SIGTERM, stop)
    _take_priority(plan.nice)
    gc.collect()
    gc.freeze()
    gc.disable()  # nothing here makes cycles; a collection over 10,000 connections is a pause
    result = generator.run()
    print(json.dumps({"done": {name: result[name] for name in ("due", "sent", "acked", "unsent", "open")}}), flush=True)
    return 0
