"""A server of ours as a process: launched into its own session, known by pid and start time, never mistaken for another.

Start and stop are synchronous; `triax_backend.stack` runs several of them side by side.
"""

import contextlib
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import psutil

from triax_backend.servers.errors import ServerFailed
from triax_backend.servers.ports import free_port, require_free

__all__ = ["Family", "Server", "families", "tail", "usage"]

Family = dict[int, list[psutil.Process]]  # children by pid

_POLL_S = 0.05
_TAIL_LINES = 15


def tail(path: Path, lines: int = _TAIL_LINES) -> str:
    """The last `lines` lines of a log, "" if there is none."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def families() -> Family:
    """Who has which children now, by pid. `psutil.Process.children` would look at the whole machine once for each process."""
    out: Family = {}
    for one in psutil.process_iter(["ppid"]):
        out.setdefault(one.info["ppid"], []).append(one)
    return out


def usage(process: psutil.Process, family: Family | None = None) -> tuple[float, int]:
    """CPU seconds, user and system, of a process with all children, dead ones that it has waited for included; their memory, B.

    `family`: what `families` said a moment ago, where several processes are asked about.
    """
    family = families() if family is None else family
    cpu_s, memory_bytes = 0.0, 0
    left = [process]
    while left:
        one = left.pop()
        left += family.get(one.pid, ())
        with contextlib.suppress(psutil.Error):
            times = one.cpu_times()
            cpu_s += times.user + times.system + times.children_user + times.children_system
            memory_bytes += one.memory_info().rss
    return cpu_s, memory_bytes


class Server(ABC):
    """One server with its data under `directory`/<name> and its log in `directory`/logs/<name>.log."""

    name = ""
    disk_mib = 256  # what it may need in a short run
    ready_s = 40.0  # Kafka takes 3 s alone, ten times that when eight stacks start on two cores
    stop_s = 20.0
    stop_signal = signal.SIGTERM
    port_count = 1
    port_offsets: tuple[int, ...] = ()  # what it binds beside each of its ports, relative to that

    def __init__(self, directory: Path, profile: str = "embedded", ports: Sequence[int] = ()) -> None:
        """`ports`: the wanted ones, first the one for clients; free ones for what is missing."""
        self.directory = directory
        self.data = directory / self.name
        self.log = directory / "logs" / f"{self.name}.log"
        self.profile = profile
        self.ports = [*ports, *(free_port(*self.port_offsets) for _ in range(self.port_count - len(ports)))]
        self.process: psutil.Process | None = None
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The port for clients."""
        return self.ports[0]

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL for `triax_backend.settings`."""

    @abstractmethod
    def command(self) -> list[str]:
        """The server's command line; called after `prepare`."""

    @abstractmethod
    def answers(self) -> bool:
        """True once the server does what it is for."""

    @abstractmethod
    def check(self) -> None:
        """Raise NotInstalled if the server cannot run on this machine."""

    def prepare(self) -> None:
        """Write configuration, make the data directory."""
        self.data.mkdir(parents=True, exist_ok=True)

    def environ(self) -> dict[str, str]:
        """Variables of the server's process."""
        return dict(os.environ)

    def start(self) -> None:
        """Launch, and return when the server answers. Raises PortTaken, NotInstalled, ServerFailed."""
        if self.alive:
            return
        for port in self.ports:
            for offset in (0, *self.port_offsets):
                require_free(port + offset, self.name)
        self.prepare()
        self.launch(self.command())
        self.wait_ready()

    def launch(self, command: Sequence[str]) -> None:
        """Start `command` in its own session, output appended to the log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environ(),
                cwd=self.data,
                start_new_session=True,
            )
        self.process = psutil.Process(self._child.pid)

    def wait_ready(self) -> None:
        """Wait until the server answers. Raises ServerFailed, with the server stopped."""
        deadline = time.monotonic() + self.ready_s
        while time.monotonic() < deadline:
            if not self.alive:
                raise ServerFailed(f"{self.name} ended at start. The end of {self.log}:\n{tail(self.log)}")
            if self.answers():
                return
            time.sleep(_POLL_S)
        self.stop()
        raise ServerFailed(f"{self.name} did not answer within {self.ready_s:.0f} s. The end of {self.log}:\n{tail(self.log)}")

    def adopt(self, pid: int, created: float) -> None:
        """Take over a process that another program started; ignored if that pid is by now somebody else's."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.create_time() == created:
                self.process = process

    @property
    def alive(self) -> bool:
        """True while the process runs (a zombie does not)."""
        if self.process is None:
            return False
        if self._child is not None and self._child.poll() is not None:
            return False
        with contextlib.suppress(psutil.Error):
            return bool(self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE)
        return False

    def stop(self) -> None:
        """Ask the server to end; kill it if it does not within `stop_s`."""
        if self.alive and self.process is not None:
            with contextlib.suppress(psutil.Error):
                self.process.send_signal(self.stop_signal)
            if not self._wait(self.stop_s):
                self.kill()
        self._forget()

    def kill(self) -> None:
        """SIGKILL the server and what it has forked."""
        if self.process is None:
            return
        family = [self.process]
        with contextlib.suppress(psutil.Error):
            family += self.process.children(recursive=True)
        for one in family:
            with contextlib.suppress(psutil.Error):
                one.kill()
        self._wait(self.stop_s)
        psutil.wait_procs(family[1:], timeout=self.stop_s)
        self._forget()

    def pause(self) -> None:
        """SIGSTOP: the server hangs, its connections stay."""
        if self.process is not None:
            self.process.suspend()

    def resume(self) -> None:
        """SIGCONT after `pause`."""
        if self.process is not None:
            self.process.resume()

    def _wait(self, timeout_s: float) -> bool:
        try:
            if self._child is not None:
                self._child.wait(timeout_s)
            elif self.process is not None:
                self.process.wait(timeout_s)
        except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
            return False
        return True

    def _forget(self) -> None:
        self.process = self._child = None
