"""Scenario files: who takes part, what happens to them and to the servers, what must hold at the end. TOML, each entry checked.

[run]        seed, duration_s, warmup_s, drain_s, processes, slot_ms, way, tls
[[cohort]]   name, devices, kind ("bulk" or "gold"), part, motion, qos, phase, ...     (fields of triax_sim.plan.Cohort)
[[event]]    kind ("outage", "reboot", "reconnect", "clock_step"), at_s, for_s, cohort, share
[[fault]]    kind ("link_cut", "process_kill", ...), at_s, for_s, target
[tamper]     devices, each: errors of each kind planted on devices of their own, in every run
[plant]      each: faults of each kind (triax_sim.planted) that the stream has to find, on devices drawn from all cohorts
[gates]      what the verdict asks for
"""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from triax_backend.shipped import shipped

import triax_sim
from triax_sim.faults import FAULTS, Fault
from triax_sim.motions import check
from triax_sim.plan import EVENTS, BadPlan, Cohort, LifeEvent, check_cohort
from triax_sim.planted import KINDS, Planted, plant

__all__ = ["SCENARIOS", "Gates", "Planting", "Scenario", "Tampering", "load", "parse"]

SCENARIOS = shipped(triax_sim.__file__, "scenarios")
TARGETS = ("mqtt", "kafka", "postgres", "s3", "redis", "bridge", "ingest", "timescale", "lake", "redis-sink", "stream")
RESERVED = "reserved"


@dataclass(frozen=True)
class Tampering:
    """Errors planted on devices of their own by `triax_sim.tamper`: `each` of every kind."""

    devices: int = 40
    each: int = 20
    qos: int = 1


@dataclass(frozen=True)
class Planting:
    """Faults of machines and sensors for the stream to find: `each` of every kind, one a device; 0: none."""

    each: int = 0


@dataclass(frozen=True)
class Gates:
    """What a run must show. FAIL: the path did not hold it. INVALID: generator, clock or checker was not good enough."""

    # FAIL. Frames missing or repeated beyond what the scenario's faults may cost.
    missing: int = 0
    repeated: int = 0
    redis_behind: int = 0
    # Latency from the due time, p99, by hop; 0: not asked.
    kafka_p99_ms: float = 0.0
    postgres_p99_ms: float = 5000.0
    lake_p99_ms: float = 0.0
    memory_gib: float = 0.0
    # Of each kind of planted fault; 0: not asked.
    recall: float = 0.0
    precision: float = 0.0
    # INVALID. Lateness of the generator: due to socket write.
    lateness_p99_ms: float = 20.0
    # Least share of the frames of each second (booked to the second they were due) sent within 1 s.
    second_share: float = 0.999
    unsent: int = 0
    steal_percent: float = 2.0
    clock_step_ms: float = 20.0


@dataclass(frozen=True)
class Scenario:
    """A run, completely. `devices` counts the reserved ones too."""

    name: str
    cohorts: tuple[Cohort, ...]
    seed: int = 1
    duration_s: float = 20.0
    warmup_s: float = 2.0
    drain_s: float = 60.0
    processes: int = 1
    way: str = "ingest"  # into Kafka, where the run starts the path itself: "ingest", or "bridge" behind a broker
    tls: bool = False  # each device has a certificate of its own, which the ingest front asks for
    slot_ms: float = 2.0
    connect_hz: float = 2000.0
    events: tuple[LifeEvent, ...] = ()
    faults: tuple[Fault, ...] = ()
    tampering: Tampering = Tampering()
    planting: Planting = Planting()
    gates: Gates = Gates()
    # Recording that gold devices replay instead of their motion.
    recording: str = ""
    text: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.way not in ("bridge", "ingest"):
            raise BadPlan(f"{self.name}: way is {self.way!r}; it is bridge or ingest")
        if self.tls and self.way == "bridge":
            raise BadPlan(
                f"{self.name}: tls is the ingest front's; take way = ingest, or a broker of yours with --mqtt mqtts://..."
            )

    @property
    def devices(self) -> int:
        """All of them."""
        return sum(cohort.count for cohort in self.cohorts)

    @property
    def planted(self) -> tuple[Planted, ...]:
        """The faults that its devices have: a function of seed, cohorts and length."""
        cohorts = [cohort for cohort in self.cohorts if not cohort.reserved]
        return plant(self.seed, cohorts, self.planting.each, self.duration_s) if self.planting.each else ()

    def of_kind(self, kind: str, reserved: bool = False) -> tuple[Cohort, ...]:
        """Cohorts simulated in one way, the reserved ones apart."""
        return tuple(c for c in self.cohorts if c.kind == kind and c.reserved == reserved)

    def with_(self, **changes: Any) -> "Scenario":
        """The scenario with other values: `devices`, without reserved ones, scales the largest bulk cohort; others replace fields.

        Raises BadPlan.
        """
        devices = changes.pop("devices", None)
        qos = changes.pop("qos", None)
        out = replace(self, **changes)
        if devices is not None:
            out = out._resized(devices)
        if qos is not None:
            cohorts = tuple(replace(c, qos=qos) for c in out.cohorts)
            out = replace(out, cohorts=cohorts, tampering=replace(out.tampering, qos=qos))
        return out

    def _resized(self, devices: int) -> "Scenario":
        """Bulk cohorts in the same proportions, `devices` with the gold ones, which stay as they are."""
        bulk = self.of_kind("bulk")
        rest = sum(c.count for c in self.cohorts if c.kind == "gold")
        wanted, whole = devices - rest, sum(c.count for c in bulk)
        if not bulk or wanted < len(bulk):
            raise BadPlan(
                f"{self.name}: {devices} devices are too few for its {rest} gold ones and {len(bulk)} bulk cohorts; "
                f"take {rest + len(bulk)} or more"
            )
        counts = {c.name: max(1, c.count * wanted // whole) for c in bulk}
        counts[max(bulk, key=lambda c: c.count).name] += wanted - sum(counts.values())
        return replace(self, cohorts=_numbered([replace(c, count=counts.get(c.name, c.count)) for c in self.cohorts]))

    def to_json(self) -> dict[str, Any]:
        """All values, for a report."""
        return {name: value for name, value in asdict(self).items() if name != "text"}


def _table(kind: Any, data: Any, where: str, also: tuple[str, ...] = ()) -> dict[str, Any]:
    """Entries of a table with their types checked. Raises BadPlan."""
    if not isinstance(data, Mapping):
        raise BadPlan(f"{where} is no table; write [{where}] and its entries below")
    known = {f.name: f for f in fields(kind)}
    for name, value in data.items():
        if name in also:
            continue
        if name not in known:
            raise BadPlan(f"{where}: there is no {name!r}; there are {', '.join(sorted([*known, *also]))}")
        default = known[name].default
        wanted = type(default) if default is not MISSING else str if name in ("name", "kind") else float
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            continue
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            raise BadPlan(f"{where}: {name} = {value!r} is no {wanted.__name__}")
    return dict(data)


def _numbered(cohorts: list[Cohort]) -> tuple[Cohort, ...]:
    """Cohorts one after the other in the fleet's index."""
    out, first = [], 0
    for cohort in cohorts:
        out.append(replace(cohort, first=first))
        first += cohort.count
    return tuple(out)


def _cohort(data: Any, n: int) -> Cohort:
    where = f"cohort {n + 1}"
    values = _table(Cohort, data, where, also=("devices",))
    if "first" in values or "count" in values:
        raise BadPlan(f"{where}: give `devices`; `first` and `count` follow from it")
    devices = values.pop("devices", None)
    if not isinstance(devices, int) or devices < 1:
        raise BadPlan(f"{where}: devices = {devices!r}; give how many there are, at least 1")
    cohort = Cohort(name=values.pop("name", f"cohort-{n + 1}"), first=0, count=devices, **values)
    if cohort.kind not in ("bulk", "gold"):
        raise BadPlan(f"{where}: kind is {cohort.kind!r}; it is bulk or gold")
    check_cohort(cohort)
    check(cohort.part, cohort.motion)
    return cohort


def _event(data: Any, n: int, names: set[str]) -> LifeEvent:
    where = f"event {n + 1}"
    event: LifeEvent = _made(LifeEvent, _table(LifeEvent, data, where), where)
    if event.kind not in EVENTS:
        raise BadPlan(f"{where}: kind is {event.kind!r}; it is one of {', '.join(EVENTS)}")
    if event.cohort and event.cohort not in names:
        raise BadPlan(f"{where}: there is no cohort {event.cohort!r}; there are {', '.join(sorted(names))}")
    return event


def _fault(data: Any, n: int) -> Fault:
    where = f"fault {n + 1}"
    fault: Fault = _made(Fault, _table(Fault, data, where), where)
    if fault.kind not in FAULTS:
        raise BadPlan(f"{where}: kind is {fault.kind!r}; it is one of {', '.join(FAULTS)}")
    if fault.kind.startswith("process") and fault.target not in TARGETS:
        raise BadPlan(f"{where}: target is {fault.target!r}; it is one of {', '.join(TARGETS)}")
    return fault


def _made(kind: Any, values: dict[str, Any], where: str) -> Any:
    try:
        return kind(**values)
    except TypeError as error:
        raise BadPlan(f"{where}: {str(error).partition(') ')[2] or error}") from None


def parse(text: str, name: str = "scenario") -> Scenario:
    """A scenario of its TOML text. Raises BadPlan with the entry that is wrong and what it takes."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadPlan(f"{name} is no TOML: {error}") from None
    for key in data:
        if key not in ("run", "cohort", "event", "fault", "tamper", "plant", "gates"):
            raise BadPlan(f"{name}: there is no [{key}]; there are run, cohort, event, fault, tamper, plant, gates")
    run = _table(Scenario, data.get("run", {}), "run")
    for key in ("cohorts", "events", "faults", "tampering", "planting", "gates", "text"):
        if key in run:
            raise BadPlan(f"run: {key} is a table of its own")
    cohorts = [_cohort(item, n) for n, item in enumerate(data.get("cohort", []))]
    if not cohorts:
        raise BadPlan(f'{name} has no device; write [[cohort]] with name = "a" and devices = 10')
    names = {cohort.name for cohort in cohorts}
    if len(names) < len(cohorts) or RESERVED in names:
        raise BadPlan(f"{name}: cohorts want different names, and none is {RESERVED!r}")
    for cohort in cohorts:
        if cohort.client_of and cohort.client_of not in names:
            raise BadPlan(f"cohort {cohort.name!r}: client_of names no cohort; there are {', '.join(sorted(names))}")
    tampering = Tampering(**_table(Tampering, data.get("tamper", {}), "tamper"))
    if tampering.devices:
        cohorts.append(Cohort(RESERVED, 0, tampering.devices, qos=tampering.qos, reserved=True))
    planting = Planting(**_table(Planting, data.get("plant", {}), "plant"))
    gates = Gates(**_table(Gates, data.get("gates", {}), "gates"))
    events = tuple(_event(item, n, names) for n, item in enumerate(data.get("event", [])))
    faults = tuple(_fault(item, n) for n, item in enumerate(data.get("fault", [])))
    out = Scenario(
        name=run.pop("name", name), cohorts=_numbered(cohorts), events=events, faults=faults, tampering=tampering,
        planting=planting, gates=gates, text=text, **run,
    )  # fmt: skip
    _check_times(out)
    _check_planting(out)
    return out


def _check_planting(scenario: Scenario) -> None:
    each = scenario.planting.each
    if not each:
        return
    devices = sum(cohort.count for cohort in scenario.cohorts if not cohort.reserved)
    if each < 0 or each * len(KINDS) > devices:
        raise BadPlan(f"plant: {each} faults of each of {len(KINDS)} kinds do not fit on {devices} devices, one a device")
    if any(event.kind == "reboot" for event in scenario.events):
        raise BadPlan("plant: a reboot begins the stream's knowledge of a device anew; plant faults in a scenario without one")


def _check_times(scenario: Scenario) -> None:
    if scenario.duration_s <= scenario.warmup_s:
        raise BadPlan(f"run: a warm-up of {scenario.warmup_s} s leaves nothing of {scenario.duration_s} s")
    if scenario.processes < 1:
        raise BadPlan("run: processes = 0; at least one generator process has to run")
    times = [("event", n, event.at_s) for n, event in enumerate(scenario.events)]
    times += [("fault", n, fault.at_s) for n, fault in enumerate(scenario.faults)]
    for kind, n, at_s in times:
        if not 0 <= at_s < scenario.duration_s:
            raise BadPlan(f"{kind} {n + 1}: at_s = {at_s} is outside of the run's {scenario.duration_s} s")
    tampering = scenario.tampering
    # Errors of a device stand four frames apart; half of what fits is room for chance.
    room = tampering.devices * (scenario.duration_s - scenario.warmup_s - 3) * 10 / 4 / 2
    if tampering.devices and tampering.each * 4 > room:
        raise BadPlan(
            f"tamper: {tampering.each} errors of each kind do not fit on {tampering.devices} devices in {scenario.duration_s} s; "
            f"take {int(room / 4)}, or more devices"
        )


def load(path: str | Path) -> Scenario:
    """The scenario of a file, or of a name like "smoke" among those that come with triax. Raises BadPlan."""
    path = Path(path)
    if not path.suffix and not path.exists():
        path = SCENARIOS / f"{path.name}.toml"
    try:
        text = path.read_text()
    except OSError as error:
        known = sorted(p.stem for p in SCENARIOS.glob("*.toml"))
        raise BadPlan(f"{path}: {error.strerror}; scenarios that come with triax: {', '.join(known)}") from None
    return parse(text, path.stem)
