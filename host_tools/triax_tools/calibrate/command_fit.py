"""`fit`: from a recording to a calibration file, and the report that says how far to trust it."""

import math
from pathlib import Path
from typing import Annotated

import typer

from triax_tools.calibrate import document as documents
from triax_tools.calibrate import plots, procedure
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
    now,
)
from triax_tools.calibrate.document import Document
from triax_tools.calibrate.errors import BadInput, Refused
from triax_tools.calibrate.imutk import imutk_fit
from triax_tools.calibrate.model import INTRINSIC_NAMES, Array
from triax_tools.calibrate.pose import NAMES
from triax_tools.calibrate.procedure import Calibration
from triax_tools.calibrate.recording import Identity, Recording
from triax_tools.calibrate.report import Report, table
from triax_tools.calibrate.source import open_recording

__all__ = ["fit", "intrinsic_rows"]


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
    _recording_section(report, recording, found.fit.model.apply(recording.counts), found.rests)
    return report


def _recording_section(report: Report, recording: Recording, values_g: Array, rests: procedure.Rests) -> None:
    kept, refused = (
        [(recording.time_s[r.start], recording.time_s[r.stop - 1]) for r in listed] for listed in (rests.kept, rests.rejected)
    )
    report.section("Recording", plots.rest_plot(recording.time_s, values_g, kept, refused))


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
    report: PageOption = None,
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
    if turn is not None:
        output.say(f"case: rotated by {turn.angle_deg:.2f} deg" + (", is a face named wrongly?" if turn.suspicious else ""))
    _finish(output, found, made, recording, out, page)


def _finish(output: Output, found: Calibration, made: Document, recording: Recording, out: Path, page: Path) -> None:
    """Say what came out, write the report, end."""
    output.table("calibration", ("", "value", "95 % interval", "from nominal"), intrinsic_rows(made))
    gates_table(output, found.gates)
    for warning in found.warnings:
        output.say(f"note: {warning}", "yellow")
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
    if len(rests.kept) > 3:  # fewer have no middle
        report.section("Where the poses were (nominal)", plots.sphere_plot(rests.means - rests.means.mean(axis=0)))
    _recording_section(report, recording, middle, rests)
    for reason in refusal.reasons:
        output.say(f"refused: {reason}", "red")
    output.finish(False, {"reasons": list(refusal.reasons), "poses": len(rests.kept)}, report, page)


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
