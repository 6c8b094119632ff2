"""The servers that triax needs, on this machine, without containers: started side by side, with own data, ports and logs.

    with Stack(directory) as stack:        # or stack.start() / stack.stop()
        stack.settings                     # URLs, for triax_backend.settings
        stack["kafka"].kill()              # one server

    Stack(directory, detached=True).start()    # `triax stack up`: stays when this program ends
    Stack.load(directory).stop()               # `triax stack down`, from anywhere

A server whose address is given is neither started nor stopped. What runs is in `directory`/stack.json with pid and start time, so
nothing else is ever taken for ours.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from triax_backend import topics
from triax_backend.servers import SERVERS, NoDisk, Server, StackError
from triax_backend.servers.guard import Guard
from triax_backend.servers.process import families, usage
from triax_backend.settings import Settings
from triax_backend.supervise import Supervisor

__all__ = ["PROFILES", "ServerStatus", "Stack"]

PROFILES = ("embedded", "local")
_STATE = "stack.json"
_DRAIN_S = 40.0  # more than the supervisor gives its workers


@dataclass(frozen=True)
class ServerStatus:
    """One server as it is now. `cpu_s`: user + system seconds with children."""

    name: str
    url: str
    ours: bool
    pid: int | None = None
    alive: bool = False
    memory_bytes: int = 0
    cpu_s: float = 0.0
    log: str = ""


class Stack:
    """The servers of one directory.

    `profile`: "embedded" survives the death of processes, "local" syncs to disk as in production. `external`: URLs of servers that
    are there already, by setting ("mqtt", "kafka", "postgres", "s3", "redis"). `ports`: wanted ports by setting, first the
    one for clients; free ones otherwise. `only`: start just these. `detached`: let the servers live on when this process ends.
    """

    def __init__(
        self,
        directory: Path | str,
        profile: str = "embedded",
        *,
        external: dict[str, str] | None = None,
        ports: dict[str, Sequence[int]] | None = None,
        only: Iterable[str] = SERVERS,
        detached: bool = False,
        partitions: int = topics.PARTITIONS,
    ) -> None:
        if profile not in PROFILES:
            raise StackError(f"no profile {profile!r}: want one of {', '.join(PROFILES)}")
        unknown = {*(external or {}), *(ports or {}), *only} - set(SERVERS)
        if unknown:
            raise StackError(f"no server {', '.join(sorted(unknown))}: want {', '.join(SERVERS)}")
        self.directory = Path(directory).resolve()
        self.profile = profile
        self.external = dict(external or {})
        self.detached = detached
        self.partitions = partitions
        self._guard: Guard | None = None
        self._supervisor: Supervisor | None = None
        self._workers_pid: tuple[int, float] | None = None  # of a detached supervisor, with its start time
        wanted = [name for name in SERVERS if name in set(only) and name not in self.external]
        self._servers: dict[str, Server] = {}
        for name in wanted:
            self._servers[name] = SERVERS[name](self.directory, profile, (ports or {}).get(name, ()))

    def __getitem__(self, name: str) -> Server:
        return self._servers[name]

    @property
    def settings(self) -> Settings:
        """URLs of our servers and of the external ones; the environment's or the defaults for what is neither."""
        return replace(Settings.from_env(), **self.external, **{name: server.url for name, server in self._servers.items()})

    def start(self) -> "Stack":
        """Start all servers side by side, create the topics. Raises StackError; then nothing of ours runs."""
        self._check()
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self.detached:
            self._guard = Guard()
        try:
            self._each(self._start_one)
            if "kafka" in self._servers:
                topics.create(self.settings, self.partitions, retention=False)
            elif "kafka" in self.external:
                topics.create(self.settings, self.partitions)
        except topics.TopicsUnavailable as error:
            self.stop()
            raise StackError(f"Kafka's topics: {error}") from None
        except BaseException:
            self.stop()
            raise
        self._save()
        return self

    @property
    def supervisor(self) -> Supervisor:
        """Runs workers beside the servers and ends before them."""
        if self._supervisor is None:
            self._supervisor = Supervisor(self.settings, self.directory)
        return self._supervisor

    def supervise(self, workers: Sequence[str]) -> None:
        """For a detached stack: a supervisor process with these workers ("bridge --metrics-port 9101"), ended by `stop`."""
        command = [sys.executable, "-m", "triax_backend.supervise", "--directory", str(self.directory), *workers]
        with (self.directory / "logs" / "supervise.log").open("ab") as out:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.settings.environ()},
                start_new_session=True,
            )
        child.returncode = 0  # it outlives this object on purpose, which Popen would warn about
        self._workers_pid = child.pid, psutil.Process(child.pid).create_time()
        self._save()

    def _end_workers(self) -> None:
        if self._supervisor is not None:
            self._supervisor.stop()
            self._supervisor = None
        if self._workers_pid is not None:
            pid, created = self._workers_pid
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                if process.create_time() == created:
                    process.terminate()
                    process.wait(_DRAIN_S)
            self._workers_pid = None

    def _start_one(self, server: Server) -> None:
        server.start()
        if self._guard is not None and server.process is not None:
            self._guard.watch(server.process.pid, server.stop_signal)

    def _check(self) -> None:
        running = Stack.load(self.directory, missing_ok=True)
        if running is not None:
            alive = [server.name for server in running._servers.values() if server.alive]
            if alive:
                raise StackError(
                    f"a stack already runs in {self.directory} ({', '.join(alive)}); stop it, or use another directory"
                )
        for server in self._servers.values():
            server.check()
        place = self.directory
        while not place.exists():
            place = place.parent
        free, need = shutil.disk_usage(place).free >> 20, sum(server.disk_mib for server in self._servers.values())
        if free < need:
            raise NoDisk(f"{place} has {free} MiB free and the stack may need {need} MiB; use another directory")

    def _each(self, action: Callable[[Server], None]) -> None:
        """Run `action` for all servers at once; raise the first error when all have ended."""
        if not self._servers:
            return
        with ThreadPoolExecutor(len(self._servers)) as pool:
            futures = [pool.submit(action, server) for server in self._servers.values()]
        errors = [error for future in futures if (error := future.exception()) is not None]
        if errors:
            raise errors[0]

    def stop(self) -> None:
        """Stop the workers, then the servers that this stack started; data and logs stay."""
        self._end_workers()
        self._each(lambda server: server.stop())
        if self._guard is not None:
            self._guard.close()
            self._guard = None
        (self.directory / _STATE).unlink(missing_ok=True)

    def clean(self, logs: bool = True) -> None:
        """Remove data and logs of a stopped stack."""
        if any(server.alive for server in self._servers.values()):
            raise StackError(f"the stack in {self.directory} runs; stop it first")
        for server in self._servers.values():
            shutil.rmtree(server.data, ignore_errors=True)
        if logs:
            shutil.rmtree(self.directory / "logs", ignore_errors=True)

    def __enter__(self) -> "Stack":
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def status(self) -> list[ServerStatus]:
        """How each server is, external ones included (those are not probed)."""
        out, family = [], families()
        for name, server in self._servers.items():
            one = ServerStatus(name, server.url, True, log=str(server.log))
            if server.alive and server.process is not None:
                used, memory = usage(server.process, family)
                one = replace(one, pid=server.process.pid, alive=True, memory_bytes=memory, cpu_s=used)
            out.append(one)
        return out + [ServerStatus(name, url, False) for name, url in self.external.items()]

    def restart(self, name: str) -> None:
        """Start a server again that was stopped or killed, on its port with its data."""
        self._start_one(self._servers[name])
        self._save()

    def _save(self) -> None:
        servers = {
            name: {"pid": server.process.pid, "created": server.process.create_time(), "ports": server.ports}
            for name, server in self._servers.items()
            if server.process is not None
        }
        state: dict[str, Any] = {"profile": self.profile, "external": self.external, "servers": servers}
        state |= {"settings": asdict(self.settings), "workers": self._workers_pid}
        partial = self.directory / f"{_STATE}.{os.getpid()}"
        partial.write_text(json.dumps(state, indent=1))
        partial.chmod(0o600)  # URLs may hold passwords
        partial.replace(self.directory / _STATE)

    @classmethod
    def load(cls, directory: Path | str, *, missing_ok: bool = False) -> "Stack | None":
        """The stack that runs in `directory`, whoever started it. Raises StackError if there is none, or None if `missing_ok`."""
        path = Path(directory).resolve() / _STATE
        try:
            state = json.loads(path.read_text())
        except FileNotFoundError:
            if missing_ok:
                return None
            raise StackError(f"no stack runs in {directory}: `triax stack up` starts one") from None
        except ValueError:
            raise StackError(f"{path} is no state of a stack; stop its servers by hand and remove it") from None
        ports = {name: one["ports"] for name, one in state["servers"].items()}
        stack = cls(path.parent, state["profile"], external=state["external"], ports=ports, only=ports, detached=True)
        for name, one in state["servers"].items():
            stack[name].adopt(one["pid"], one["created"])
        if state["workers"]:
            stack._workers_pid = tuple(state["workers"])
        return stack
