"""The stack as in production: two ingest fronts behind HAProxy, PyFlink as the stream, servers that sync. The same tables."""

from collections import Counter

import numpy as np
import psycopg
import pytest
from triax_backend import hops, scan
from triax_backend.pipeline import FLINK
from triax_backend.sinks.message_rows import signed
from triax_backend.stream.columns import of_records
from triax_backend.stream.events import messages
from triax_backend.stream.process import Stream
from triax_proto import names
from triax_sim.pipeline import wait_until
from triax_sim.run import run
from triax_sim.scenario import parse
from triax_tools.path import path

SCENARIO = """
[run]
duration_s = 22.0
warmup_s = 2.0
[[cohort]]
name = "bulk"
devices = 58
motion = "smooth"
[[cohort]]
name = "gold"
kind = "gold"
devices = 2
[tamper]
devices = 20
each = 5
[plant]
each = 3
"""


@pytest.mark.engines
@pytest.mark.servers
@pytest.mark.timeout(300)
@pytest.mark.skipif(not (FLINK / "ready").exists(), reason="no Flink here: sim/deploy/engines/install flink")
def test_the_local_stack_passes_and_holds_the_tables_that_the_runner_would_have_made(tmp_path):
    with path(tmp_path, "local") as system:
        report = run(parse(SCENARIO, "local"), system, tmp_path / "run")
        assert (report.verdict, report.data["reasons"]) == ("PASS", [])
        assert report.data["findings"]["complete"]
        features, events = wanted(system.settings)
        with psycopg.connect(system.settings.postgres, autocommit=True) as connection:
            assert wait_until(lambda: len(stored(connection)) >= len(features), 30)
            found = stored(connection)
        assert Counter(hops.events(system.settings, 0)) == Counter(events)
    assert found == features
    used = {process["name"] for process in report.data["processes"]}
    assert {"kafka", "redis", "postgres", "s3", "ingest-0", "ingest-1", "stream.flink_job"} <= used


def wanted(settings):
    """Rows and events that our functions make of the frames in Kafka."""
    records = [(r.partition, r.value) for found in scan.records(settings, names.FRAMES) for r in found]
    rows, events = Stream().process(of_records(records)[0])
    best = {}
    for row in rows:  # a window that went out with a hole and came again is kept with the most frames
        key = signed(int(row["device"])), int(row["boot"]), int(row["windows"]), int(row["window"])
        if key not in best or row["frames"] >= best[key][0]:
            best[key] = int(row["frames"]), *(float(v) for name in ("mean", "rms", "peak") for v in row[name])
    return best, [event.SerializeToString(deterministic=True) for event in messages(events)]


def stored(connection):
    """The same of the database."""
    values = ", ".join(f"{name}_{axis}" for name in ("mean", "rms", "peak") for axis in "xyz")
    found = connection.execute(f"SELECT device, boot, windows, number, frames, {values} FROM features").fetchall()
    return {row[:4]: (row[4], *(float(np.float32(v)) for v in row[5:])) for row in found}
