"""Runs our worker processes: starts them with the settings, starts them again when they die, ends them in order.

    python -m triax_backend.supervise --directory .triax bridge sinks.timescale "stream.runner --metrics-port 9105"

A worker is `python -m triax_backend.<name>`. SIGTERM to the supervisor drains them all.
"""

import argparse
import contextlib
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from triax_backend.servers.guard import Guard
from triax_backend.servers.process import Family, families, tail, usage
from triax_backend.settings import Settings

__all__ = ["Supervisor", "Worker", "WorkerStatus", "main"]

log = logging.getLogger(__name__)

_LOOK_S = 0.1
# Doubles from the first to the last; a worker that lived longer than the last is started again at once.
_BACKOFF_S = (0.1, 5.0)
# A worker may take 20 s to deliver what it holds; then it is killed, and its source sends everything again.
_DRAIN_S = 30.0
_NICE_DEATHS = 3  # in a row before its log is shown as an error


@dataclass(frozen=True)
class WorkerStatus:
    """`cpu_s`: user + system of all its processes so far, dead ones included."""

    name: str
    pid: int | None
    alive: bool
    restarts: int
    cpu_s: float
    memory_bytes: int
    log: str


class Worker:
    """One worker and the processes that it has been."""

    def __init__(self, name: str, command: Sequence[str], log_path: Path, env: dict[str, str]) -> None:
        self.name, self.command, self.log, self.env = name, list(command), log_path, env
        self.restarts = 0
        self.exit_code: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._process: psutil.Process | None = None
        self._past_cpu_s = 0.0
        self._started_s = 0.0
        self._next_s = 0.0
        self._quick_deaths = 0

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return self._child.pid if self._child is not None else None

    def start(self) -> None:
        """Start the process."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as out:
            self._child = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=self.env, start_new_session=True
            )
        self._process = psutil.Process(self._child.pid)
        self._started_s = time.monotonic()

    def look(self, now_s: float) -> None:
        """Start the process again if it is gone and its time has come."""
        if self._child is None:
            if now_s >= self._next_s:
                self.restarts += 1
                self.start()
        elif self.ended():
            lived_s = now_s - self._started_s
            self._quick_deaths = self._quick_deaths + 1 if lived_s < _BACKOFF_S[1] else 0
            wait_s = min(_BACKOFF_S[1], _BACKOFF_S[0] * 2 ** max(0, self._quick_deaths - 1)) if self._quick_deaths else 0.0
            self._next_s = now_s + wait_s
            level = logging.ERROR if self._quick_deaths >= _NICE_DEATHS else logging.WARNING
            log.log(level, "%s ended with %s after %.1f s; again in %.1f s", self.name, self.exit_code, lived_s, wait_s)
            if level == logging.ERROR:
                log.error("the end of %s:\n%s", self.log, tail(self.log))

    def ended(self) -> bool:
        """Reap the process if it has ended, keeping what it used. `wait4` tells what psutil no longer can."""
        if self._child is None:
            return True
        pid, status, used = os.wait4(self._child.pid, os.WNOHANG)
        if not pid:
            return False
        self._past_cpu_s += used.ru_utime + used.ru_stime
        self.exit_code = self._child.returncode = os.waitstatus_to_exitcode(status)
        self._child = self._process = None
        return True

    def signal(self, number: int) -> None:
        """Send a signal to the process, if there is one."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child.pid, number)

    def status(self, family: Family | None = None) -> WorkerStatus:
        """How it is now."""
        used, memory = self._past_cpu_s, 0
        process = self._process
        if process is not None:
            now_s, memory = usage(process, family)
            used += now_s
        return WorkerStatus(self.name, self.pid, process is not None, self.restarts, used, memory, str(self.log))


class Supervisor:
    """Keeps workers alive from a thread of its own until `stop`."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self.settings, self.directory = settings, Path(directory)
        self.workers: dict[str, Worker] = {}
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._guard: Guard | None = None

    def run(
        self,
        module: str,
        *arguments: str,
        name: str | None = None,
        env: dict[str, str] | None = None,
        python: str | Path = sys.executable,
    ) -> Worker:
        """Start `python -m triax_backend.<module> <arguments>` and keep it running; `python`: of another environment."""
        command = [str(python), "-m", f"triax_backend.{module}", *arguments]
        worker = Worker(
            name or module, command, self._log(name or module), {**os.environ, **self.settings.environ(), **(env or {})}
        )
        with self._lock:
            if worker.name in self.workers:
                raise ValueError(f"there is a worker {worker.name} already; give another name")
            self.workers[worker.name] = worker
            worker.start()
            self._watch(worker)
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="supervisor", daemon=True)
                self._thread.start()
        return worker

    def _log(self, name: str) -> Path:
        return self.directory / "logs" / f"{name}.log"

    def _watch(self, worker: Worker) -> None:
        if self._guard is None:
            self._guard = Guard()
        if worker.pid is not None:
            self._guard.watch(worker.pid)

    def _loop(self) -> None:
        while not self._stopping.wait(_LOOK_S):
            with self._lock:
                for worker in self.workers.values():
                    before = worker.pid
                    worker.look(time.monotonic())
                    if worker.pid not in (None, before):
                        self._watch(worker)

    def kill(self, name: str) -> None:
        """SIGKILL a worker; it is started again."""
        self.workers[name].signal(signal.SIGKILL)

    def stop_worker(self, name: str) -> int | None:
        """SIGTERM one worker, wait until it has drained, forget it. Its exit code, negative for a signal."""
        with self._lock:
            worker = self.workers.pop(name)
        self._end([worker])
        return worker.exit_code

    def stop(self) -> dict[str, int | None]:
        """SIGTERM all, wait until they have drained, kill what has not. Exit codes by name."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self._end(self.workers.values())
        if self._guard is not None:
            self._guard.close()
            self._guard = None
        return {name: worker.exit_code for name, worker in self.workers.items()}

    def _end(self, workers: Iterable[Worker]) -> None:
        waiting = list(workers)
        for worker in waiting:
            worker.signal(signal.SIGTERM)
        until = time.monotonic() + _DRAIN_S
        while (waiting := [worker for worker in waiting if not worker.ended()]) and time.monotonic() < until:
            time.sleep(_LOOK_S / 2)
        for worker in waiting:
            log.error("%s did not end within %.0f s and is killed", worker.name, _DRAIN_S)
            worker.signal(signal.SIGKILL)
            while not worker.ended():
                time.sleep(_LOOK_S / 2)

    def status(self) -> list[WorkerStatus]:
        """How the workers are now."""
        family = families()
        with self._lock:
            return [worker.status(family) for worker in self.workers.values()]

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()


def main() -> None:
    """`python -m triax_backend.supervise`: workers until SIGTERM; their state in `directory`/workers.json."""
    parser = argparse.ArgumentParser(description="Keep worker processes running (servers from TRIAX_*).")
    parser.add_argument("--directory", type=Path, required=True, help="logs and state go here")
    parser.add_argument("workers", nargs="+", help='module of triax_backend with its arguments, e.g. "bridge --metrics-port 9101"')
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with Supervisor(Settings.from_env(), options.directory) as supervisor:
        for text in options.workers:
            module, *arguments = shlex.split(text)
            supervisor.run(module, *arguments)
        while not ended.wait(1.0):
            _write_state(supervisor)
    _write_state(supervisor)


def _write_state(supervisor: Supervisor) -> None:
    state = [vars(one) for one in supervisor.status()]
    partial = supervisor.directory / "workers.partial"
    partial.write_text(json.dumps(state, indent=1))
    partial.replace(supervisor.directory / "workers.json")


if __name__ == "__main__":
    main()
