"""Retraining in a running system: a model scores, another is trained on the lake and swapped in, and no frame is lost."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import pairwise

import numpy as np
import psycopg
import pytest
from triax_backend.models import train, windows
from triax_backend.stream.columns import of_frames
from triax_backend.stream.process import Stream
from triax_proto.frame import frame_dtype
from triax_sim.plan import Cohort, Plan, Target
from triax_sim.population import Population
from triax_sim.run import run
from triax_sim.scenario import parse
from triax_tools.path import path

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(180)]

SCENARIO = """
[run]
duration_s = 52.0
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
TRAIN_AT_S = 12.0  # after the start: the lake has some windows of every device


class Trainer(threading.Thread):
    """Trains and announces, as an operator would, once frames flow."""

    def __init__(self, settings):
        super().__init__(daemon=True)
        self.settings, self.done = settings, None
        self.running = threading.Event()

    def run(self):
        self.running.wait(60)
        time.sleep(TRAIN_AT_S)
        command = [sys.executable, "-m", "triax_backend.models.train", "window", "--version", "second", "--effective-in-s", "1"]
        environ = {**os.environ, **self.settings.environ()}
        self.done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=90)


def first_model(settings):
    """A model of machines like these, in force from the beginning."""
    cohorts = (Cohort("bulk", 0, 60),)
    people = Population(Plan(Target(), cohorts, "", "", seed=9))
    people.begin(1_760_000_000_000_000)
    stream, rows = Stream(), []
    for number in range(250):
        frames, _ = people.frames(0, np.arange(people.count), np.full(people.count, number))
        rows.append(stream.process(of_frames(frames.view(frame_dtype()).ravel(), 0))[0])
    trained = windows.train(np.concatenate(rows))
    train.publish(settings, trained, {}, name="window", version="first", scope="window", effective_from_us=0)


def test_a_model_trained_on_the_lake_is_swapped_in_without_a_lost_frame(tmp_path):
    with path(tmp_path, "embedded", "ingest") as system:
        first_model(system.settings)
        trainer = Trainer(system.settings)
        trainer.start()
        report = run(parse(SCENARIO, "retraining"), system, tmp_path / "run", lambda news: started(news, trainer))
        trainer.join(90)
        with psycopg.connect(system.settings.postgres) as connection:
            query = "SELECT device, time, model, score FROM features WHERE windows = 1 ORDER BY device, time"
            rows = connection.execute(query).fetchall()
    assert trainer.done.returncode == 0, trainer.done.stderr[-2000:]
    assert json.loads(trainer.done.stdout)["version"] == "second"
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
    """Every device: the first model, then the second, and never back; a score wherever there is a model."""
    order = ["", "window/first", "window/second"]
    seen = {}
    for device, _, model, score in rows:
        model = model or ""
        seen.setdefault(device, []).append(order.index(model))
        assert (score is not None and score != 0) == bool(model)
    assert len(seen) >= 240
    assert all(one <= other for models in seen.values() for one, other in pairwise(models))
    together = Counter(tuple(sorted(set(models))) for models in seen.values())
    assert sum(count for models, count in together.items() if models[-2:] == (1, 2)) >= 240, together
