"""A finished run's account: ledger against hops, what faults explain, what was planted, and the verdict."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from triax_backend import hops

from triax_sim import ledger as ledgers
from triax_sim.bulk import device_ids
from triax_sim.diagnosis import diagnose
from triax_sim.expect import Expectation, judge_self_test, reserved_places, split_findings
from triax_sim.generated import Generated, by_second, health, merged, resent
from triax_sim.histogram import Histogram
from triax_sim.pipeline import GROUPS, KafkaTail, System, group_lag, hop_rows, wait_until
from triax_sim.reconcile import FATES, Emitted, Hop, behind, fate_names, read_all
from triax_sim.scenario import Scenario
from triax_sim.tamper import seal
from triax_sim.verdict import Evidence, Verdict, judge

__all__ = ["Account", "account"]

Array = np.ndarray[Any, Any]
Say = Callable[[str], None]

_QUIET_S = 3.0  # nothing new in Kafka for so long, after all was sent: what is missing is lost (a bridge retries within 2 s)
_QUIET_FAULT_S = 12.0  # a worker that was killed, or its backoff, takes longer


@dataclass
class Account:
    """Everything about a run that a report shows."""

    data: dict[str, Any]
    verdict: Verdict
    emitted: Emitted
    hops: dict[str, Hop]
    histograms: dict[str, Histogram]
    reserved: Array  # True for frames of the devices on which errors were planted
    revealed: dict[str, Any] | None = None


def _mqtt_hop(emitted: Emitted, measure_from: int) -> Hop:
    """The ledger's own view: acknowledged at QoS 1, written at QoS 0."""
    hop = Hop(emitted, "mqtt", measure_from)
    through = (emitted.fate == FATES["acked"]) | (emitted.fate == FATES["written"])
    hop.seen[through] = 1
    rows = emitted.rows
    timed = (rows["acked_us"] > 0) & (rows["due_us"] >= measure_from)
    hop.latency.record((rows["acked_us"] - rows["due_us"])[timed])
    return hop


def _read_kafka(system: System, emitted: Emitted, made: Generated, reserved: Array, measure_from: int, limit_s: float) -> Hop:
    """Kafka until nothing is missing that can still come."""
    hop, tail = Hop(emitted, "kafka", measure_from, ordered=True), KafkaTail(system.settings, made.kafka_start)
    quiet_s = _QUIET_FAULT_S if made.faults else _QUIET_S
    began = last = time.monotonic()
    wanted = emitted.known & (emitted.fate != FATES["never"])
    while True:
        before = hop.rows
        read_all(hop, tail.more())
        now = time.monotonic()
        if hop.rows > before:
            last = now
        if not (wanted & (hop.seen == 0) & ~reserved).any() and now - last > 1.0:
            return hop
        hop.growing = now - began > limit_s and now - last < 1.0
        if now - last > quiet_s or now - began > limit_s:
            return hop
        time.sleep(0.3)


def _read_hops(scenario: Scenario, system: System, emitted: Emitted, made: Generated, reserved: Array, say: Say) -> dict[str, Hop]:
    measure_from = made.start_us + int(scenario.warmup_s * 1e6)
    out = {"mqtt": _mqtt_hop(emitted, measure_from)}
    if "kafka" in system.hops:
        say("reading Kafka")
        out["kafka"] = _read_kafka(system, emitted, made, reserved, measure_from, scenario.drain_s)
    groups = [GROUPS[name] for name in system.hops if name in GROUPS]
    if groups:
        say("waiting for the sinks")
        wait_until(lambda: not any(group_lag(system.settings, groups).values()), scenario.drain_s)
    for name in ("postgres", "lake"):
        if name in system.hops:
            say(f"reading {name}")
            since = made.start_us - 60_000_000  # received after the start; a minute for clocks of other hosts
            out[name] = read_all(Hop(emitted, name, measure_from), hop_rows(system.settings, name, since))
    return out


def _repeats_beyond(hop: Hop, above: Hop | None) -> Array:
    """Repeats that a hop has on top of those it was given: the lake keeps what Kafka holds, verbatim."""
    given = np.maximum(above.seen, 1) if above is not None else np.ones_like(hop.seen)
    extra = np.maximum(hop.seen.astype(np.int64) - given, 0)
    return np.repeat(np.arange(len(extra)), extra)


def _findings(hop: Hop, hops_: Mapping[str, Hop], explain: Expectation, reserved: Array) -> dict[str, Any]:
    """A hop's result with what no fault explains, of all devices but the reserved: those are for the self-test to judge."""
    above = {name: other for name, other in hops_.items() if name != hop.name and name in ("mqtt", "kafka")}
    if hop.name == "kafka":
        above.pop("kafka", None)
    if hop.name == "mqtt":
        above = {}
    result = hop.result(above)
    split = split_findings(hop, reserved)
    missing, kept = split["missing"]
    kafka = hops_.get("kafka")
    if hop.name not in ("mqtt", "kafka") and kafka is not None:
        missing = np.concatenate([missing, kept[(kafka.seen[kept] > 0)]])  # reserved ones were lost before Kafka, or are a finding
    repeats = hop.repeats[~reserved[hop.repeats]]
    if hop.name == "lake":
        repeats = _repeats_beyond(hop, kafka)
        result["stored_repeats"] = result["repeated"]
    elif hop.name == "postgres":
        repeats = hop.repeats
    here = hop.seen > 0
    result["reserved"] = {"frames": int((here & reserved).sum()), "missing": result["missing"] - len(missing)}
    result |= {"frames": int((here & ~reserved).sum()), "missing": len(missing), "repeated": len(repeats)}
    result["inverted"], result["missing_by_fate"] = len(split["inverted"][0]), fate_names(hop.emitted.fate[missing])
    excused = explain.explained(hop.emitted, missing, True)
    if hop.name not in ("mqtt", "kafka") and kafka is not None:
        excused &= kafka.seen[missing] == 0  # what Kafka holds, no fault before it has cost
    lost = missing[~excused]
    twice = repeats[~explain.explained(hop.emitted, repeats, False)] if hop.name == "kafka" else repeats
    result["unexplained_missing"], result["unexplained_repeated"] = len(lost), len(twice)
    result["unexplained"] = {"missing": hop.emitted.names(lost)[:100], "repeated": hop.emitted.names(twice)[:100]}
    return result


# The way in proves every frame; what later stages bury meanwhile may be of other senders.
_WAYS_IN = ("bridge", "ingest")


def _dead(system: System, start_us: int) -> list[dict[str, Any]]:
    """Dead letters since the run began: cause, stage and, where readable, the identity."""
    out = []
    for cause, stage, row in hops.dead(system.settings, since_us=start_us):
        if stage not in _WAYS_IN:
            continue
        entry: dict[str, Any] = {"cause": cause, "stage": stage}
        if row is not None:
            entry |= {"device": f"{int(row['device'][0]):016x}", "boot": int(row["boot"][0]), "sequence": int(row["sequence"][0])}
            entry["proved"] = bool(row["proved"][0])
        out.append(entry)
    return out


def _self_test(
    system: System, made: Generated, found: dict[str, Hop], reserved: Array, explain: Expectation
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Whether the planted errors were found, and what was planted; None, None where nothing was. The list is revealed only here."""
    if made.reveal is None or "kafka" not in found:
        return None, None
    revealed = made.reveal()
    dead = [one for one in _dead(system, made.start_us) if not one.get("proved", False)]
    result = judge_self_test(found["kafka"], reserved, revealed["planted"], dead, explain)
    result["sealed"] = made.sealed
    result["seal_holds"] = seal(revealed["planted"], revealed["salt"]) == made.sealed
    return result, revealed


def account(scenario: Scenario, system: System, made: Generated, say: Say = lambda text: None) -> Account:
    """Read the ledger and every hop, reconcile, judge."""
    say("reading the ledger")
    emitted = Emitted(ledgers.read(made.ledgers))
    reserved = reserved_places(emitted, _reserved_devices(scenario))
    explain = Expectation(scenario, system.way_in, made.start_us, resent(emitted, made.stats))
    found = _read_hops(scenario, system, emitted, made, reserved, say)
    say("judging")
    results = {name: _findings(hop, found, explain, reserved) for name, hop in found.items()}
    for name, lag in group_lag(system.settings, [GROUPS[name] for name in found if name in GROUPS]).items():
        results[next(hop for hop, group in GROUPS.items() if group == name)]["behind"] = lag
    self_test, revealed = _self_test(system, made, found, reserved, explain)
    redis = None
    if "redis" in system.hops:
        present = found["kafka"].seen > 0 if "kafka" in found else found["mqtt"].seen > 0
        redis = behind(emitted, present, hops.redis(system.settings))
    if scenario.planting.each:
        say("waiting for the stream")
    findings = diagnose(scenario, system, made.start_us, np.unique(emitted.rows["boot"]).tolist())
    histograms = merged(made.stats)
    seconds, worst = by_second(emitted, made.start_us, scenario)
    evidence = _evidence(scenario, made, results, found, histograms, worst, self_test, redis, findings)
    verdict = judge(scenario.gates, evidence)
    data = {
        "verdict": verdict.verdict,
        "reasons": verdict.reasons,
        "checks": verdict.to_json()["checks"],
        "scenario": scenario.to_json(),
        "start_us": made.start_us,
        "hops": {"emitted": _emitted(emitted, reserved), **results},
        "faults": explain.table(made.faults, found.get("kafka"), reserved),
        "self_test": self_test,
        "findings": findings,
        "planted": revealed["planted"] if revealed else [],
        "generator": health(made, histograms),
        "machine": made.cpu,
        "processes": made.processes,
        "memory_bytes": made.memory_bytes,
        "seconds": seconds,
    }
    if redis is not None:
        data["hops"]["redis"] = {"devices": data["hops"]["emitted"]["devices"], "behind": len(redis), "named": redis[:100]}
    return Account(data, verdict, emitted, found, histograms, reserved, revealed)


def _reserved_devices(scenario: Scenario) -> Array:
    index = [np.arange(c.first, c.first + c.count) for c in scenario.cohorts if c.reserved]
    return device_ids(scenario.seed, np.concatenate(index)) if index else np.empty(0, np.uint64)


def _emitted(emitted: Emitted, reserved: Array) -> dict[str, Any]:
    mine = emitted.place[~reserved[emitted.place]]
    clones = len(emitted.clones)
    devices = len(emitted.latest(emitted.known & ~reserved))
    return {"frames": len(mine), "devices": devices, "reserved": emitted.frames - len(mine), **fate_names(emitted.fate[mine])} | (
        {"cloned": clones} if clones else {}
    )


def _evidence(
    scenario: Scenario,
    made: Generated,
    results: dict[str, dict[str, Any]],
    found: dict[str, Hop],
    histograms: dict[str, Histogram],
    worst: float,
    self_test: dict[str, Any] | None,
    redis: list[dict[str, Any]] | None,
    findings: dict[str, Any] | None,
) -> Evidence:
    lateness = histograms.get("lateness", Histogram())
    return Evidence(
        hops=results,
        lateness_p99_us=lateness.percentile(99),
        worst_second_share=worst,
        unsent=sum(one["unsent"] for one in made.stats),
        steal_percent=made.cpu.get("steal", 0.0),
        clock_step_us=max((one["clock_step_us"] for one in made.stats), default=0),
        negative_latencies=lateness.negative + sum(hop.latency.negative for hop in found.values()),
        generators_failed=made.failed,
        memory_bytes=made.memory_bytes,
        redis_behind=None if redis is None else len(redis),
        self_test=self_test,
        findings=findings,
        sealed=self_test is None or self_test["seal_holds"],
        faults_failed=[f"{entry['what']}: {entry['error']}" for entry in made.faults if "error" in entry],
    )
