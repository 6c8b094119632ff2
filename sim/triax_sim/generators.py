"""The processes that make load, as a run holds them: started, told when to go, listened to, ended."""

import contextlib
import json
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from triax_sim.plan import Plan

__all__ = ["Child", "Generator", "GeneratorFailed"]


class GeneratorFailed(RuntimeError):
    """A generator process did not do its part; the message has the end of what it said."""


class Child:
    """A Python module of ours as a process that speaks JSON lines and obeys lines on its standard input."""

    def __init__(self, module: str, argument: str, log: Path) -> None:
        self.module, self.log = module, log
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._log = log.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"triax_sim.{module}", argument],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,  # Ctrl-C is for the run, which then ends us; and see serve.py on priorities
        )
        self._reader = threading.Thread(target=self._read, name=f"{module}-{self.process.pid}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            try:
                self._lines.put(json.loads(line))
            except ValueError:
                continue  # not one of ours: a library's print
        self._lines.put(None)

    def say(self, line: str) -> None:
        """Send a command; a process that is gone takes none."""
        if self.process.stdin is not None:
            try:
                self.process.stdin.write(line + "\n")
                self.process.stdin.flush()
            except (BrokenPipeError, ValueError):
                return

    def heard(self) -> list[dict[str, Any]]:
        """What it has said since the last call."""
        out: list[dict[str, Any]] = []
        while True:
            try:
                line = self._lines.get_nowait()
            except queue.Empty:
                return out
            if line is not None:
                out.append(line)

    def wait_for(self, key: str, timeout_s: float) -> dict[str, Any]:
        """Its first line with `key`. Raises GeneratorFailed if it ends or is silent."""
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left)
            except queue.Empty:
                break
            if line is None:
                raise GeneratorFailed(f"{self.module} ended early with {self.process.wait()}: {self.errors()}")
            if key in line:
                return line
        raise GeneratorFailed(f"{self.module} did not say {key!r} within {timeout_s:.0f} s: {self.errors()}")

    def errors(self) -> str:
        """The end of its standard error."""
        if not self._log.closed:
            self._log.flush()
        return self.log.read_text(errors="replace")[-2000:].strip() or "it said nothing"

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self.process.poll() is None

    def end(self, timeout_s: float = 20.0) -> int:
        """Close its input, wait, terminate, kill; exit code."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        for stop in (None, self.process.terminate, self.process.kill):
            if stop is not None:
                stop()
            try:
                code = self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                continue
            self._reader.join(5)
            if self.process.stdout is not None:
                self.process.stdout.close()
            self._log.close()
            return code
        raise GeneratorFailed(f"{self.module} cannot be ended")  # pragma: no cover


class Generator(Child):
    """A fleet or gold process with its plan."""

    def __init__(self, module: str, plan: Plan, log: Path) -> None:
        super().__init__(module, plan.to_json(), log)
        self.plan = plan
        self.last: dict[str, Any] = {}
        self.totals = {"due": 0, "sent": 0, "acked": 0, "cpu_s": 0.0}
        self.done: dict[str, Any] | None = None

    def listen(self) -> None:
        """Take in what it has said: the line of each second, and that it is done."""
        for line in self.heard():
            if "due" in line:
                self.last = line
                for name in self.totals:
                    self.totals[name] += line[name]
            if "done" in line:
                self.done = line["done"]

    def stats(self) -> dict[str, Any] | None:
        """Its statistics file, None if it did not come to that."""
        try:
            return dict(json.loads(Path(self.plan.stats).read_text()))
        except (OSError, ValueError):
            return None
