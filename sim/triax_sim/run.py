"""One run of a scenario against a system: start generators, let things happen, drain, read every hop, judge.

    report = run(load("smoke"), System(settings), directory=Path("run"), progress=print)

`progress(news)` is called twice a second from the calling thread. news: phase, text, elapsed_s, duration_s, online, devices_online,
hops (name, frames, rate, lag_ms), ages (base64, tenths of a second since each device's last frame, 255: never), wave, lateness_us,
cpu, verdict; and `devices` (EUI-64 as text, in the order of `ages`) in the first one. `Run.watch(device)` chooses whose wave.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from confluent_kafka import KafkaException

from triax_sim import archive
from triax_sim.account import Account, account
from triax_sim.arrange import arrange, happened
from triax_sim.faults import Timeline
from triax_sim.generated import Generated
from triax_sim.generators import Child, Generator, GeneratorFailed
from triax_sim.health import Cpu
from triax_sim.newsreel import Newsreel, Progress
from triax_sim.pipeline import System, ends
from triax_sim.plan import Cohort, Plan, Target
from triax_sim.population import indices
from triax_sim.report import Report
from triax_sim.scenario import Scenario

__all__ = ["Progress", "Run", "generate", "run", "verify"]

Array = np.ndarray[Any, Any]
_TICK_S = 0.1
_NEWS_S = 0.5
_READY_S = 60.0  # and the ramp
_TELL_US = 500_000  # from `go` to the start: every process has read it by then


def _nothing(news: dict[str, Any]) -> None:
    """Nobody looks."""


# What a run writes into its folder; the remains of an earlier one must not be taken for this one's.
_FILES = ("*.ledger", "bulk-*.json", "gold-*.json", "reserved.json", "hops.npz", "report.*", "evidence.json", "run.json")


def _clear(directory: Path) -> None:
    for pattern in (*_FILES, "seconds.json"):
        for path in directory.glob(pattern):
            path.unlink()


class Run:
    """The part of a run in which load is made."""

    def __init__(
        self,
        scenario: Scenario,
        system: System,
        directory: Path,
        progress: Progress = _nothing,
        shard: tuple[int, int] = (0, 1),
        start_at_us: int = 0,
    ) -> None:
        self.scenario, self.system, self.directory = scenario, system, directory
        self.shard, self.start_at_us = shard, start_at_us
        self.generators: list[Generator] = []
        self.timeline = Timeline()
        self._tamper: Child | None = None
        self._relay: Child | None = None
        self._reel = Newsreel(scenario, system, progress)
        self._start_us = 0
        self._seconds: list[dict[str, Any]] = []
        self._peak_bytes = 0
        self._planted = {"planted": [asdict(fault) for fault in scenario.planted]} if scenario.planting.each else {}
        directory.mkdir(parents=True, exist_ok=True)
        _clear(directory)

    # -- who runs

    def _plan(self, name: str, cohorts: Sequence[Cohort], port: tuple[str, int], process: int, processes: int) -> Plan:
        scenario = self.scenario
        url = urlsplit(self.system.mqtt_url(cohorts[0].reserved))
        query = dict(parse_qsl(url.query))
        unix = self.system.mqtt_unix if port == self.system.mqtt() else ""
        target = Target(
            port[0], port[1], unix, url.username, url.password,
            ca=query.get("ca", "") if url.scheme == "mqtts" else "", certificates=query.get("certificates", ""),
        )  # fmt: skip
        return Plan(
            target=target,
            cohorts=tuple(cohorts),
            ledger=str(self.directory / f"{name}.ledger"),
            stats=str(self.directory / f"{name}.json"),
            seed=scenario.seed,
            boot=self.start_at_us // 1_000_000 or int(time.time()),
            duration_s=scenario.duration_s,
            warmup_s=scenario.warmup_s,
            drain_s=scenario.drain_s,
            process=process,
            processes=processes,
            connect_hz=scenario.connect_hz / scenario.processes,
            slot_ms=scenario.slot_ms,
            wait=True,
            events=tuple(e for e in scenario.events if not e.cohort or e.cohort in {c.name for c in cohorts}),
            options={"recording": scenario.recording} | self._planted,
        )

    def _start(self) -> None:
        """Every process of this shard; reserved devices and their tamperer belong to the first shard."""
        scenario, (shard, shards) = self.scenario, self.shard
        way_in = self.system.mqtt()
        port = way_in
        if any(fault.kind.startswith("link") for fault in scenario.faults):
            self._relay = Child("faults", json.dumps({"to": way_in}), self.directory / "relay.log")
            port = ("127.0.0.1", int(self._relay.wait_for("port", 20)["port"]))
        bulk = scenario.of_kind("bulk")
        for n in range(scenario.processes if bulk else 0):
            process, processes = shard * scenario.processes + n, shards * scenario.processes
            if any(len(indices(cohort, process, processes)) for cohort in bulk):
                self._generator("fleet", f"bulk-{process}", bulk, port, process, processes)
        gold = scenario.of_kind("gold")
        if any(len(indices(cohort, shard, shards)) for cohort in gold):
            self._generator("gold", f"gold-{shard}", gold, port, shard, shards)
        reserved = tuple(cohort for cohort in scenario.cohorts if cohort.reserved)
        if reserved and shard == 0:
            self._generator("fleet", "reserved", reserved, self._start_tamper(self.system.mqtt(reserved=True)), 0, 1)

    def _generator(self, module: str, name: str, cohorts: Sequence[Cohort], port: tuple[str, int], n: int, of: int) -> None:
        plan = self._plan(name, cohorts, port, n, of)
        self.generators.append(Generator(module, plan, self.directory / f"{name}.log"))

    def _start_tamper(self, way_in: tuple[str, int]) -> tuple[str, int]:
        scenario, each = self.scenario, self.scenario.tampering.each
        options = {
            "to": way_in,
            "seed": scenario.seed,
            "from_s": scenario.warmup_s,
            "for_s": max(0.5, scenario.duration_s - scenario.warmup_s - 3),
            **dict.fromkeys(("drop", "repeat", "swap", "flip"), each),
        }
        self._tamper = Child("tamper", json.dumps(options), self.directory / "tamper.log")
        return "127.0.0.1", int(self._tamper.wait_for("port", 20)["port"])

    # -- what happens

    def watch(self, device: str) -> None:
        """Show this device's waveform in the news from now on; from any thread."""
        for generator in self.generators:
            generator.say(f"watch {device}")

    def generate(self) -> Generated:
        """Make the load; every process of ours has ended afterwards, but the tamperer, who still has to reveal."""
        try:
            return self._generate()
        except BaseException:
            self.close()
            raise

    def _generate(self) -> Generated:
        kafka_start: dict[int, int] = {}
        if "kafka" in self.system.hops:
            try:
                kafka_start = ends(self.system.settings)
            except KafkaException as error:
                raise GeneratorFailed(f"Kafka does not answer: {error.args[0].str()}; is the stack up?") from None
        self.news("starting")
        self._start()
        if self.shard[0] == 0:
            arrange(self.timeline, self.scenario.faults, self._relay, self.system.hands)
        ramp_s = self.scenario.devices / self.scenario.connect_hz
        for generator in self.generators:
            self._check_ready(generator, generator.wait_for("ready", _READY_S + ramp_s))
        start = self.start_at_us or time.time_ns() // 1000 + _TELL_US
        self._start_us = self._reel.start_us = start
        for generator in self.generators:
            generator.say(f"go {start}")
        before = self._processes()
        cpu = Cpu()
        if self._tamper is not None:
            self._tamper.say("begin")
        self._loop(cpu)
        made = self._collect(start, kafka_start, cpu)
        made.processes = self._costs(before)
        return made

    def _check_ready(self, generator: Generator, line: dict[str, Any]) -> None:
        late = any(c.power_on_s or c.power_spread_s or c.client_of for c in generator.plan.cohorts)
        if not line["ready"] and not late:
            host, port = generator.plan.target.host, generator.plan.target.port
            raise GeneratorFailed(f"no device could connect to {host}:{port}; is an MQTT server there, and does it let us in?")

    def _loop(self, cpu: Cpu) -> None:
        """Until every generator is done."""
        next_news = next_second = time.monotonic()
        limit = time.monotonic() + self.scenario.duration_s + self.scenario.drain_s + 30
        while any(generator.done is None and generator.running for generator in self.generators):
            now = time.monotonic()
            for generator in self.generators:
                generator.listen()
            self.timeline.run_due((time.time_ns() // 1000 - self._start_us) / 1e6)
            if now >= next_second:
                next_second = now + 1.0
                self._second(cpu)
            if now >= next_news:
                next_news = now + _NEWS_S
                self.news("running")
            if now > limit:
                break
            time.sleep(_TICK_S)
        for generator in self.generators:
            generator.listen()

    def _second(self, cpu: Cpu) -> None:
        shares = self._reel.cpu = cpu.second()
        processes = self._processes()
        memory = int(sum(one["memory_bytes"] for one in processes.values()))
        self._peak_bytes = max(self._peak_bytes, memory)
        self._seconds.append(
            {
                "at_s": (time.time_ns() // 1000 - self._start_us) / 1e6,
                "cpu": shares,
                "cpu_s": {name: one["cpu_s"] for name, one in processes.items()},
                "memory_bytes": memory,
            }
        )

    def _processes(self) -> dict[str, dict[str, float]]:
        return {one.name: {"cpu_s": one.cpu_s, "memory_bytes": one.memory_bytes} for one in self.system.status()}

    def _costs(self, before: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
        """CPU of each process of the path: during the run and per frame, and as cores once it has warmed up."""
        frames = max(1, sum(int(g.totals["sent"]) for g in self.generators))
        steady = self._steady()
        rows = []
        for name, now in self._processes().items():
            used = now["cpu_s"] - before.get(name, {"cpu_s": 0.0})["cpu_s"]
            rows.append({"name": name, "cpu_s": round(used, 3), "us_per_frame": round(used / frames * 1e6, 2)} | {
                "cores": round(steady.get(name, used / self.scenario.duration_s), 4), "memory_bytes": now["memory_bytes"]
            })  # fmt: skip
        return rows

    def _steady(self) -> dict[str, float]:
        """CPU seconds a second of each process while frames fall due, after the warm-up; of none if that is under two seconds."""
        seconds = [row for row in self._seconds if self.scenario.warmup_s <= row["at_s"] <= self.scenario.duration_s]
        if len(seconds) < 3:
            return {}
        first, last = seconds[0], seconds[-1]
        passed_s = last["at_s"] - first["at_s"]
        return {name: (last["cpu_s"][name] - used) / passed_s for name, used in first["cpu_s"].items() if name in last["cpu_s"]}

    def _collect(self, start: int, kafka_start: dict[int, int], cpu: Cpu) -> Generated:
        failed, stats, ledgers = [], [], []
        for generator in self.generators:
            code = generator.end()
            stat = generator.stats()
            if code or stat is None:
                failed.append(f"{generator.module} ended with {code}: {generator.errors()}")
            else:
                stats.append(stat)
            ledgers.append(Path(generator.plan.ledger))
        if self._relay is not None:
            self._relay.say(json.dumps({"end": True}))
            self._relay.end()
            self._relay = None
        memory = self._peak_bytes + sum(one["memory_kb"] << 10 for one in stats)
        made = Generated(start, ledgers, stats, kafka_start, failed, happened(self.timeline), cpu.whole(), memory_bytes=memory)
        if self._tamper is not None:
            self._tamper.say("seal")
            made.sealed = str(self._tamper.wait_for("sealed", 20)["sealed"])
            made.reveal = self._reveal
        (self.directory / "seconds.json").write_text(json.dumps(self._seconds))
        return made

    def _reveal(self) -> dict[str, Any]:
        if self._tamper is None:
            raise GeneratorFailed("the tamperer has been asked before")
        self._tamper.say("reveal")
        revealed = self._tamper.wait_for("planted", 20)
        self._tamper.say("end")
        self._tamper.end()
        self._tamper = None
        return revealed

    def close(self) -> None:
        """End every process of ours."""
        for child in (*self.generators, self._tamper, self._relay):
            if child is not None and child.running:
                child.end(5.0)

    def news(self, phase: str, text: str = "") -> None:
        """Tell where the run is."""
        self._reel.tell(phase, self.generators, text)


def generate(scenario: Scenario, system: System, directory: Path, shard: tuple[int, int], start_at_us: int) -> Generated:
    """One shard's load, without reading any hop."""
    one = Run(scenario, system, directory, shard=shard, start_at_us=start_at_us)
    try:
        made = one.generate()
        archive.save(directory, scenario, made, made.reveal() if made.reveal else None)
        return made
    finally:
        one.close()


def verify(directories: Sequence[Path], system: System, say: Callable[[str], None] = lambda text: None) -> Report:
    """The hops once more against the ledgers of a finished run, or of all its shards; the report goes into the first folder.

    Raises BadPlan, and the errors of servers that cannot be read.
    """
    scenario, made = archive.merge(directories)
    report = Report(account(scenario, system, made, say), directories[0])
    report.write()
    return report


def run(
    scenario: Scenario,
    system: System,
    directory: Path,
    progress: Progress = _nothing,
    prepared: Callable[[Run], None] = lambda run: None,
) -> Report:
    """The whole of it: load, drain, every hop, verdict; the report is in `directory` too. `prepared` gets the Run, to `watch`.

    Raises GeneratorFailed if it cannot even begin, and the errors of servers that cannot be read.
    """
    one = Run(scenario, system, directory, progress)
    prepared(one)
    try:
        made = one.generate()
        archive.save(directory, scenario, made)
        found: Account = account(scenario, system, made, lambda text: one.news("verifying", text))
        archive.save(directory, scenario, made, found.revealed)
        report = Report(found, directory)
        report.write()
        return report
    finally:
        one.close()
