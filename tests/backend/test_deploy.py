"""Deployment as code: the template lints, the compose file runs what exists, the balancer balances and drops a dead front."""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "sim/deploy"
CDK = ROOT / ".venv-cdk"


@pytest.mark.engines
@pytest.mark.timeout(300)
@pytest.mark.skipif(not (CDK / "bin/cfn-lint").exists(), reason="no CDK here: sim/deploy/engines/install cdk")
def test_the_cloud_template_lints(tmp_path):
    code = f"import app; app.app({str(tmp_path)!r}).synth()"
    made = subprocess.run([CDK / "bin/python", "-c", code], cwd=DEPLOY / "cdk", capture_output=True, text=True, timeout=250)
    assert made.returncode == 0, made.stderr[-3000:]
    template = tmp_path / "Triax.template.json"
    linted = subprocess.run([CDK / "bin/cfn-lint", "-i", "W", "--", template], capture_output=True, text=True, timeout=250)
    assert linted.returncode == 0, linted.stdout
    resources = json.loads(template.read_text())["Resources"]
    kinds = [one["Type"] for one in resources.values()]

    def of(kind):
        return [one["Properties"] for one in resources.values() if one["Type"] == kind]

    listener = of("AWS::ElasticLoadBalancingV2::Listener")[0]
    assert (listener["Protocol"], listener["Port"]) == ("TCP", 8883)  # TLS passes through to whoever checks the certificate
    assert of("AWS::MSK::Cluster")[0]["NumberOfBrokerNodes"] == 3
    assert of("AWS::S3::Bucket")[0]["PublicAccessBlockConfiguration"]["BlockPublicAcls"] is True
    assert kinds.count("AWS::ECS::Service") == 6
    # the database's group lets in our processes on its port, and nobody else
    inward = [one for one in of("AWS::EC2::SecurityGroupIngress") if one["ToPort"] == 5432]
    assert len(inward) == 1
    assert "SourceSecurityGroupId" in inward[0]
    fronts = [one for one in of("AWS::ECS::TaskDefinition") if any(c["Name"] == "ingest" for c in one["ContainerDefinitions"])]
    assert len(fronts) == 1


def compose():
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def test_compose_names_what_exists():
    services = compose()["services"]
    assert {"kafka", "postgres", "redis", "s3", "front1", "front2", "balancer", "stream", "grafana"} <= set(services)
    for name, service in services.items():
        for needed in service.get("depends_on", ()):
            assert needed in services, f"{name} needs {needed}"
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), f"{name} mounts {source}"
        if service.get("image") != "triax" and "build" not in service:
            assert ":" in service["image"], f"{name}: an image without a version"


OURS = sorted(
    {tuple(s["command"]) for s in compose()["services"].values() if "build" in s and s.get("command")}
    if (DEPLOY / "compose.yaml").exists()
    else ()
)


@pytest.mark.parametrize("command", OURS, ids=lambda command: command[0])
def test_compose_runs_commands_that_take_these_flags(command):
    """--help behind the flags: argparse refuses an unknown one before it comes to the help."""
    module = command[0]
    done = subprocess.run([sys.executable, "-m", module, *command[1:], "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for flag in (part for part in command[1:] if part.startswith("--")):
        assert flag in done.stdout


def test_the_shards_of_the_indexed_job_are_a_command_that_exists():
    yaml = pytest.importorskip("yaml")
    text = (DEPLOY / "kubernetes/fleet.yaml").read_text().replace("${START}", "2026-01-31T12:00:00Z")
    job = yaml.safe_load(text)["spec"]
    container = job["template"]["spec"]["containers"][0]
    arguments = [one.replace("$(JOB_COMPLETION_INDEX)", "9") for one in container["args"]]
    assert f"--shard=9/{job['completions']}" in arguments
    environ = os.environ | {one["name"]: one["value"] for one in container["env"]}
    done = subprocess.run([sys.executable, "-m", *arguments], env=environ, capture_output=True, text=True, timeout=60)
    assert "has passed" in done.stderr  # the start: everything before it was understood


def test_stages_of_the_cloud_are_those_of_compose():
    text = (DEPLOY / "cdk/app.py").read_text()
    for command in OURS:
        if not any(job in command[0] for job in (".batch.", ".models.", ".upkeep")):
            assert f'"{command[0]}"' in text


def test_locks_name_versions_and_no_addresses():
    for lock in (DEPLOY / "engines").glob("*.lock"):
        for line in lock.read_text().splitlines():
            assert "==" in line, f"{lock.name}: {line}"
            assert "://" not in line
            assert "/" not in line


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def front(answer):
    """A server that says its name to everyone who connects, and closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                client.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return listener


def ask(port):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        return client.recv(10)


@pytest.mark.servers
def test_the_balancer_shares_out_and_leaves_a_dead_front(tmp_path):
    import shutil
    import time

    if shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin") is None:
        pytest.skip("no haproxy here")
    one, two = front(b"one"), front(b"two")
    port = free_port()
    environ = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin", "TRIAX_BIND": f"127.0.0.1:{port}"}
    for number, listener in enumerate((one, two), 1):
        environ[f"TRIAX_FRONT_{number}"] = f"127.0.0.1:{listener.getsockname()[1]}"
    environ["TRIAX_HAPROXY_SOCKET"] = str(tmp_path / "socket")
    config = str(DEPLOY / "haproxy/haproxy.cfg")
    assert subprocess.run(["haproxy", "-c", "-f", config], env=environ, capture_output=True, timeout=20).returncode == 0
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(["haproxy", "-db", "-f", config], env=environ, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 15

        def answers():
            try:
                return {ask(port) for _ in range(6)}
            except OSError:
                return set()

        while answers() != {b"one", b"two"}:
            assert time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.1)
        one.close()
        until = time.monotonic() + 15
        while answers() != {b"two"}:
            assert time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.2)
    finally:
        process.terminate()
        process.wait(10)
        one.close()
        two.close()
