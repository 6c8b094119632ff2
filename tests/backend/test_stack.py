"""The stack: real servers started, killed, restarted, left alone, and refused with words that help."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from triax_backend import topics
from triax_backend.servers import NoDisk, NotInstalled, PortTaken, ServerFailed, StackError, ports
from triax_backend.servers.ports import free_port
from triax_backend.servers.process import Server
from triax_backend.settings import Settings
from triax_backend.stack import Stack
from triax_proto.names import KAFKA_TOPICS, MODELS


@pytest.mark.servers
def test_every_server_does_its_work(stack: Stack) -> None:
    status = stack.status()
    assert [one.name for one in status] == ["mqtt", "kafka", "postgres", "s3", "redis"]
    assert all(one.alive and one.ours and one.pid and one.memory_bytes for one in status)
    with psycopg.connect(stack.settings.postgres) as connection:
        assert connection.execute("SHOW track_commit_timestamp").fetchone() == ("on",)
    found = AdminClient(stack.settings.kafka_config()).list_topics(timeout=10).topics
    assert {name: len(found[name].partitions) for name in KAFKA_TOPICS} == {
        name: 1 if name == MODELS else 16 for name in KAFKA_TOPICS
    }
    assert topics.partitions(stack.settings) == 16


@pytest.mark.servers
def test_topics_are_created_once(stack: Stack) -> None:
    topics.create(stack.settings, partitions=3)
    assert topics.partitions(stack.settings) == 16


@pytest.mark.servers
def test_a_killed_server_comes_back_with_its_data_on_its_port(tmp_path: Path) -> None:
    with Stack(tmp_path, only=("postgres", "redis")) as stack:
        with psycopg.connect(stack.settings.postgres) as connection:
            connection.execute("CREATE TABLE kept (a int)")
        before = stack.settings
        stack["postgres"].kill()
        assert [one.alive for one in stack.status()] == [False, True]
        stack.restart("postgres")
        assert stack.settings == before
        with psycopg.connect(stack.settings.postgres) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


@pytest.mark.servers
def test_a_detached_stack_is_found_and_stopped_by_another_program(tmp_path: Path) -> None:
    start = f"from triax_backend.stack import Stack; Stack({str(tmp_path)!r}, only=['redis'], detached=True).start()"
    subprocess.run([sys.executable, "-c", start], check=True, timeout=30)
    stack = Stack.load(tmp_path)
    assert stack is not None
    (one,) = stack.status()
    assert one.alive
    with pytest.raises(StackError, match="a stack already runs in"):
        Stack(tmp_path, only=["redis"]).start()
    stack.stop()
    assert one.pid is not None
    assert not psutil.pid_exists(one.pid)
    with pytest.raises(StackError, match="triax stack up"):
        Stack.load(tmp_path)


@pytest.mark.servers
def test_servers_end_with_a_program_that_is_killed(tmp_path: Path) -> None:
    script = f"""
import time
from pathlib import Path
from triax_backend.stack import Stack
stack = Stack(Path({str(tmp_path)!r}), only=["redis"]).start()
print(stack["redis"].process.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        assert psutil.pid_exists(pid)
        program.kill()
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.servers
def test_external_servers_are_used_and_left_alone(tmp_path: Path, stack: Stack) -> None:
    external = {"redis": stack.settings.redis, "kafka": stack.settings.kafka, "postgres": "postgresql://u:p@elsewhere/x"}
    with Stack(tmp_path, only=("redis", "mqtt"), external=external) as second:
        assert second.settings.redis == stack.settings.redis
        assert second.settings.postgres == "postgresql://u:p@elsewhere/x"
        assert [one.name for one in second.status() if one.ours] == ["mqtt"]
    assert next(one for one in stack.status() if one.name == "redis").alive


def test_an_occupied_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"valkey: port {port} is taken; .ss -ltnp"):
            Stack(tmp_path, only=["redis"], ports={"redis": [port]}).start()


def test_a_port_is_given_once_though_nothing_listens_there_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setattr(ports, "_FIRST", port)
    monkeypatch.setattr(ports, "_LAST", port)
    with pytest.raises(PortTaken):
        free_port()


def test_free_ports_lie_below_those_of_outgoing_connections() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert free_port(10_000) + 10_000 < first


def test_no_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotInstalled, match=r"no java on the PATH: .apt-get install openjdk"):
        Stack(tmp_path, only=["kafka"]).start()


def test_an_old_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(NotInstalled, match=r"needs Java 17, .* is openjdk version .11"):
        Stack(tmp_path / "s", only=["kafka"]).start()


def test_no_maven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from triax_backend.servers.kafka import jars

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotInstalled, match="apt-get install maven"):
        jars()


def test_no_mosquitto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triax_backend.servers.mosquitto.shutil.which", lambda *_args, **_more: None)
    with pytest.raises(NotInstalled, match="apt-get install mosquitto"):
        Stack(tmp_path, only=["mqtt"]).start()


def test_too_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triax_backend.servers.valkey.Valkey.disk_mib", 1 << 40)
    with pytest.raises(NoDisk, match="MiB free and the stack may need"):
        Stack(tmp_path, only=["redis"]).start()
    assert not list(tmp_path.iterdir())


class _Broken(Server):
    name = "broken"
    url = "none://"
    ready_s = 0.3

    def check(self) -> None:
        pass

    def command(self) -> list[str]:
        return ["/bin/sh", "-c", self.script]

    script = "echo out of memory; exit 3"

    def answers(self) -> bool:
        return False


def test_a_server_that_ends_at_start_shows_its_log(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match=r"(?s)broken ended at start.*out of memory"):
        _Broken(tmp_path).start()


def test_a_server_that_never_answers_is_stopped(tmp_path: Path) -> None:
    server = _Broken(tmp_path)
    server.script = "exec sleep 30"
    with pytest.raises(ServerFailed, match=r"broken did not answer within 0 s"):
        server.start()
    assert not server.alive


def test_a_pid_of_somebody_else_is_not_ours(tmp_path: Path) -> None:
    server = _Broken(tmp_path)
    server.adopt(os.getpid(), 12.5)
    assert not server.alive
    server.stop()


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="no profile 'cloud'"):
        Stack(tmp_path, "cloud")
    with pytest.raises(StackError, match="no server mysql"):
        Stack(tmp_path, external={"mysql": "x"})


def test_no_kafka_is_said(tmp_path: Path) -> None:
    with pytest.raises(topics.TopicsUnavailable, match="Kafka does not answer"):
        topics.partitions(Settings(kafka="kafka://127.0.0.1:1"), timeout_s=0.3)


@pytest.mark.servers
def test_a_detached_stack_keeps_its_workers_until_it_is_stopped(tmp_path: Path) -> None:
    """What `triax stack up` does: another program finds servers and workers, and ends both."""
    stack = Stack(tmp_path, only=["redis"], detached=True).start()
    state = tmp_path / "workers.json"
    try:
        stack.supervise(["topics --help"])
        deadline = time.monotonic() + 20
        while not (state.exists() and json.loads(state.read_text())[0]["restarts"]):
            assert time.monotonic() < deadline, (tmp_path / "logs" / "supervise.log").read_text()
            time.sleep(0.1)
    finally:
        loaded = Stack.load(tmp_path)
        assert loaded is not None
        loaded.stop()
    (worker,) = json.loads(state.read_text())
    assert (worker["name"], worker["alive"]) == ("topics", False)
    assert "usage" in Path(worker["log"]).read_text()
    assert not stack["redis"].alive
