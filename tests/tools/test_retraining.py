"""Retraining in a running system: a model is trained on the lake and swapped in while frames flow; no frame is lost."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import pairwise

import psycopg
import pytest
from triax_sim.run import run
from triax_sim.scenario import parse
from triax_tools.path import path

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(180)]

SCENARIO = """
[run]
duration_s = 56.0
warmup_s = 1.0
drain_s = 40.0
[[cohort]]
name = "bulk"
devices = 240
[tamper]
devices = 20
each = 5
[gates]
lateness_p99_ms = 60000.0
second_share = 0.0
steal_percent = 100.0
postgres_p99_ms = 0.0
clock_step_ms = 1000.0
"""
TRAIN_AT_S = {"first": 10.0, "second": 24.0}  # after the start: the lake has a few windows of every device, then twice as many


class Trainer(threading.Thread):
    """Trains and announces on time, as an operator would: `python -m triax_backend.models.train window`."""

    def __init__(self, settings):
        super().__init__(daemon=True)
        self.settings, self.done = settings, {}
        self.running = threading.Event()

    def run(self):
        self.running.wait(60)
        began = time.monotonic()
        for version, at_s in TRAIN_AT_S.items():
            time.sleep(max(0.0, began + at_s - time.monotonic()))
            command = [sys.executable, "-m", "triax_backend.models.train", "window", "--version", version, "--effective-in-s", "1"]
            environ = {**os.environ, **self.settings.environ()}
            self.done[version] = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=90)


def test_models_trained_on_the_lake_are_swapped_in_without_a_lost_frame(tmp_path):
    with path(tmp_path, "embedded", "ingest") as system:
        trainer = Trainer(system.settings)
        trainer.start()
        report = run(parse(SCENARIO, "retraining"), system, tmp_path / "run", lambda news: started(news, trainer))
        trainer.join(90)
        with psycopg.connect(system.settings.postgres) as connection:
            query = "SELECT device, time, model, score FROM features WHERE windows = 1 ORDER BY device, time"
            rows = connection.execute(query).fetchall()
    for version, done in trainer.done.items():
        assert done.returncode == 0, done.stderr[-2000:]
        assert json.loads(done.stdout)["version"] == version
    assert report.data["reasons"] == []
    hops = report.data["hops"]
    for hop in ("mqtt", "kafka", "postgres", "lake"):
        assert (hops[hop]["frames"], hops[hop]["missing"], hops[hop]["repeated"]) == (hops["emitted"]["frames"], 0, 0), hop
    assert report.data["self_test"]["exact"]
    swapped(rows)


def started(news, trainer):
    if news["phase"] == "running":
        trainer.running.set()


def swapped(rows):
    """Every device: no model, then the first, then the second, and never back; a score wherever there is a model."""
    order = ["", "window/first", "window/second"]
    seen = {}
    for device, _, model, score in rows:
        model = model or ""
        seen.setdefault(device, []).append(order.index(model))
        assert (score is not None and score != 0) == bool(model)
    assert len(seen) >= 240
    assert all(one <= other for models in seen.values() for one, other in pairwise(models))
    together = Counter(tuple(sorted(set(models))) for models in seen.values())
    assert together[0, 1, 2] >= 240, together
