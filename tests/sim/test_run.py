"""Whole runs on real servers: generators, tamperer, bridge, sinks, every hop read, a verdict; errors planted behind it."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from triax_backend.supervise import Supervisor
from triax_sim import evidence, planters
from triax_sim.bulk import device_ids
from triax_sim.pipeline import System, group_lag, hands_of, wait_until
from triax_sim.run import Run, run, verify
from triax_sim.scenario import parse

pytestmark = pytest.mark.servers

# The machine of a test run is busy with other things: lateness is not what is tested here.
GATES = (
    "[gates]\nlateness_p99_ms = 60000.0\nsecond_share = 0.0\nsteal_percent = 100.0\npostgres_p99_ms = 0.0\nclock_step_ms = 1000.0\n"
)
SMALL = (
    '[run]\nduration_s = 7.0\nwarmup_s = 1.0\ndrain_s = 40.0\nseed = {seed}\n[[cohort]]\nname = "bulk"\ndevices = 40\n'
    '[[cohort]]\nname = "old"\ndevices = 3\nold_schema = true\n[tamper]\ndevices = 20\neach = 4\nqos = {qos}\n' + GATES
)


@pytest.fixture(scope="module")
def system(stack, tmp_path_factory):
    """The path from broker to lake, on the session's servers."""
    directory = tmp_path_factory.mktemp("workers")
    with Supervisor(stack.settings, directory) as supervisor:
        supervisor.run("bridge")
        for name in ("timescale", "lake", "redis"):
            supervisor.run(f"sinks.{name}")
        yield System(
            stack.settings,
            status=lambda: [*stack.status(), *supervisor.status()],
            hands=hands_of(stack, supervisor),
        )


def small(seed, qos=1):
    return parse(SMALL.format(seed=seed, qos=qos), f"small-{seed}")


def counts(report, hop):
    found = report.data["hops"][hop]
    return [found[name] for name in ("unexplained_missing", "unexplained_repeated", "altered", "unproved", "unknown")]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("qos", [1, 0])
def test_a_run_is_proven_from_socket_to_lake(system, tmp_path, qos):
    news = []
    report = run(small(10 + qos, qos).with_(qos=qos), system, tmp_path / "run", news.append, lambda one: one.watch("02" + 14 * "0"))
    assert report.data["reasons"] == []
    assert (report.verdict, report.exit_code) == ("PASS", 0)
    hops = report.data["hops"]
    emitted = hops["emitted"]["frames"]
    assert emitted == pytest.approx(43 * 70, rel=0.02)
    for hop in ("mqtt", "kafka", "postgres", "lake"):
        assert (hops[hop]["frames"], hops[hop]["missing"], hops[hop]["repeated"]) == (emitted, 0, 0)
        assert counts(report, hop) == [0] * 5
    # Four frames were dropped and four broken on reserved devices.
    for hop in ("kafka", "postgres", "lake"):
        assert hops[hop]["reserved"] == {"frames": hops["emitted"]["reserved"] - 8, "missing": 8}
    assert hops["redis"] == {"devices": 43, "behind": 0, "named": []}
    test = report.data["self_test"]
    assert test["exact"]
    assert test["seal_holds"]
    assert test["found"] == {"missing": 8, "repeats": 4, "altered": 0, "unproved": 0, "inverted": 4, "flipped": 4}
    assert hops["postgres"]["latency_us"]["count"] > 0
    assert news[0]["devices"][0].startswith("02")
    assert {"starting", "running", "verifying"} <= {one["phase"] for one in news}
    names = [process["name"] for process in report.data["processes"]]
    assert {"mqtt", "kafka", "bridge"} <= set(names)
    check_evidence(tmp_path)


def check_evidence(tmp_path):
    folder = tmp_path / "run"
    page = (folder / "report.html").read_text()
    assert page.count("<svg") >= 6
    assert not re.search(r'(src|href)="(?!#|data:)', page)  # needs nothing else
    assert json.loads((folder / "report.json").read_text())["verdict"] == "PASS"
    again = evidence.recheck(folder)
    assert (again["verdict"], again["problems"]) == ("PASS", [])
    forged = tmp_path / "forged"
    shutil.copytree(folder, forged)
    manifest = json.loads((forged / "evidence.json").read_text())
    manifest["hops"]["kafka"]["missing"] = 5
    (forged / "evidence.json").write_text(json.dumps(manifest))
    assert evidence.recheck(forged)["problems"] == ["kafka: missing is 0, the report says 5"]
    ledger = next(forged.glob("*.ledger"))
    data = bytearray(ledger.read_bytes())
    data[50] ^= 1
    ledger.write_bytes(data)
    assert evidence.recheck(forged)["verdict"] == "INVALID"


@pytest.mark.timeout(180)
def test_errors_planted_behind_the_way_in_are_named(system, tmp_path):
    """One value in a row, a row, an object and two frames in Kafka: `verify` names exactly those, with their hop."""
    scenario = small(77)
    first = run(scenario, system, tmp_path / "run")
    assert first.verdict == "PASS", first.data["reasons"]
    devices = [int(d) for d in device_ids(77, np.arange(43))]
    settings = system.settings
    planted = {
        "postgres": planters.postgres(settings, devices, 3, seed=5),
        "lake": planters.lake(settings, devices, 3, seed=5),
        "kafka": planters.kafka(settings, devices, 3, seed=5),
    }
    groups = ("triax-timescale", "triax-lake", "triax-redis")
    assert wait_until(lambda: not any(group_lag(settings, groups).values()), 30)
    report = verify([tmp_path / "run"], system)
    assert (report.verdict, report.exit_code) == ("FAIL", 1)

    def named(hop, finding):
        frames = report.data["hops"][hop]["named"].get(finding, [])
        return {(f["device"], f["sequence"]) for f in frames if int(f["device"], 16) in devices}

    def wanted(hop, kind):
        return {(e["device"], e["sequence"]) for e in planted[hop] if e["kind"] == kind}

    assert named("postgres", "unproved") == wanted("postgres", "alter")
    assert named("postgres", "missing") == wanted("postgres", "delete")
    assert {f["lost_at"] for f in report.data["hops"]["postgres"]["named"]["missing"]} == {"postgres", "kafka"}
    assert named("kafka", "repeats") == wanted("kafka", "repeat")
    assert named("kafka", "altered") == wanted("kafka", "alter")
    # The lake keeps what Kafka holds: the conflict from there, and the value that was changed in the object.
    assert named("lake", "unproved") == wanted("lake", "alter")
    assert named("lake", "missing") == set()
    assert report.data["self_test"]["exact"]


@pytest.mark.timeout(180)
def test_shards_are_one_run(system, tmp_path):
    scenario = tmp_path / "small.toml"
    scenario.write_text(SMALL.format(seed=99, qos=1))
    start = datetime.now(UTC) + timedelta(seconds=12)
    environ = os.environ | system.settings.environ()
    command = [sys.executable, "-m", "triax_tools", "fleet"]
    folders = [tmp_path / f"shard-{n}" for n in range(2)]
    shards = [
        subprocess.Popen(
            [*command, "run", scenario, "--shard", f"{n}/2", "--start", start.isoformat(), "--out", folder], env=environ
        )
        for n, folder in enumerate(folders)
    ]
    assert [shard.wait(60) for shard in shards] == [0, 0]
    merged = subprocess.run([*command, "merge", "--json", *folders], env=environ, capture_output=True, check=True)
    report = json.loads(merged.stdout)
    assert (report["verdict"], report["reasons"]) == ("PASS", [])
    assert report["hops"]["emitted"]["devices"] == 43
    assert report["generator"]["processes"] == 3
    # Ledgers and histograms of both are in it, value by value.
    emitted = report["hops"]["emitted"]
    stats = [json.loads(path.with_suffix(".json").read_text()) for folder in folders for path in folder.glob("*.ledger")]
    assert emitted["frames"] + emitted["reserved"] == sum(one["ledger_rows"] for one in stats)
    for name in ("lateness", "puback"):
        counts = [one["histograms"][name]["count"] for one in stats]
        assert report["generator"][f"{name}_us"]["count"] == sum(counts)
        assert min(counts) > 0
        assert report["generator"][f"{name}_us"]["max"] == max(one["histograms"][name]["max"] for one in stats)
    lone = subprocess.run([*command, "merge", "--json", folders[1]], env=environ, capture_output=True)
    assert json.loads(lone.stdout)["hops"]["emitted"]["devices"] < 43


@pytest.mark.timeout(180)
def test_killed_workers_cost_nothing_and_a_broker_pause_shows_in_the_latency(system, tmp_path):
    faults = (
        '[[fault]]\nkind = "process_kill"\ntarget = "bridge"\nat_s = 1.5\n'
        '[[fault]]\nkind = "process_kill"\ntarget = "timescale"\nat_s = 2.5\n'
        '[[fault]]\nkind = "process_pause"\ntarget = "mqtt"\nat_s = 3.5\nfor_s = 1.0\n'
        '[[fault]]\nkind = "link_cut"\nat_s = 6.0\n'
    )
    scenario = parse(SMALL.format(seed=55, qos=1) + faults, "faults").with_(duration_s=10.0)
    report = run(scenario, system, tmp_path / "run")
    assert report.data["reasons"] == []
    assert report.verdict == "PASS"
    assert len(report.data["faults"]) == 4
    assert all(fault["done"] for fault in report.data["faults"])
    hops = report.data["hops"]
    assert hops["kafka"]["missing"] == hops["postgres"]["missing"] == 0
    assert hops["postgres"]["repeated"] == 0
    generator = report.data["generator"]
    assert generator["connections"]["lost"] >= 43
    assert generator["puback_us"]["max"] > 900_000


def test_nobody_there_is_said_at_once(system, tmp_path):
    dead = replace(system, settings=replace(system.settings, mqtt="mqtt://127.0.0.1:9"))
    one = Run(small(5), dead, tmp_path / "run")
    with pytest.raises(RuntimeError, match=r"no device could connect to 127\.0\.0\.1:9"):
        one.generate()
    assert not any(generator.running for generator in one.generators)
