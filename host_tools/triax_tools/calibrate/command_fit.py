"""`fit`, `check` and `diff`: from a recording to a file, a file against other data, two files against each other."""

import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from triax_tools.calibrate import document as documents
from triax_tools.calibrate import drift, plots, procedure
from triax_tools.calibrate.console import (
    GravityOption,
    HeightOption,
    Json,
    LatOption,
    MqttOption,
    Output,
    command,
    gates_table,
    gravity_of,
    hints_of,
    load_document,
    now,
)
from triax_tools.calibrate.document import Document
from triax_tools.calibrate.errors import BadInput, Refused
from triax_tools.calibrate.imutk import imutk_fit
from triax_tools.calibrate.model import INTRINSIC_NAMES, STANDARD_G
from triax_tools.calibrate.pose import NAMES
from triax_tools.calibrate.procedure import Calibration
from triax_tools.calibrate.recording import Identity, Recording
from triax_tools.calibrate.report import Report, table
from triax_tools.calibrate.source import open_recording

__all__ = ["check", "diff", "fit"]

Source = Annotated[str, typer.Argument(help="Capture, CSV, MATLAB file, ST data log folder, or live:<device>.")]
Sensor = Annotated[str, typer.Option("--sensor", help="Sensor of an ST data log.")]
Unit = Annotated[str, typer.Option("--unit", help="Unit of a table: counts, g, mg, m/s2.")]
Scale = Annotated[float, typer.Option("--scale", help="Milli-g per count, where the file does not say.")]
Rate = Annotated[float, typer.Option("--rate", help="Samples per second, where the file has no time.")]
Seconds = Annotated[float, typer.Option("--seconds", help="How long to listen to a live node.")]


def _name_of(name: str) -> str:
    return name.replace("_", " ")


def intrinsic_rows(document: Document) -> list[tuple[str, str, str, str]]:
    """The nine numbers with their 95 % interval, in units that a person compares."""
    scale = document.identity.scale_g
    rows = []
    for name in INTRINSIC_NAMES:
        held = document.content["intrinsic"][name]
        value, half = held["value"], held["interval_95"]
        if name.startswith("sensitivity"):
            rows.append(
                (_name_of(name), f"{value:.3f} counts/g", f"+- {half / value * 1e6:.0f} ppm", f"{(value * scale - 1) * 100:+.3f} %")
            )
        elif name.startswith("offset"):
            rows.append(
                (_name_of(name), f"{value:.2f} counts", f"+- {half * scale * 1e6:.0f} ug", f"{value * scale * 1e3:+.2f} mg")
            )
        else:
            off = f"{math.degrees(value) - 90:+.3f} deg"
            rows.append((_name_of(name), f"{math.degrees(value):.4f} deg", f"+- {math.degrees(half):.4f} deg", off))
    return rows


def _faces(text: str) -> dict[str, str]:
    """'+Z,+X=-Y' as {case face: sensor cell}. Raises BadInput."""
    out = {}
    for item in filter(None, (part.strip().upper() for part in text.split(","))):
        face, _, cell = item.partition("=")
        if face not in NAMES[:6] or (cell or face) not in NAMES:
            raise BadInput(f"--faces {item!r}: want case faces such as +Z, or +Z=-Y where the sensor's -Y was up then")
        out[face] = cell or face
    return out


def _report(found: Calibration, document: Document, recording: Recording) -> Report:
    sensor = document.identity
    fit_facts = document.content["fit"]
    facts = {
        "device": sensor.device,
        "part": f"{sensor.part}, +-{sensor.range_g:g} g, {sensor.scale_g * 1e3:.5g} mg a count" if sensor.part else "",
        "sensor serial": sensor.sensor_serial,
        "firmware": sensor.firmware,
        "recording": recording.name,
        "SHA-256 of the data": recording.data_sha256,
        "created, expires": f"{document.content['created'][:10]}, {document.content['expires'][:10]}",
        "local gravity": f"{found.fit.gravity.m_s2:.5f} m/s2 +- {found.fit.gravity.sd_ppm:g} ppm ({found.fit.gravity.source})",
        "poses, degrees of freedom": f"{fit_facts['poses']}, {found.fit.dof}",
        "residual": f"{found.fit.rms_g * 1e6:.1f} ug rms of local g with {found.fit.dof} degrees of freedom: a pose scatters by "
        f"{found.fit.sigma_g * 1e6:.1f} ug",
        "condition of the pose set": f"{found.fit.condition:.1f} (18 poses: 6)",
        "temperature": f"{found.mean_temperature_c:.1f} C" if math.isfinite(found.mean_temperature_c) else "",
    }
    report = Report(f"Calibration of {sensor.device or sensor.part or recording.name}", found.passed, facts)
    head = ("", "value", "95 % interval", "from nominal")
    report.section("Nine intrinsic numbers", table(head, intrinsic_rows(document)))
    report.gates(found.gates)
    report.text("To know", list(found.warnings))
    _rotation_section(report, document)
    report.section("Residuals", plots.residual_plot(found.pose_names, found.fit.residual_g, found.left_out_g, found.six_g))
    report.section("Where the poses were", plots.sphere_plot(found.directions))
    kept = [(recording.time_s[r.start], recording.time_s[r.stop - 1]) for r in found.rests.kept]
    refused = [(recording.time_s[r.start], recording.time_s[r.stop - 1]) for r in found.rests.rejected]
    report.section("Recording", plots.rest_plot(recording.time_s, found.fit.model.apply(recording.counts), kept, refused))
    return report


def _rotation_section(report: Report, document: Document) -> None:
    held = document.content["case_rotation"]
    if held is None:
        return
    rows = [(f"about case {'XYZ'[k]}", f"{held['sd_deg'][k]:.2f} deg") for k in range(3)]
    report.section(
        "Rotation to the case",
        f"<p>{held['angle_deg']:.2f} degrees, from faces {', '.join(held['faces'])}: a measurement of its own, not in the fit.</p>",
        table(("", "standard error"), rows),
    )


@command
def fit(
    source: Source,
    out: Annotated[Path, typer.Option("--out", "-o", help="Calibration file to write; the report stands beside it.")],
    lat: LatOption = None,
    height: HeightOption = 0.0,
    gravity: GravityOption = None,
    faces: Annotated[str, typer.Option("--faces", help="Case faces that were up in these poses, for R: +Z,+X or +Z=-Y,..")] = "",
    report: Annotated[Path | None, typer.Option("--report", help="HTML report; default: beside the file.")] = None,
    days: Annotated[int, typer.Option("--days", help="Valid for so many days.", min=1)] = documents.VALID_DAYS,
    rule: Annotated[str, typer.Option("--rule", help="'imu_tk': that tool's own rule, prints its numbers, writes no file.")] = "",
    sensor: Sensor = "",
    unit: Unit = "",
    scale: Scale = 0.0,
    rate: Rate = 0.0,
    device: Annotated[str, typer.Option("--device", help="EUI-64, where the file does not say.")] = "",
    part: Annotated[str, typer.Option("--part", help="Part, where the file does not say.")] = "",
    serial: Annotated[str, typer.Option("--serial", help="Serial number of the sensor in hex, where the file does not say.")] = "",
    range_g: Annotated[float, typer.Option("--range", help="Full scale in g, where the file does not say.")] = 0.0,
    mqtt: MqttOption = "mqtt://127.0.0.1:1883",
    seconds: Seconds = 300.0,
    json_output: Json = False,
) -> None:
    """Fit offset, scale and misalignment to the rests of a recording; state the error of each; write the file and a report."""
    output = Output(json_output)
    identity = Identity(device=device, part=part, sensor_serial=serial, range_g=range_g)
    recording = open_recording(source, hints_of(sensor, unit, scale, rate, identity), mqtt, seconds)
    local = gravity_of(gravity, lat, height, recording.gravity_m_s2)
    if rule:
        _imutk(output, rule, recording, local.m_s2)
        return
    page = report or out.with_suffix(".html")
    named = _faces(faces)
    try:
        found = procedure.calibrate(recording, local)
        turn = procedure.case_of(found, named) if named else None
    except Refused as refusal:
        _refused(output, refusal, recording, page)
        return
    made = documents.build(
        found.fit,
        recording.identity,
        now(),
        list(found.gates),
        recording.data_sha256,
        rotation=turn,
        offset_extra=found.offset_extra,
        mean_temperature_c=found.mean_temperature_c,
        valid_days=days,
    )
    if found.passed:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(documents.dump(made))
    output.table("calibration", ("", "value", "95 % interval", "from nominal"), intrinsic_rows(made))
    gates_table(output, found.gates)
    for warning in found.warnings:
        output.say(f"note: {warning}", "yellow")
    if turn is not None:
        output.say(f"case: rotated by {turn.angle_deg:.2f} deg" + (", is a face named wrongly?" if turn.suspicious else ""))
    output.say(f"file: {out}" if found.passed else f"no file was written: a gate failed, see {page}")
    facts = {
        "file": str(out) if found.passed else None,
        "intrinsic": made.content["intrinsic"],
        "poses": len(found.rests.kept),
        "degrees_of_freedom": found.fit.dof,
        "residual_rms_ug": found.fit.rms_g * 1e6,
        "condition": found.fit.condition,
        "gates": made.content["gates"],
        "warnings": list(found.warnings),
    }
    output.finish(found.passed, facts, _report(found, made, recording), page)


def _refused(output: Output, refusal: Refused, recording: Recording, page: Path) -> None:
    """No fit: the report says why, and shows the recording."""
    facts = {"recording": recording.name, "samples": f"{len(recording.counts):,} at {recording.rate_hz:.6g} Hz"}
    report = Report("Calibration refused", False, facts)
    report.text("Why", list(refusal.reasons))
    rests = procedure.find_rests(recording)
    middle = recording.values_g - (recording.values_g.max(axis=0) + recording.values_g.min(axis=0)) / 2
    kept = [(recording.time_s[r.start], recording.time_s[r.stop - 1]) for r in rests.kept]
    refused = [(recording.time_s[r.start], recording.time_s[r.stop - 1]) for r in rests.rejected]
    if len(kept) > 3:  # fewer have no middle
        report.section("Where the poses were (nominal)", plots.sphere_plot(rests.means - rests.means.mean(axis=0)))
    report.section("Recording", plots.rest_plot(recording.time_s, middle, kept, refused))
    for reason in refusal.reasons:
        output.say(f"refused: {reason}", "red")
    output.finish(False, {"reasons": list(refusal.reasons), "poses": len(kept)}, report, page)


def _imutk(output: Output, rule: str, recording: Recording, g_m_s2: float) -> None:
    if rule != "imu_tk":
        raise BadInput(f"--rule {rule!r}: known is imu_tk; without the option our own rule is used")
    found = imutk_fit(recording.counts, g_m_s2)
    rows = [
        ("threshold multiplier, rests", f"{found.multiplier}, {found.rests}"),
        ("cost (half sum of squares)", f"{found.cost:.5f} (m/s2)^2"),
        ("1 / K, counts per m/s2", ", ".join(f"{v:.3f}" for v in found.scale)),
        ("mis_yz, mis_zy, mis_zx, rad", ", ".join(f"{v:.5f}" for v in found.misalignment)),
        ("offset, counts", ", ".join(f"{v:.2f}" for v in found.offset)),
    ]
    output.table("imu_tk's rule", ("", ""), rows)
    output.finish(True, {"multiplier": found.multiplier, "rests": found.rests, "cost": found.cost, "scale": found.scale.tolist()})


@command
def check(
    calibration: Annotated[Path, typer.Argument(help="Calibration file.")],
    source: Source,
    limit: Annotated[float, typer.Option("--limit", help="Largest | |a| - 1 |, mg rms; the worst rest may have twice that.")] = 1.0,
    lat: LatOption = None,
    height: HeightOption = 0.0,
    gravity: GravityOption = None,
    report: Annotated[Path | None, typer.Option("--report", help="HTML report.")] = None,
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
    hints = hints_of(sensor, unit, scale or document.identity.scale_g * 1e3 * (unit in ("", "counts")), rate)
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
            "calibration": str(calibration),
            "recording": recording.source,
            "probability if nothing changed": f"{found.probability:.3g}",
        },
    )
    made.gates(found.gates)
    made.section("Rests", table(("rest", "at", "|a| - 1, local g", "expected sd"), rows))
    names = [row[0] for row in rows]
    made.section("Residuals", plots.residual_plot(names, found.residual_g, found.expected_g * 0, np.zeros(1)))
    made.section("Where the rests were", plots.sphere_plot(found.directions))
    facts: dict[str, Any] = {
        "residual_ug": (found.residual_g * 1e6).tolist(),
        "probability": found.probability,
        "gates": [gate.__dict__ for gate in found.gates],
    }
    output.finish(found.passed, facts, made, report or calibration.with_suffix(".check.html"))


@command
def diff(
    first: Annotated[Path, typer.Argument(help="Earlier calibration file.")],
    second: Annotated[Path, typer.Argument(help="Later calibration file.")],
    report: Annotated[Path | None, typer.Option("--report", help="HTML report.")] = None,
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
        rows.append((_name_of(name), change, f"{found.sigmas[k]:+.1f}"))
    output.table("second - first", ("", "change", "standard errors"), rows)
    verdict = f"changed, most in {_name_of(found.worst)}" if found.changed else "no change beyond the stated errors"
    output.say(f"F(9, {a.dof + b.dof}) = {found.statistic:.2f}, limit {found.limit:.2f} (99 %): {verdict}")
    g_change = a.content["gravity"]["m_s2"] - b.content["gravity"]["m_s2"]
    if abs(g_change) > 1e-3 * STANDARD_G / 10:
        output.say(
            "note: the two were made with different local gravity; the sensitivities carry its uncertainty besides.", "yellow"
        )
    made = Report("Two calibrations compared", not found.changed, {"first": first.name, "second": second.name, "verdict": verdict})
    made.section("Changes", plots.diff_plot(found), table(("", "change", "standard errors"), rows))
    facts = {"statistic": found.statistic, "limit": found.limit, "probability": found.probability, "sigmas": found.sigmas.tolist()}
    output.finish(not found.changed, {**facts, "worst": found.worst}, made, report or second.with_suffix(".diff.html"))
