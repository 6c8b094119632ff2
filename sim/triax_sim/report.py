"""A run's report: one JSON, one HTML file that needs nothing else, and an evidence bundle that others can check again."""

import html
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from triax_sim import evidence, plots
from triax_sim.account import Account
from triax_sim.health import host_facts
from triax_sim.histogram import Histogram

__all__ = ["Report"]

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem;border-bottom:1px solid #ddd}
table{border-collapse:collapse;margin:.6rem 0}td,th{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #eee}
td:first-child,th:first-child{text-align:left}.l{text-align:left}
.verdict{display:inline-block;padding:.2rem .9rem;border-radius:.4rem;color:#fff;font-weight:700}
.PASS{background:#2d7d46}.FAIL{background:#b23a30}.INVALID{background:#8a6d1b}
.no td{background:#fbe9e7}svg{max-width:100%;height:auto}code{background:#f4f4f4;padding:0 .2rem}
"""


def _table(head: list[str], rows: list[list[Any]], bad: list[bool] | None = None) -> str:
    out = ["<table><tr>", *(f"<th>{html.escape(name)}</th>" for name in head), "</tr>"]
    for n, row in enumerate(rows):
        cells = "".join(f"<td>{html.escape(_shown(cell))}</td>" for cell in row)
        out.append(f'<tr class="{"no" if bad and bad[n] else ""}">{cells}</tr>')
    return "".join([*out, "</table>"])


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return str(value)


def _ms(us: int) -> str:
    return f"{us / 1000:,.1f}"


class Report:
    """What a run found. `data` is what `--json` prints; `exit_code` 0 PASS, 1 FAIL, 2 INVALID."""

    def __init__(self, found: Account, directory: Path) -> None:
        self.found, self.directory = found, directory
        self.data: dict[str, Any] = {
            **found.data,
            "host": host_facts(),
            "written_us": time.time_ns() // 1000,
            "directory": str(directory),
        }

    @property
    def verdict(self) -> str:
        """PASS, FAIL or INVALID."""
        return self.found.verdict.verdict

    @property
    def exit_code(self) -> int:
        """Of a command that ran this."""
        return self.found.verdict.exit_code

    def write(self) -> None:
        """report.json, report.html and evidence.json with what it refers to, in the run's directory."""
        evidence.write(self.directory, self.found, self.data)
        (self.directory / "report.json").write_text(json.dumps(self.data, indent=1))
        (self.directory / "report.html").write_text(self.html())

    # -- the page

    def html(self) -> str:
        """The whole page."""
        data, scenario = self.data, self.data["scenario"]
        begun = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(data["start_us"] / 1e6))
        cohorts = ", ".join(f"{c['count']:,} {c['name']}" for c in scenario["cohorts"])
        parts = [
            f"<!doctype html><html lang=en><meta charset=utf-8><title>triax: {html.escape(scenario['name'])}</title>",
            f"<style>{_STYLE}</style><h1>{html.escape(scenario['name'])} "
            f'<span class="verdict {self.verdict}">{self.verdict}</span></h1>',
            f"<p>{html.escape(cohorts)}; {scenario['duration_s']:g} s from {begun} UTC, seed {scenario['seed']}.</p>",
            "".join(f"<p>{html.escape(reason)}</p>" for reason in data["reasons"]),
            "<h2>Every frame, at every hop</h2>",
            self._hops(),
            self._vanished(),
            "<h2>Gates</h2>",
            self._checks(),
            self._faults(),
            self._findings(),
            self._self_test(),
            *self._plots(),
            "<h2>Cost</h2>",
            self._cost(),
            "<h2>Machine</h2>",
            self._machine(),
        ]
        return "\n".join(parts)

    def _hops(self) -> str:
        rows, bad = [], []
        for name, hop in self.data["hops"].items():
            if name == "emitted":
                rows.append([name, hop["frames"], *[""] * 9])
                bad.append(False)
                continue
            if name == "redis":
                continue
            latency = hop["latency_us"]
            rows.append(
                [name, *(hop[key] for key in ("frames", "missing", "repeated", "altered", "unproved", "inverted"))]
                + [hop["unexplained_missing"] + hop["unexplained_repeated"]]
                + [_ms(latency[key]) for key in ("p50", "p99", "max")]
            )
            bad.append(bool(hop["unexplained_missing"] or hop["unexplained_repeated"] or hop["altered"] or hop["unproved"]))
        head = ["hop", "frames", "missing", "repeated", "altered", "unproved", "out of order", "unexplained"]
        out = _table([*head, "p50 ms", "p99 ms", "max ms"], rows, bad)
        redis = self.data["hops"].get("redis")
        if redis:
            out += f"<p>Redis: {redis['behind']:,} of {redis['devices']:,} devices are behind their last frame.</p>"
        fates = {k: v for k, v in self.data["hops"]["emitted"].items() if k not in ("frames", "devices")}
        told = ", ".join(f"{count:,} {fate}" for fate, count in fates.items())
        return out + f"<p>As the devices saw it: {html.escape(told)}. Latency counts from the time a frame was due.</p>"

    def _vanished(self) -> str:
        rows = []
        for name, hop in self.data["hops"].items():
            for kind, frames in hop.get("named", {}).items() if name not in ("emitted", "redis") else ():
                rows += [[name, kind, f["device"], f["boot"], f["sequence"], f.get("lost_at", "")] for f in frames[:20]]
        if not rows:
            return ""
        head = ["hop", "finding", "device", "boot", "sequence", "vanished at"]
        return f"<details><summary>{len(rows)} findings by name</summary>{_table(head, rows[:200])}</details>"

    def _checks(self) -> str:
        checks = self.data["checks"]
        rows = [[c["name"], c["seen"], c["wanted"], "holds" if c["holds"] else c["kind"]] for c in checks]
        return _table(["gate", "seen", "wanted", ""], rows, [not c["holds"] for c in checks])

    def _faults(self) -> str:
        if not self.data["faults"]:
            return ""
        rows = []
        for fault in self.data["faults"]:
            done = "; ".join(f"{e['what']} at {e['done_s']:.1f} s" for e in fault["done"]) or "not carried out"
            lost = ", ".join(fault["may_lose"]) or "nothing"
            cost = [fault.get("lost", ""), fault.get("repeated", "")]
            rows.append([done, lost, cost[0], fault["may_repeat"], cost[1], fault["why"]])
        head = ["what happened", "may lose", "lost", "may repeat", "repeated at Kafka", "why"]
        return "<h2>Faults: what each may cost, and did</h2>" + _table(head, rows)

    def _findings(self) -> str:
        found = self.data["findings"]
        if not found:
            return ""
        rows = []
        for kind, row in found["kinds"].items():
            until = "" if row["windows_until"] is None else row["windows_until"]
            rows.append([kind, *(row[key] for key in ("planted", "found", "recall", "events", "wrong", "precision")), until])
        bad = [row["found"] < row["planted"] or row["wrong"] > 0 for row in found["kinds"].values()]
        named = [["missed", m["kind"], f"device {m['index']}", m["axis"], m["frame"], m["size"]] for m in found["missed"]]
        named += [["wrong", w["kind"], w["device"], w["axis"], w["sequence"], ""] for w in found["wrong"]]
        out = (
            f"<h2>Planted faults: what the stream found</h2><p>In {found['devices']:,} devices. An event is right if its device "
            "has that fault, on that axis, and it came in time; every other event of these kinds is wrong. Glitches that raised a "
            f"spike: {found['spikes_of_glitches']}.</p>"
            + _table(["kind", "planted", "found", "recall", "events", "wrong", "precision", "median windows until"], rows, bad)
        )
        if named:
            table = _table(["", "kind", "device", "axis", "frame", "size"], named)
            out += f"<details><summary>{len(named)} by name</summary>{table}</details>"
        return out

    def _self_test(self) -> str:
        test = self.data["self_test"]
        if not test:
            return ""
        rows = [[kind, test["planted"][kind], test["found"][kind]] for kind in test["planted"]]
        text = "exactly what was planted" if test["exact"] else "NOT what was planted"
        return (
            "<h2>The checker, checked</h2>"
            f"<p>Errors were planted on reserved devices by a separate process; the checker found {text}. Seal of the list "
            f"(SHA-256, given before any hop was read): <code>{test['sealed']}</code>.</p>"
            + _table(["error", "planted", "found"], rows)
        )

    def _plots(self) -> list[str]:
        found, data = self.found, self.data
        steps = {"socket write": found.histograms.get("lateness", Histogram())}
        steps |= {("PUBACK" if name == "mqtt" else name): hop.latency for name, hop in found.hops.items()}
        shown = {name: h for name, h in found.histograms.items() if name in ("lateness", "held", "puback")}
        per_second = [sum(column) for column in zip(*self._generator_cpu(), strict=False)]
        seconds = json.loads((self.directory / "seconds.json").read_text()) if (self.directory / "seconds.json").exists() else []
        last = list(found.hops.values())[-1]
        return [
            "<h2>Rate</h2>", plots.rate(data["seconds"]),
            "<h2>Latency from the due time</h2>", plots.waterfall(steps),
            "<h2>Lateness of the generator, and PUBACK</h2>", plots.distribution(shown),
            "<h2>Loss by second</h2>", plots.loss(found.emitted, found.hops, data["start_us"]),
            "<h2>CPU by process</h2>", plots.cpu(seconds, per_second),
            "<h2>Fleet</h2>", plots.fleet_map(self._missing_by_device(last.missing), f"frames missing at {last.name}"),
        ]  # fmt: skip

    def _generator_cpu(self) -> list[list[float]]:
        out = []
        for path in sorted(self.directory.glob("*.ledger")):
            if path.with_suffix(".json").exists():
                stats = json.loads(path.with_suffix(".json").read_text())
                out.append([second["cpu_s"] for second in stats["seconds"]])
        return [one for one in out if one]

    def _missing_by_device(self, missing: Any) -> Any:
        emitted = self.found.emitted
        devices, first = np.unique(emitted.device, return_index=True)
        group = np.searchsorted(emitted.base, missing, "right") - 1
        of = np.searchsorted(first, group, "right") - 1
        return np.bincount(of, minlength=len(devices)).astype(float)

    def _cost(self) -> str:
        generator = self.data["generator"]
        rows = [[p["name"], p["cpu_s"], p["us_per_frame"], p["memory_bytes"] >> 20] for p in self.data["processes"]]
        rows.append(["generator", "", generator["cpu_us_per_frame"], generator["memory_kb"] >> 10])
        told = f"Longest pause of a generator: {_ms(generator['longest_pause_us'])} ms; priorities (nice): {generator['nice']}."
        return _table(["process", "CPU s", "us a frame", "MiB"], rows) + f"<p>{told}</p>"

    def _machine(self) -> str:
        host, cpu = self.data["host"], self.data["machine"]
        versions = ", ".join(f"{name} {number}" for name, number in host["versions"].items())
        return (
            f"<p>{host['processors']} processors ({html.escape(host['model'])}), {host['memory_mib']:,} MiB, Linux "
            f"{html.escape(host['kernel'])}, Python {host['python']}; {html.escape(versions)}. During the run: "
            f"{cpu.get('idle', 0):.0f} % idle, {cpu.get('steal', 0):.1f} % stolen.</p>"
        )
