"""`check` and `diff`: a calibration against other data, two calibrations against each other."""

from pathlib import Path
from typing import Annotated, Any

import typer

from triax_tools.calibrate import drift, plots, procedure
from triax_tools.calibrate.console import (
    GravityOption,
    HeightOption,
    Json,
    LatOption,
    MqttOption,
    Output,
    PageOption,
    Rate,
    Scale,
    Seconds,
    Sensor,
    Source,
    Unit,
    command,
    gates_table,
    gravity_of,
    hints_of,
    load_document,
    now,
)
from triax_tools.calibrate.document import Document
from triax_tools.calibrate.model import INTRINSIC_NAMES, STANDARD_G
from triax_tools.calibrate.report import Report, table
from triax_tools.calibrate.source import open_recording

__all__ = ["check", "diff"]


@command
def check(
    calibration: Annotated[Path, typer.Argument(help="Calibration file.")],
    source: Source,
    limit: Annotated[float, typer.Option("--limit", help="Largest | |a| - 1 |, mg rms; the worst rest may have twice that.")] = 1.0,
    lat: LatOption = None,
    height: HeightOption = 0.0,
    gravity: GravityOption = None,
    report: PageOption = None,
    expired: Annotated[bool, typer.Option("--expired", help="Check an expired calibration all the same.")] = False,
    sensor: Sensor = "",
    unit: Unit = "",
    scale: Scale = 0.0,
    rate: Rate = 0.0,
    mqtt: MqttOption = "mqtt://127.0.0.1:1883",
    seconds: Seconds = 60.0,
    json_output: Json = False,
) -> None:
    """Hold other data against a calibration: |a| - 1 of each rest, pass or fail."""
    output = Output(json_output)
    document = load_document(calibration)
    hints = hints_of(sensor, unit, scale, rate, scale_g=document.identity.scale_g)
    recording = open_recording(source, hints, mqtt, seconds)
    document.check(recording.identity, now(), allow_expired=expired)
    known = gravity is not None or lat is not None or recording.gravity_m_s2
    local = gravity_of(gravity, lat, height, recording.gravity_m_s2) if known else None
    found = procedure.check(document, recording, local, limit / 1e3)
    rows = [
        (f"{k + 1}", f"{recording.time_s[r.start]:.1f} s", f"{e * 1e6:+.0f} ug", f"{s * 1e6:.0f} ug")
        for k, (r, e, s) in enumerate(zip(found.rests.kept, found.residual_g, found.expected_g, strict=True))
    ]
    output.table("rests, |a| - 1 in local g", ("rest", "at", "residual", "expected sd"), rows)
    gates_table(output, found.gates)
    output.say(f"probability of residuals this large if nothing changed: {found.probability:.3g}")
    made = Report(
        f"Check of {document.identity.device or calibration.name}",
        found.passed,
        {
            "calibration": calibration.name,
            "recording": recording.name,
            "probability if nothing changed": f"{found.probability:.3g}",
        },
    )
    _fill(made, found, rows)
    facts: dict[str, Any] = {
        "residual_ug": (found.residual_g * 1e6).tolist(),
        "probability": found.probability,
        "gates": [gate.__dict__ for gate in found.gates],
    }
    output.finish(found.passed, facts, made, report or calibration.with_suffix(".check.html"))


def _fill(made: Report, found: procedure.Check, rows: list[tuple[str, str, str, str]]) -> None:
    made.gates(found.gates)
    made.section("Rests", table(("rest", "at", "|a| - 1, local g", "expected sd"), rows))
    made.section("Residuals", plots.check_plot(found.residual_g, found.expected_g))
    made.section("Where the rests were", plots.sphere_plot(found.directions))


@command
def diff(
    first: Annotated[Path, typer.Argument(help="Earlier calibration file.")],
    second: Annotated[Path, typer.Argument(help="Later calibration file.")],
    report: PageOption = None,
    json_output: Json = False,
) -> None:
    """Compare two calibrations of one unit in the nine intrinsic numbers, in standard errors. Changed: exit code 1."""
    output = Output(json_output)
    a, b = load_document(first), load_document(second)
    b.check(a.identity, a.expires, allow_expired=True)
    found = drift.difference(a.intrinsic, a.covariance, a.dof, b.intrinsic, b.covariance, b.dof)
    scale = a.identity.scale_g
    rows = []
    for k, name in enumerate(INTRINSIC_NAMES):
        if k < 3:
            change = f"{found.change[k] / a.intrinsic[k] * 1e6:+.0f} ppm"
        elif k < 6:
            change = f"{found.change[k] * scale * 1e6:+.0f} ug"
        else:
            change = f"{found.change[k] * 1e6:+.0f} urad"
        rows.append((name.replace("_", " "), change, f"{found.sigmas[k]:+.1f}"))
    output.table("second - first", ("", "change", "standard errors"), rows)
    verdict = f"changed, most in {found.worst.replace('_', ' ')}" if found.changed else "no change beyond the stated errors"
    statistic = f"F(9, {a.dof + b.dof}) = {found.statistic:.2f}, limit {found.limit:.2f} (99 %)"
    output.say(f"{statistic}: {verdict}")
    told = {"first": _made(first, a), "second": _made(second, b), "all nine together": statistic, "verdict": verdict}
    made = Report(f"Two calibrations of {b.identity.device or 'one unit'}", not found.changed, told)
    made.section("Changes", plots.diff_plot(found), table(("", "change", "standard errors"), rows))
    if abs(a.content["gravity"]["m_s2"] - b.content["gravity"]["m_s2"]) > 1e-3 * STANDARD_G / 10:
        note = "the two were made with different local gravity; the sensitivities carry its uncertainty besides."
        output.say(f"note: {note}", "yellow")
        made.text("To know", [note])
    facts = {"statistic": found.statistic, "limit": found.limit, "probability": found.probability, "sigmas": found.sigmas.tolist()}
    output.finish(not found.changed, {**facts, "worst": found.worst}, made, report or second.with_suffix(".diff.html"))


def _made(path: Path, document: Document) -> str:
    return f"{path.name}, made {document.content['created'][:10]}, {document.dof} degrees of freedom"
