"""The supervisor: workers come back, drain at the end, and their CPU time is never lost."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from triax_backend.settings import Settings
from triax_backend.supervise import Supervisor, Worker


def _until(true: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def _script(supervisor: Supervisor, name: str, code: str) -> Worker:
    """A worker that runs `code` instead of a module of ours."""
    worker = supervisor.run("topics", "--help", name=name)
    _until(worker.ended)
    worker.command = [sys.executable, "-c", code]
    return worker


DRAINS = """
import os, signal, sys, time
def end(*_):
    print("drained", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("up", os.environ["TRIAX_KAFKA"], flush=True)
time.sleep(60)
"""


def test_a_killed_worker_comes_back_and_drains(tmp_path: Path) -> None:
    with Supervisor(Settings(kafka="kafka://there:1"), tmp_path) as supervisor:
        worker = _script(supervisor, "w", DRAINS)
        _until(lambda: "up kafka://there:1" in worker.log.read_text())
        before, restarts = worker.pid, worker.restarts
        supervisor.kill("w")
        _until(lambda: worker.pid not in (None, before))
        assert worker.restarts == restarts + 1
        _until(lambda: worker.log.read_text().count("up") == 2)
        assert supervisor.stop() == {"w": 0}
    assert worker.log.read_text().endswith("drained\n")


def test_cpu_of_dead_processes_counts(tmp_path: Path) -> None:
    with Supervisor(Settings(), tmp_path) as supervisor:
        worker = _script(supervisor, "w", "import time\nwhile time.process_time() < 0.3: pass")
        _until(lambda: worker.restarts >= 3)
        before = worker.status().cpu_s
        assert before > 0.3
        supervisor.stop()
        assert worker.status().cpu_s >= before


def test_a_worker_that_cannot_run_shows_its_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Supervisor(Settings(), tmp_path) as supervisor:
        supervisor.run("no_such_module")
        _until(lambda: "No module named triax_backend.no_such_module" in caplog.text)
        with pytest.raises(ValueError, match="there is a worker no_such_module already"):
            supervisor.run("no_such_module")


def test_a_worker_that_does_not_drain_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triax_backend.supervise._DRAIN_S", 0.3)
    with Supervisor(Settings(), tmp_path) as supervisor:
        worker = _script(
            supervisor, "w", "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
        )
        _until(lambda: "up" in worker.log.read_text())
        assert supervisor.stop_worker("w") == -signal.SIGKILL


def test_workers_end_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "triax_backend.supervise", "--directory", str(tmp_path), "supervise --directory . --help"]
    with subprocess.Popen(command, env={**os.environ, "PYTHONWARNINGS": "ignore"}) as supervisor:
        _until(lambda: (tmp_path / "workers.json").exists())
        assert [one["name"] for one in json.loads((tmp_path / "workers.json").read_text())] == ["supervise"]
        children = psutil.Process(supervisor.pid).children(recursive=True)
        supervisor.kill()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
