"""Every stage killed at every named point while frames flow: nothing is missing and nothing repeated. The table in sim/README.md.

    pytest tests/faults/test_crash_points.py -m "slow or not slow" --write-crash-table        measures it anew

Each round kills every stage once, each at one of its points; the supervisor starts it again. What was in flight is what the stage
had taken and not settled when it died.
"""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from triax_backend import hops
from triax_backend.servers.ports import free_port
from triax_backend.stack import Stack
from triax_backend.supervise import Supervisor
from triax_sim.pipeline import System, hands_of, wait_until
from triax_sim.run import run
from triax_sim.scenario import parse

ROOT = Path(__file__).parents[2]
README = ROOT / "sim" / "README.md"
BEGIN, END = "<!-- crash points -->", "<!-- end of crash points -->"
HEAD = "| stage | killed | frames in flight | missing | repeated |\n|---|---|---|---|---|"

# Point and pass of the stages that are killed in a round.
ROUNDS = (
    {
        "bridge": "after_produce:25",
        "sinks.timescale": "after_copy:2",
        "sinks.lake": "after_put:2",
        "sinks.redis": "before_offsets:2",
        "stream.runner": "stream_after_produce:3",
        "sinks.features": "after_copy:3",
    },
    {
        "bridge": "before_ack:25",
        "sinks.timescale": "before_commit:2",
        "sinks.lake": "before_table_commit:2",
        "stream.runner": "stream_before_commit:3",
        "sinks.features": "before_commit:3",
    },
    {
        "ingest": "after_produce:25",
        "sinks.timescale": "after_commit:2",
        "sinks.lake": "after_table_commit:2",
        "stream.runner": "stream_after_commit:3",
    },
    {"ingest": "before_ack:25", "stream.runner": "stream_after_snapshot:2"},
)
SINKS = ("sinks.timescale", "sinks.lake", "sinks.redis")
STREAM = {"stream.runner": ("--commit-s", "0.3", "--snapshot-s", "0.5"), "sinks.features": ("--flush-s", "0.3")}
SCENARIO = """
[run]
duration_s = 8.0
warmup_s = 1.0
drain_s = 40.0
[[cohort]]
name = "bulk"
devices = 60
[tamper]
devices = 0
"""


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Servers of their own: every stage begins at the beginning of what these runs write."""
    with Stack(tmp_path_factory.mktemp("crash")) as stack:
        yield stack


@pytest.fixture(scope="module")
def crash_table(request):
    """Takes a row for each kill, writes the README's table when asked to."""
    rows = []
    yield lambda *row: rows.append(row)
    if request.config.getoption("--write-crash-table"):
        lines = [
            f"| `{stage}` | {point.replace('_', ' ')} | {' | '.join(map(str, seen))} |" for stage, point, *seen in sorted(rows)
        ]
        before, _, rest = README.read_text().partition(BEGIN)
        table = "\n".join((BEGIN, HEAD, *lines, END))
        README.write_text(before + table + rest.partition(END)[2])


def start(supervisor, directory, points):
    """Every stage, each with its point; returns where the front listens."""

    def one(stage, *arguments):
        env = {}
        if stage in points:
            env = {"TRIAX_CRASH": points[stage], "TRIAX_CRASH_ONCE": str(directory / f"{stage}.crashed")}
        supervisor.run(stage, *arguments, env=env)

    port = free_port()
    one(*(("ingest", "--port", str(port)) if "ingest" in points else ("bridge",)))
    for stage in SINKS:
        one(stage, *(("--flush-s", "0.5") if stage == "sinks.lake" else ()))
    for stage, arguments in STREAM.items():
        one(stage, *arguments)
    logs = [directory / "logs" / f"{stage}.log" for stage in (*SINKS, *STREAM)]
    assert wait_until(lambda: all("started" in log.read_text() for log in logs), 60), "not every stage has started"
    return port


@pytest.mark.servers
@pytest.mark.timeout(180)
@pytest.mark.parametrize("number", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, len(ROUNDS)))])
def test_killed_at_each_point_nothing_is_missing_and_nothing_repeated(servers, tmp_path, number, crash_table):
    points = ROUNDS[number]
    supervisor = Supervisor(servers.settings, tmp_path)
    try:
        port = start(supervisor, tmp_path, points)
        settings, way = servers.settings, "bridge"
        if "ingest" in points:
            settings, way = replace(settings, mqtt=f"mqtt://127.0.0.1:{port}"), "ingest"
        system = System(settings, way, status=supervisor.status, hands=hands_of(servers, supervisor))
        report = run(parse(SCENARIO, f"crash-{number}").with_(seed=700 + number), system, tmp_path / "run")
        found = report.data["hops"]
        emitted = found["emitted"]["frames"]
        assert emitted == pytest.approx(60 * 80, rel=0.02)
        for hop in ("kafka", "postgres", "lake"):
            assert (found[hop]["frames"], found[hop]["missing"], found[hop]["unproved"]) == (emitted, 0, 0), hop
        assert (found["postgres"]["repeated"], found["lake"]["repeated"], found["redis"]["behind"]) == (0, 0, 0)
        missing = sum(found[hop]["missing"] for hop in ("kafka", "postgres", "lake"))
        repeated = sum(found[hop]["repeated"] for hop in ("postgres", "lake"))
        streamed(settings, 700 + number, int((report.found.emitted.size // 10).sum()))
    finally:
        supervisor.stop()
    for stage, point in points.items():
        note = tmp_path / f"{stage}.crashed"
        assert note.exists(), f"{stage} was not killed: {(tmp_path / 'logs' / f'{stage}.log').read_text()[-1500:]}"
        flying = int(note.read_text())
        assert flying > 0 or point.startswith("stream_after_snapshot"), f"{stage} had nothing in flight"
        crash_table(stage, point.partition(":")[0], flying or "none", missing, repeated)


def streamed(settings, seed, windows):
    """Each window that got all its frames is in the database once, and each event."""
    with psycopg.connect(settings.postgres, autocommit=True) as connection:

        def rows():
            query = (
                "SELECT device, boot, number FROM features WHERE windows = 1 AND frames = 10 AND (device >> 24) & 4294967295 = %s"
            )
            return connection.execute(query, (seed,)).fetchall()

        assert wait_until(lambda: len(rows()) >= windows, 30), f"{len(rows())} of {windows} windows"
        assert wait_until(lambda: set(hops.events(settings, 0)) >= hops.kafka_events(settings, 0), 30)
        found = rows()
    assert len(found) == len(set(found)) == windows
    assert max(Counter(hops.events(settings, 0)).values(), default=1) == 1, "an event is there twice"


def points_in_code():
    """(file, point) of every call of crash.point."""
    out = set()
    for path in (ROOT / "sim" / "triax_backend").rglob("*.py"):
        if path.name != "crash.py":
            out |= {(path.stem, name) for name in re.findall(r'\bpoint\("(\w+)"', path.read_text())}
    return out


# File with the points of a stage, where it is not the stage's own.
_FILES = {"bridge": {"produce"}, "ingest": {"produce"}, "sinks.lake": {"lake", "iceberg"}, "stream.runner": {"loop"}}


def test_every_point_in_the_code_is_tried_and_in_the_table():
    tried = {(stage, point.partition(":")[0]) for points in ROUNDS for stage, point in points.items()}
    places = {(file, point) for stage, point in tried for file in _FILES.get(stage, {stage.rpartition(".")[2]})}
    assert points_in_code() <= places
    block = README.read_text().partition(BEGIN)[2].partition(END)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.strip().splitlines()[2:]]
    assert rows
    assert {(row[0].strip("`"), row[1]) for row in rows} == {(stage, point.replace("_", " ")) for stage, point in tried}
    assert all(row[3:] == ["0", "0"] for row in rows)
