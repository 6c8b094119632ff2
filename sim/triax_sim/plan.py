"""What one generator process is told: the server, its share of the devices, and what happens to them. One JSON object."""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

__all__ = ["BadPlan", "Cohort", "LifeEvent", "Plan", "Target"]

PHASES = ("uniform", "aligned", "poisson")
EVENTS = ("outage", "reboot", "clock_step", "reconnect")


class BadPlan(ValueError):
    """A plan or scenario cannot be run; the message names the entry and what it takes."""


@dataclass(frozen=True)
class Target:
    """MQTT server: host and port, or the path of a Unix socket. `certificates`: folder with <device>.pem (certificate and key)."""

    host: str = "127.0.0.1"
    port: int = 1883
    unix: str = ""
    username: str | None = None
    password: str | None = None
    ca: str = ""
    certificates: str = ""


@dataclass(frozen=True)
class Cohort:
    """Devices `first` to `first + count - 1` of the fleet, alike but for their clocks and phases."""

    name: str
    first: int
    count: int
    part: str = "adxl382"
    motion: str = "rotor"
    # Frames per second; 0: the part's own (about 10).
    frame_hz: float = 0.0
    phase: str = "uniform"
    # Standard deviation of the devices' oscillators.
    clock_ppm: float = 50.0
    qos: int = 1
    # Unacknowledged frames in flight, QoS 1.
    window: int = 8
    # Frames that a device holds; the oldest is dropped for the newest.
    spool: int = 36_000
    # Frames a second out of the backlog, beside live ones.
    replay_hz: float = 20.0
    keepalive_s: int = 60
    # Full-jitter exponential backoff; false: again at once, as bad firmware does.
    backoff: bool = True
    # Switched on this long after the start, evenly within `power_spread_s`.
    power_on_s: float = 0.0
    power_spread_s: float = 0.0
    # Spool that is full at the start: this much time before it.
    backlog_s: float = 0.0
    old_schema: bool = False
    # Cohort whose MQTT client ids are used as well: a cloned identity on the connection level.
    client_of: str = ""
    # Reserved for planted errors.
    reserved: bool = False
    kind: str = "bulk"


@dataclass(frozen=True)
class LifeEvent:
    """Something that happens to a share of a cohort (empty: all cohorts) `at_s` after the start."""

    kind: str
    at_s: float
    for_s: float = 0.0
    cohort: str = ""
    share: float = 1.0
    # clock_step: the device's UTC jumps by this.
    step_s: float = 0.0
    # reboot: frames in the spool survive (it is on a disk).
    spool_kept: bool = True


@dataclass(frozen=True)
class Plan:
    """All of it. Process `process` of `processes` takes the devices whose index is `process` modulo `processes`."""

    target: Target
    cohorts: tuple[Cohort, ...]
    ledger: str
    stats: str
    seed: int = 1
    boot: int = 1
    duration_s: float = 10.0
    warmup_s: float = 0.0
    drain_s: float = 30.0
    process: int = 0
    processes: int = 1
    connect_hz: float = 2000.0
    # Frames due within one slot go out together: later by at most a slot, cheaper by fewer wake-ups on both sides.
    slot_ms: float = 2.0
    # Wait for a line `go <UTC microseconds>` on standard input before the first frame is due.
    wait: bool = False
    # Priority of the process, taken where it is allowed (root). Devices are machines of their own: they do not wait for a
    # processor that the servers keep busy.
    nice: int = -10
    events: tuple[LifeEvent, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line for `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises BadPlan."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise BadPlan(f"the plan is no JSON: {error}") from None
        data["target"] = _make(Target, data.get("target", {}), "target")
        data["cohorts"] = tuple(_make(Cohort, item, f"cohort {n}") for n, item in enumerate(data.get("cohorts", [])))
        data["events"] = tuple(_make(LifeEvent, item, f"event {n}") for n, item in enumerate(data.get("events", [])))
        plan: Self = _make(cls, data, "plan")
        for cohort in plan.cohorts:
            check_cohort(cohort)
        return plan


def _make(kind: Any, data: dict[str, Any], where: str) -> Any:
    names = {f.name for f in fields(kind)}
    for name in data:
        if name not in names:
            raise BadPlan(f"{where}: there is no {name!r}; there are {', '.join(sorted(names))}")
    try:
        return kind(**data)
    except TypeError as error:
        raise BadPlan(f"{where}: {error}") from None


def check_cohort(cohort: Cohort) -> None:
    """Raises BadPlan where a value is out of what can be simulated."""
    where = f"cohort {cohort.name!r}"
    if cohort.phase not in PHASES:
        raise BadPlan(f"{where}: phase is {cohort.phase!r}; it is one of {', '.join(PHASES)}")
    if cohort.qos not in (0, 1):
        raise BadPlan(f"{where}: qos is {cohort.qos}; frames are sent at 0 or 1")
    if not 1 <= cohort.window <= 32:
        raise BadPlan(f"{where}: window is {cohort.window}; 1 to 32 frames can be in flight")
    if cohort.count < 1 or cohort.first < 0:
        raise BadPlan(f"{where}: wants at least one device, from index 0")
    if cohort.spool < cohort.window:
        raise BadPlan(f"{where}: a spool of {cohort.spool} frames cannot hold a window of {cohort.window}")
