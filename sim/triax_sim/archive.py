"""The generators' side of a run on disk, to read the hops again later, or after the shards of several machines are together.

run.json    scenario, start, Kafka's offsets before it, faults, costs, seal; beside the ledgers and statistics of the generators
"""

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from triax_sim.faults import Fault
from triax_sim.generated import Generated
from triax_sim.plan import BadPlan, Cohort, LifeEvent
from triax_sim.scenario import Gates, Planting, Scenario, Tampering

__all__ = ["load", "merge", "save"]

_FILE = "run.json"
_PLAIN = ("start_us", "failed", "faults", "cpu", "processes", "memory_bytes", "sealed")


def scenario_of(data: dict[str, Any]) -> Scenario:
    """The scenario that `Scenario.to_json` gave. Raises BadPlan."""
    try:
        tables: dict[str, Any] = {
            "cohorts": tuple(Cohort(**item) for item in data["cohorts"]),
            "events": tuple(LifeEvent(**item) for item in data["events"]),
            "faults": tuple(Fault(**item) for item in data["faults"]),
            "tampering": Tampering(**data["tampering"]),
            "planting": Planting(**data["planting"]),
            "gates": Gates(**data["gates"]),
        }
        known = {f.name for f in fields(Scenario)}
        return Scenario(**{k: v for k, v in data.items() if k in known and k not in tables}, **tables)
    except (KeyError, TypeError) as error:
        raise BadPlan(f"run.json holds no scenario of this version: {error}") from None


def save(directory: Path, scenario: Scenario, made: Generated, revealed: dict[str, Any] | None = None) -> None:
    """Write run.json; once the tamperer's list is revealed, again with it."""
    data = {name: getattr(made, name) for name in _PLAIN}
    data |= {
        "scenario": scenario.to_json(),
        "kafka_start": {str(n): at for n, at in made.kafka_start.items()},
        "ledgers": [path.name for path in made.ledgers],
        "revealed": revealed,
    }
    (directory / _FILE).write_text(json.dumps(data))


def load(directory: Path) -> tuple[Scenario, Generated]:
    """What `save` wrote. Raises BadPlan if that folder holds no run."""
    try:
        data = json.loads((directory / _FILE).read_text())
    except (OSError, ValueError) as error:
        raise BadPlan(f"{directory} holds no run ({error}); give the folder of a `triax fleet run`") from None
    ledgers = [directory / name for name in data["ledgers"]]
    stats = [json.loads(path.with_suffix(".json").read_text()) for path in ledgers if path.with_suffix(".json").exists()]
    made = Generated(
        ledgers=ledgers,
        stats=stats,
        kafka_start={int(n): at for n, at in data["kafka_start"].items()},
        **{name: data[name] for name in _PLAIN},
    )
    revealed = data["revealed"]
    if revealed is not None:
        made.reveal = lambda: dict(revealed)
    return scenario_of(data["scenario"]), made


def merge(directories: Sequence[Path]) -> tuple[Scenario, Generated]:
    """Shards of one run as one. Raises BadPlan if they are not."""
    if not directories:
        raise BadPlan("there is nothing to merge; give the folders of all shards")
    scenario, whole = load(directories[0])
    for directory in directories[1:]:
        other, made = load(directory)
        if other != scenario or made.start_us != whole.start_us:
            raise BadPlan(f"{directory} is no shard of the run in {directories[0]}: scenario or start differ")
        whole.ledgers += made.ledgers
        whole.stats += made.stats
        whole.failed += made.failed
        whole.faults += made.faults
        whole.memory_bytes += made.memory_bytes
        # Each shard looked before its first frame; the earliest look is before all of them.
        whole.kafka_start = {n: min(at, made.kafka_start.get(n, at)) for n, at in whole.kafka_start.items()}
        whole.cpu = {name: max(value, made.cpu.get(name, 0.0)) for name, value in whole.cpu.items()}
        if made.reveal is not None:
            whole.reveal, whole.sealed = made.reveal, made.sealed
    return scenario, whole
