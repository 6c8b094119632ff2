"""One self-contained HTML file per run: verdict, gates, tables, figures. Nothing is loaded from anywhere."""

import html
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from triax_tools.calibrate.document import Gate, tool_version

__all__ = ["Report", "table"]

_CSS = """
:root{color-scheme:light}
body{font:15px/1.5 system-ui,sans-serif;color:#22313f;background:#f4f6f8;margin:0}
main{max-width:60rem;margin:2rem auto;padding:2rem 2.5rem;background:#fff;border-radius:10px;box-shadow:0 1px 4px #0002}
h1{font-size:1.5rem;margin:0 0 .2rem}
h2{font-size:1.1rem;margin:2rem 0 .5rem;border-bottom:1px solid #e3e8ec;padding-bottom:.2rem}
.sub{color:#66788a;margin:0 0 1rem}
.verdict{display:inline-block;padding:.25rem .9rem;border-radius:6px;font-weight:600;color:#fff;margin:.4rem 0}
.pass{background:#1e8449}.fail{background:#c0392b}.warn{background:#b9770e}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:14px}
th{text-align:left;color:#66788a;font-weight:600;vertical-align:top}
th,td{padding:.3rem .7rem .3rem 0;border-bottom:1px solid #eef1f3;vertical-align:top}
td+td,th+th{padding-left:.9rem}.facts th{width:15rem}
td.n,th.n{text-align:right;white-space:nowrap}ul{margin:.3rem 0;padding-left:1.2rem}li{margin:.2rem 0}
svg{width:100%;height:auto;display:block;margin:.5rem 0}.note{color:#66788a;font-size:13px}
footer{color:#8395a7;font-size:12px;margin-top:2rem}
"""


_NUMBER = re.compile(r"([+-]{1,2}|<)? ?\d|$")  # also "+- 3 ug" and an empty cell


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """An HTML table; columns of numbers that have a heading stand right (without one they are remarks)."""
    numbers = [bool(head[k]) and all(_NUMBER.match(str(row[k])) for row in rows) for k in range(len(head))]
    right = [' class="n"' if number and k else "" for k, number in enumerate(numbers)]
    out = ["<table><tr>", *(f"<th{side}>{html.escape(cell)}</th>" for cell, side in zip(head, right, strict=True)), "</tr>"]
    for row in rows:
        cells = (f"<td{side}>{html.escape(str(cell))}</td>" for cell, side in zip(row, right, strict=True))
        out += ["<tr>", *cells, "</tr>"]
    return "".join([*out, "</table>"])


class Report:
    """Collects sections, then writes the file.

    report = Report("Calibration of 0011..", passed=True, facts={"part": "iis3dwb"})
    report.section("Residuals", plots.residual_plot(...))
    report.write(path, now)
    """

    def __init__(self, title: str, passed: bool, facts: Mapping[str, object], summary: str = "") -> None:
        self.title, self.passed, self.facts, self.summary = title, passed, facts, summary
        self._sections: list[tuple[str, str]] = []

    def section(self, title: str, *parts: str) -> None:
        """Add HTML (figures, tables) under a heading."""
        self._sections.append((title, "".join(parts)))

    def text(self, title: str, lines: Sequence[str]) -> None:
        """Add sentences as a list; nothing if there are none."""
        if lines:
            self.section(title, "<ul>", *(f"<li>{html.escape(line)}</li>" for line in lines), "</ul>")

    def gates(self, gates: Sequence[Gate]) -> None:
        """Add what was checked, and how it went."""
        rows = [
            (
                gate.name,
                f"{gate.value:.4g} {gate.unit}",
                f"{gate.limit:.4g} {gate.unit}",
                "passed" if gate.passed else "FAILED",
                gate.note,
            )
            for gate in gates
        ]
        self.section("Gates", table(("gate", "value", "limit", "result", ""), rows))

    def html(self, now: datetime) -> str:
        """The whole file."""
        verdict = '<span class="verdict pass">PASS</span>' if self.passed else '<span class="verdict fail">FAIL</span>'
        rows = ((key, value) for key, value in self.facts.items() if value not in ("", None))
        listed = (f"<tr><th>{html.escape(key)}</th><td>{html.escape(str(value))}</td></tr>" for key, value in rows)
        facts = f'<table class="facts">{"".join(listed)}</table>'
        body = "".join(f"<section><h2>{html.escape(title)}</h2>{content}</section>" for title, content in self._sections)
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>{html.escape(self.title)}</title><style>{_CSS}</style></head><body><main><h1>{html.escape(self.title)}</h1>"
            f'<p class="sub">{html.escape(self.summary)}</p>{verdict}{facts}{body}'
            f"<footer>triax {html.escape(tool_version())}, {now:%Y-%m-%d %H:%M} UTC. "
            "g is 9.80665 m/s2 unless local g is said.</footer>"
            "</main></body></html>\n"
        )

    def write(self, path: Path, now: datetime) -> None:
        """Write the file, folders included."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.html(now))
