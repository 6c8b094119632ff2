"""Gates one by one, and what faults explain."""

from dataclasses import replace

import numpy as np
import pytest
from triax_proto.hop import HOP, LEDGER
from triax_sim.expect import Expectation, judge_self_test
from triax_sim.reconcile import FATES, Emitted, Hop
from triax_sim.scenario import Gates, parse
from triax_sim.verdict import Evidence, judge

HOP_OK = {
    "unexplained_missing": 0,
    "unexplained_repeated": 0,
    "altered": 0,
    "unproved": 0,
    "unknown": 0,
    "latency_us": {"count": 10, "p99": 1_000_000},
}
GOOD = Evidence(
    hops={"kafka": HOP_OK, "postgres": HOP_OK},
    lateness_p99_us=900,
    worst_second_share=1.0,
    unsent=0,
    steal_percent=0.1,
    clock_step_us=40,
    negative_latencies=0,
    generators_failed=[],
    redis_behind=0,
    self_test={"exact": True},
)


def with_hop(**changes):
    return replace(GOOD, hops={"kafka": HOP_OK, "postgres": HOP_OK | changes})


def test_all_well_is_a_pass():
    verdict = judge(Gates(), GOOD)
    assert (verdict.verdict, verdict.exit_code, verdict.reasons) == ("PASS", 0, [])


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (replace(GOOD, lateness_p99_us=20_001), "lateness p99 is 20.0 ms, wanted at most 20.0 ms: the generator was late"),
        (replace(GOOD, worst_second_share=0.99, lateness_p99_us=20_001), "worst second"),
        (replace(GOOD, unsent=1), "unsent"),
        (replace(GOOD, steal_percent=2.1), "steal time is 2.1 %"),
        (replace(GOOD, clock_step_us=30_000), "clock step"),
        (replace(GOOD, negative_latencies=3), "before they were due"),
        (replace(GOOD, generators_failed=["fleet ended with 1"]), "generators"),
        (replace(GOOD, self_test={"exact": False, "differs": {"missing": 1}}), "checker self-test"),
        (replace(GOOD, sealed=False), "checker self-test"),
        (replace(GOOD, faults_failed=["kill bridge: no hand"]), "faults carried out"),
    ],
)
def test_a_bad_generator_clock_or_checker_is_invalid_even_if_the_path_failed(evidence, words):
    both = replace(evidence, hops={"kafka": HOP_OK | {"unexplained_missing": 5}})
    for one in (evidence, both):
        verdict = judge(Gates(), one)
        assert (verdict.verdict, verdict.exit_code) == ("INVALID", 2)
        assert any(words in reason for reason in verdict.reasons)


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (with_hop(unexplained_missing=1), "postgres: missing is 1 frames, wanted at most 0 frames"),
        (with_hop(unexplained_repeated=1), "postgres: repeated"),
        (replace(GOOD, worst_second_share=0.99), "worst second sent within 1 s is 0.99, wanted at least 0.999: windows or sockets"),
        (
            with_hop(unexplained_missing=7, growing=True),
            "postgres: missing is 7 frames, wanted at most 0 frames: frames still came",
        ),
        (with_hop(behind=7), "postgres: behind is 7 records, wanted at most 0 records: its sink had not come"),
        (with_hop(altered=1), "postgres: altered"),
        (with_hop(unproved=1), "postgres: unproved"),
        (with_hop(unknown=1), "postgres: unknown"),
        (with_hop(latency_us={"count": 10, "p99": 5_000_001}), "postgres: latency p99"),
        (replace(GOOD, redis_behind=2), "redis: behind is 2 devices"),
    ],
)
def test_a_path_that_did_not_hold_fails(evidence, words):
    verdict = judge(Gates(), evidence)
    assert (verdict.verdict, verdict.exit_code) == ("FAIL", 1)
    assert any(words in reason for reason in verdict.reasons)


def test_memory_is_asked_only_where_a_gate_is():
    heavy = replace(GOOD, memory_bytes=9 << 30)
    assert judge(Gates(), heavy).verdict == "PASS"
    assert judge(Gates(memory_gib=8.0), heavy).verdict == "FAIL"


def ledger_of(fates, due_s):
    rows = np.zeros(len(fates), LEDGER)
    rows["device"], rows["boot"], rows["sequence"] = 7, 1, np.arange(len(fates))
    rows["checksum"] = np.arange(len(fates)) + 100
    rows["due_us"] = (np.array(due_s) * 1e6).astype(np.int64)
    for n, fate in enumerate(fates):
        rows["sent_us"][n] = 0 if fate == "never" else rows["due_us"][n] + 10
        rows["acked_us"][n] = rows["due_us"][n] + 20 if fate == "acked" else 0
        rows["qos"][n] = 0 if fate == "written" else 1
    return Emitted(rows)


def scenario_with(kind, target="", at_s=50.0, qos=1):
    text = f'[run]\nduration_s = 200.0\n[[cohort]]\nname = "a"\ndevices = 1\nqos = {qos}\n[tamper]\ndevices = 0\n'
    return parse(f'{text}[[fault]]\nkind = "{kind}"\ntarget = "{target}"\nat_s = {at_s}\n')


def test_what_a_killed_broker_explains_and_what_it_does_not():
    emitted = ledger_of(["acked", "acked", "unknown", "never", "acked"], [1, 51, 52, 3, 199])
    assert emitted.fate.tolist() == [FATES[name] for name in ("acked", "acked", "unknown", "never", "acked")]
    explain = Expectation(scenario_with("process_kill", "mqtt"), "bridge", 0)
    every = np.arange(5)
    # Frame 0 was acknowledged long before, frame 4 long after.
    assert explain.explained(emitted, every, True).tolist() == [False, True, True, True, False]
    assert explain.explained(emitted, every, False).tolist() == [False, True, True, False, False]
    nothing = Expectation(scenario_with("process_kill", "postgres"), "bridge", 0)
    assert nothing.explained(emitted, every, True).tolist() == [False, False, True, True, False]
    assert nothing.explained(emitted, every, False).tolist() == [False, False, True, False, False]


def test_a_frame_that_was_sent_again_may_be_there_twice():
    emitted = ledger_of(["acked", "acked"], [1, 2])
    explain = Expectation(scenario_with("link_delay"), "bridge", 0, np.array([False, True]))
    assert explain.explained(emitted, np.arange(2), False).tolist() == [False, True]
    assert explain.explained(emitted, np.arange(2), True).tolist() == [False, False]


def test_a_cut_link_costs_only_what_was_written_at_qos_0():
    emitted = ledger_of(["written", "written", "acked"], [51, 1, 51])
    explain = Expectation(scenario_with("link_cut", qos=0), "bridge", 0)
    assert explain.explained(emitted, np.arange(3), True).tolist() == [True, False, False]


def test_the_self_test_wants_neither_less_nor_more():
    emitted = ledger_of(["acked"] * 6, range(6))
    rows = np.zeros(5, HOP)
    rows["device"], rows["boot"], rows["sequence"] = 7, 1, [0, 1, 3, 4, 4]
    rows["checksum"], rows["proved"], rows["order"] = rows["sequence"] + 100, True, np.arange(1, 6)
    hop = Hop(emitted, "kafka", ordered=True)
    hop.add(rows)
    explain = Expectation(scenario_with("link_delay"), "bridge", 0)
    reserved = np.ones(6, bool)

    def entry(kind, sequence):
        return {"kind": kind, "device": f"{7:016x}", "boot": 1, "sequence": sequence}

    planted = [entry("drop", 2), entry("flip", 5), entry("repeat", 4)]
    dead = [{"cause": "checksum"}]
    assert judge_self_test(hop, reserved, planted, dead, explain)["exact"]
    assert not judge_self_test(hop, reserved, planted, [], explain)["exact"]
    less = judge_self_test(hop, reserved, [*planted, entry("swap", 1)], dead, explain)
    assert less["differs"] == {"inverted": {"not_found": [(f"{7:016x}", 1, 1)], "not_planted": []}}
    more = judge_self_test(hop, reserved, planted[1:], dead, explain)
    assert more["differs"] == {"missing": {"not_found": [], "not_planted": [(f"{7:016x}", 1, 2)]}}
