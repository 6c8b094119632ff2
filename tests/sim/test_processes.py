"""Generators, relays and tamperer as the processes that a run starts: told by lines, ended by signals, never left behind."""

import json
import signal
import time

import pytest
from triax_sim import ledger as ledgers
from triax_sim.generators import Child, Generator, GeneratorFailed
from triax_sim.plan import Cohort, Plan, Target
from triax_sim.tamper import seal


def plan_for(broker, tmp_path, **options):
    cohorts = (Cohort("bulk", 0, 5, kind=options.pop("kind", "bulk")),)
    target = Target(port=broker.port)
    return Plan(
        target, cohorts, str(tmp_path / "a.ledger"), str(tmp_path / "a.json"), boot=1_800_000_000, wait=True, **options
    )  # fmt: skip


def until_done(generator, seconds=20):
    deadline = time.monotonic() + seconds
    while generator.done is None and time.monotonic() < deadline:
        generator.listen()
        time.sleep(0.02)
    return generator.done


@pytest.mark.parametrize("module", ["fleet", "gold"])
def test_a_generator_waits_for_go_and_shows_the_watched_device(broker, tmp_path, module):
    plan = plan_for(broker, tmp_path, duration_s=1.6, kind="gold" if module == "gold" else "bulk")
    generator = Generator(module, plan, tmp_path / "log")
    assert generator.wait_for("ready", 20)["ready"] == 5
    generator.say(f"watch {0x0200000001000003:016x}")
    generator.say(f"go {time.time_ns() // 1000 + 200_000}")
    done = until_done(generator)
    assert generator.end() == 0
    assert done["due"] == done["acked"] == pytest.approx(80, abs=8)
    assert generator.totals["due"] == done["due"]
    assert generator.last["online"] == (5 if module == "fleet" else 0)  # gold nodes say goodbye first
    wave = generator.last["wave"]
    assert wave["device"] == "0200000001000003"
    assert 100 >= len(wave["x"]) >= 90
    assert abs(sum(wave["z"]) / len(wave["z"]) - 0.98) < 0.2
    stats = generator.stats()
    assert 10_000 < stats["memory_kb"] < 400_000
    assert len(ledgers.read([plan.ledger])) == done["due"]


def test_sigterm_cuts_a_run_short_and_it_is_accounted_for(broker, tmp_path):
    generator = Generator("fleet", plan_for(broker, tmp_path, duration_s=60.0), tmp_path / "log")
    generator.wait_for("ready", 20)
    generator.say(f"go {time.time_ns() // 1000}")
    generator.wait_for("due", 20)
    generator.process.send_signal(signal.SIGTERM)
    done = until_done(generator)
    assert generator.end() == 0
    rows = ledgers.read([generator.plan.ledger])
    assert 0 < len(rows) == done["due"] < 300
    assert generator.stats()["stopped"]


def test_whoever_started_it_has_gone(broker, tmp_path):
    generator = Generator("fleet", plan_for(broker, tmp_path, duration_s=60.0), tmp_path / "log")
    generator.wait_for("ready", 20)
    assert generator.end(10.0) == 0


def test_what_a_generator_cannot_do_is_said(broker, tmp_path):
    generator = Child("fleet", '{"cohorts": []}', tmp_path / "log")
    with pytest.raises(GeneratorFailed, match="fleet ended early with 2: plan: "):
        generator.wait_for("ready", 20)
    generator.end()
    silent = Child("faults", json.dumps({"to": ["127.0.0.1", broker.port]}), tmp_path / "log2")
    with pytest.raises(GeneratorFailed, match="did not say 'ready' within 1 s"):
        silent.wait_for("ready", 1)
    silent.end()
    assert not silent.running


def test_a_tamperer_seals_before_it_reveals(broker, tmp_path):
    options = {"to": ["127.0.0.1", broker.port], "drop": 2, "from_s": 0.0, "for_s": 0.1}
    tamper = Child("tamper", json.dumps(options), tmp_path / "log")
    port = int(tamper.wait_for("port", 20)["port"])
    tamper.say("begin")
    tamper.wait_for("begun", 5)
    target = Target(port=port)
    plan = Plan(target, (Cohort("r", 0, 5),), str(tmp_path / "a.ledger"), str(tmp_path / "a.json"), duration_s=0.8)
    generator = Generator("fleet", plan, tmp_path / "log3")
    assert until_done(generator)["acked"] == 40
    generator.end()
    tamper.say("seal")
    sealed = tamper.wait_for("sealed", 5)
    assert sealed["left"] == 0
    tamper.say("reveal")
    revealed = tamper.wait_for("planted", 5)
    assert [entry["kind"] for entry in revealed["planted"]] == ["drop", "drop"]
    assert seal(revealed["planted"], revealed["salt"]) == sealed["sealed"]
    assert seal(revealed["planted"][:1], revealed["salt"]) != sealed["sealed"]
    tamper.say("end")
    assert tamper.end() == 0
    assert len(broker.settled().frames) == 38
