"""PASS, FAIL or INVALID, with reasons. INVALID first: if generator, clock or checker was not good enough, nothing is proven."""

from dataclasses import asdict, dataclass, field
from typing import Any

from triax_sim.scenario import Gates

__all__ = ["EXIT_CODES", "Check", "Evidence", "Verdict", "judge"]

EXIT_CODES = {"PASS": 0, "FAIL": 1, "INVALID": 2}


@dataclass(frozen=True)
class Check:
    """One gate. `kind`: the verdict if it does not hold."""

    name: str
    kind: str
    holds: bool
    seen: Any
    wanted: str
    help: str = ""


@dataclass(frozen=True)
class Evidence:
    """What the gates look at. Numbers of frames are those that no fault of the scenario explains."""

    hops: dict[str, dict[str, Any]]  # by hop: unexplained_missing, unexplained_repeated, altered, unproved, unknown, latency_us
    lateness_p99_us: int
    worst_second_share: float
    unsent: int
    steal_percent: float
    clock_step_us: int
    negative_latencies: int
    generators_failed: list[str]
    memory_bytes: int = 0
    redis_behind: int | None = None
    self_test: dict[str, Any] | None = None
    sealed: bool = True
    findings: dict[str, Any] | None = None
    faults_failed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """The verdict with every check."""

    verdict: str
    checks: list[Check]

    @property
    def reasons(self) -> list[str]:
        """One sentence for each check that does not hold."""
        out = []
        for check in self.checks:
            if not check.holds:
                out.append(f"{check.name} is {check.seen}, wanted {check.wanted}" + (f": {check.help}" if check.help else ""))
        return out

    @property
    def exit_code(self) -> int:
        """0 PASS, 1 FAIL, 2 INVALID."""
        return EXIT_CODES[self.verdict]

    def to_json(self) -> dict[str, Any]:
        """For a report."""
        return {"verdict": self.verdict, "reasons": self.reasons, "checks": [asdict(check) for check in self.checks]}


def _at_most(name: str, kind: str, seen: float, most: float, unit: str, help: str = "") -> Check:
    shown = round(seen, 2) if isinstance(seen, float) else seen
    return Check(name, kind, seen <= most, f"{shown} {unit}".strip(), f"at most {most} {unit}".strip(), help)


def _of_generator(gates: Gates, evidence: Evidence) -> list[Check]:
    overload = "the generator was late, not the path: use fewer devices, more processes, or a machine with more idle time"
    in_time = _at_most("lateness p99", "INVALID", evidence.lateness_p99_us / 1000, gates.lateness_p99_ms, "ms", overload)
    checks = [
        in_time,
        # A generator that is in time has frames left only where the path holds them back.
        Check(
            "worst second sent within 1 s",
            "FAIL" if in_time.holds else "INVALID",
            evidence.worst_second_share >= gates.second_share,
            round(evidence.worst_second_share, 5),
            f"at least {gates.second_share}",
            "windows or sockets were full: PUBACKs came too late" if in_time.holds else overload,
        ),
        _at_most("unsent frames", "INVALID", evidence.unsent, gates.unsent, "", "a spool ran over or the drain was too short"),
        _at_most("steal time", "INVALID", evidence.steal_percent, gates.steal_percent, "%", "other machines took the processor"),
        _at_most("clock step", "INVALID", evidence.clock_step_us / 1000, gates.clock_step_ms, "ms", "the wall clock was set"),
        Check(
            "frames seen before they were due",
            "INVALID",
            evidence.negative_latencies == 0,
            evidence.negative_latencies,
            "none",
            "two clocks disagree",
        ),
        Check("generators", "INVALID", not evidence.generators_failed, evidence.generators_failed or "ended well", "ended well"),
    ]
    if evidence.self_test is not None:
        exact = bool(evidence.self_test["exact"]) and evidence.sealed
        seen = "exact" if exact else evidence.self_test.get("differs", "not exact")
        checks.append(Check("checker self-test", "INVALID", exact, seen, "exactly what was planted"))
    if evidence.faults_failed:
        checks.append(Check("faults carried out", "INVALID", False, evidence.faults_failed, "all"))
    return checks


def _of_path(gates: Gates, evidence: Evidence) -> list[Check]:
    checks: list[Check] = []
    limits = {"kafka": gates.kafka_p99_ms, "postgres": gates.postgres_p99_ms, "lake": gates.lake_p99_ms}
    for name, hop in evidence.hops.items():
        help = "frames still came when the time to drain was over: what is missing may still come" if hop.get("growing") else ""
        checks.append(_at_most(f"{name}: missing", "FAIL", hop["unexplained_missing"], gates.missing, "frames", help))
        checks.append(_at_most(f"{name}: repeated", "FAIL", hop["unexplained_repeated"], gates.repeated, "frames"))
        if hop.get("behind"):
            help = "its sink had not come to the end of Kafka when the time to drain was over: what is missing may still come"
            checks.append(_at_most(f"{name}: behind", "FAIL", hop["behind"], 0, "records", help))
        for kind in ("altered", "unproved", "unknown"):
            checks.append(_at_most(f"{name}: {kind}", "FAIL", hop[kind], 0, "frames"))
        if limits.get(name) and hop["latency_us"].get("count"):
            checks.append(_at_most(f"{name}: latency p99", "FAIL", hop["latency_us"]["p99"] / 1000, limits[name], "ms"))
    if evidence.redis_behind is not None:
        checks.append(_at_most("redis: behind", "FAIL", evidence.redis_behind, gates.redis_behind, "devices"))
    checks += _of_findings(gates, evidence.findings) if evidence.findings is not None else []
    if gates.memory_gib:
        checks.append(_at_most("memory", "FAIL", evidence.memory_bytes / 2**30, gates.memory_gib, "GiB"))
    return checks


def _of_findings(gates: Gates, findings: dict[str, Any]) -> list[Check]:
    checks = [
        Check("stream: came to the end", "FAIL", findings["complete"], findings["complete"], "every event in the database"),
        _at_most("glitches that raised a spike", "FAIL", findings["spikes_of_glitches"], 0, "events"),
    ]
    for measure, wanted in (("recall", gates.recall), ("precision", gates.precision)):
        for kind, row in findings["kinds"].items() if wanted else ():
            holds = row[measure] >= wanted
            checks.append(Check(f"{kind}: {measure}", "FAIL", holds, round(row[measure], 3), f"at least {wanted:g}"))
    return checks


def judge(gates: Gates, evidence: Evidence) -> Verdict:
    """The verdict: INVALID if a check of the generator, clock or checker does not hold, else FAIL if one of the path does not."""
    checks = _of_generator(gates, evidence) + _of_path(gates, evidence)
    for kind in ("INVALID", "FAIL"):
        if any(check.kind == kind and not check.holds for check in checks):
            return Verdict(kind, checks)
    return Verdict("PASS", checks)
