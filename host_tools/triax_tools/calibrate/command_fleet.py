"""`temp` and `fleet`: terms in temperature of one unit, and drift of many from their own rests."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from triax_backend.settings import Settings

from triax_tools.calibrate import document as documents
from triax_tools.calibrate import drift, fleet_rests, plots, procedure
from triax_tools.calibrate import temperature as temperatures
from triax_tools.calibrate.command_fit import intrinsic_rows
from triax_tools.calibrate.console import (
    GravityOption,
    HeightOption,
    Json,
    LatOption,
    Output,
    PageOption,
    Scale,
    Unit,
    command,
    gates_table,
    gravity_of,
    hints_of,
    load_document,
    now,
)
from triax_tools.calibrate.document import Document, Gate
from triax_tools.calibrate.errors import BadInput, Refused
from triax_tools.calibrate.gravity import Gravity
from triax_tools.calibrate.model import Array
from triax_tools.calibrate.recording import Recording
from triax_tools.calibrate.report import Report, table
from triax_tools.calibrate.source import open_recording

__all__ = ["fleet", "temp"]

_PER = ("C", "C^2", "C^3")
Rows = list[tuple[str, ...]]


@command
def temp(
    sources: Annotated[list[str], typer.Argument(help="One ramp in one pose, or captures of all poses at several temperatures.")],
    base: Annotated[Path, typer.Option("--base", help="Calibration file of the unit.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Calibration file with temperature terms to write.")],
    lat: LatOption = None,
    height: HeightOption = 0.0,
    gravity: GravityOption = None,
    report: PageOption = None,
    unit: Unit = "",
    scale: Scale = 0.0,
    json_output: Json = False,
) -> None:
    """Offset (and gain, from several captures) against temperature; the order is what an F-test at 1 % asks for."""
    output = Output(json_output)
    held = load_document(base)
    hints = hints_of("", unit, scale, 0.0, scale_g=held.identity.scale_g)
    recordings = [open_recording(source, hints) for source in sources]
    for recording in recordings:
        held.check(recording.identity, now(), allow_expired=True)
    facts = {"base": base.name, "recordings": ", ".join(recording.name for recording in recordings)}
    made = Report(f"Temperature terms of {held.identity.device or base.name}", True, facts)
    if len(recordings) == 1:
        document, head, rows = _from_ramp(held, recordings[0], made)
    else:
        local = gravity_of(gravity, lat, height, recordings[0].gravity_m_s2 or float(held.content["gravity"]["m_s2"]))
        document, head, rows = _from_sets(held, recordings, local, made, output)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(documents.dump(document))
    terms = document.temperature
    span = f"{terms.low_c:.1f} to {terms.high_c:.1f} C, reference {terms.reference_c:.1f} C"
    output.table(f"terms, {span}", head, rows)
    made.section("Terms", f"<p>{span}; outside, the nearest end is used and the result is flagged.</p>", table(head, rows))
    output.say(f"file: {out}")
    told = {"file": str(out), "temperature": document.content["temperature"]}
    output.finish(True, told, made, report or out.with_suffix(".html"))


def _from_ramp(held: Document, recording: Recording, made: Report) -> tuple[Document, tuple[str, ...], Rows]:
    """Offset terms from one pose; the report gets the ramp."""
    scale_g = held.identity.scale_g
    ramp = temperatures.fit_ramp(recording.temperature_c, recording.counts, scale_g)
    made.section("Against temperature", plots.ramp_plot(*_against(recording.temperature_c, recording.counts, ramp, scale_g)))
    return documents.with_temperature(held, ramp.temperature), ("axis", "offset", "what it is"), _ramp_rows(ramp, scale_g)


def _from_sets(
    held: Document, recordings: list[Recording], local: Gravity, made: Report, output: Output
) -> tuple[Document, tuple[str, ...], Rows]:
    """A joint fit of captures at several temperatures; the report gets its numbers and residuals."""
    sets = [_full_set(recording, local) for recording in recordings]
    means = np.concatenate([one.rests.means for one in sets])
    warm = np.concatenate([_mean_temperatures(one.rests, rec.temperature_c) for one, rec in zip(sets, recordings, strict=True)])
    result, terms, errors = temperatures.fit_temperatures(means, warm, local)
    extra = np.max([one.offset_extra for one in sets], axis=0)
    gates = procedure.gates(result, held.identity.scale_g, extra, np.concatenate([one.left_out_g for one in sets]))
    if failed := [gate for gate in gates if not gate.passed]:
        raise Refused(*(f"{gate.name} is {gate.value:.4g} {gate.unit}, at most {gate.limit:g} is wanted." for gate in failed))
    digest = "+".join(recording.data_sha256[:16] for recording in recordings)
    document = documents.build(
        result,
        held.identity,
        now(),
        list(gates),
        digest,
        temperature=terms,
        offset_extra=extra,
        mean_temperature_c=terms.reference_c,
    )
    document = Document(document.content | {"case_rotation": held.content["case_rotation"]})
    head = ("", "value", "95 % interval", "from nominal")
    output.table("calibration", head, intrinsic_rows(document))
    made.section(f"Nine intrinsic numbers at {terms.reference_c:.1f} C", table(head, intrinsic_rows(document)))
    scatter = f"<p>{result.rms_g * 1e6:.1f} ug rms of local g with {result.dof} degrees of freedom.</p>"
    made.section("Residuals", scatter, plots.check_plot(result.residual_g, np.full(len(means), result.sigma_g)))
    return document, ("axis", "offset", "gain"), _joint_rows(terms, errors, held.identity.scale_g)


def _full_set(recording: Recording, local: Gravity) -> procedure.Calibration:
    """A recording that is a calibration by itself: a set with three faces cannot tell a warm gain from a warm offset."""
    try:
        return procedure.calibrate(recording, local)
    except Refused as refusal:
        raise Refused(f"{recording.name} is no full set of poses.", *refusal.reasons) from None


def _mean_temperatures(rests: procedure.Rests, celsius: Array) -> Array:
    if not np.isfinite(celsius).any():
        raise Refused("A recording has no temperature: the part or the file does not measure it.")
    return np.array([np.nanmean(celsius[r.start : r.stop]) for r in rests.kept])


def _ramp_rows(ramp: temperatures.Ramp, scale_g: float) -> Rows:
    scale = scale_g * 1e6
    return [
        ("xyz"[k], f"{ramp.slope[k] * scale:+.2f} +- {1.96 * ramp.slope_sd[k] * scale:.2g} ug/C", ramp.meaning[k]) for k in range(3)
    ]


def _joint_rows(terms: temperatures.Temperature, errors: dict[str, Array], scale_g: float) -> Rows:
    rows: Rows = []
    for k in range(3):
        offset = ", ".join(
            f"{t[k] * scale_g * 1e6:+.3g} +- {1.96 * e[k] * scale_g * 1e6:.2g} ug/{_PER[n]}"
            for n, (t, e) in enumerate(zip(terms.offset, errors["offset"], strict=True))
        )
        gain = ", ".join(
            f"{t[k] * 1e6:+.3g} +- {1.96 * e[k] * 1e6:.2g} ppm/{_PER[n]}"
            for n, (t, e) in enumerate(zip(terms.gain, errors["gain"], strict=True))
        )
        rows.append(("xyz"[k], offset or "none", gain or "none"))
    return rows


def _against(celsius: Array, counts: Array, ramp: temperatures.Ramp, scale_g: float) -> tuple[Array, Array, Array, Array]:
    """Thinned ramp for a plot: temperatures, change in mg, and the fitted polynomial's."""
    order = np.argsort(celsius)
    step = max(1, len(order) // 300)
    parts = [order[k : k + step] for k in range(0, len(order), step)]
    warm = np.array([celsius[p].mean() for p in parts])
    means = np.array([counts[p].mean(axis=0) for p in parts])
    line = np.linspace(warm.min(), warm.max(), 60)
    fitted, _ = ramp.temperature.terms(line)
    at, _ = ramp.temperature.terms(warm)
    level = (means - at).mean(axis=0)
    return warm, (means - level) * scale_g * 1e3, line, fitted * scale_g * 1e3


_ORDER = {"drift, and offset or tilt": 0, "drift": 1, "unusable": 2, "offset or tilt": 3, "steady": 4}


def _fleet_rows(found: list[drift.DeviceDrift]) -> Rows:
    """Worst first."""
    listed = sorted(found, key=lambda d: (_ORDER[d.verdict], -abs(d.along_g) if np.isfinite(d.along_g) else 0.0))
    return [
        (
            d.device,
            d.verdict,
            f"{d.along_g * 1e3:+.2f} +- {1.96 * d.along_sd_g * 1e3:.2g} mg",
            f"{d.across_g * 1e3:.2f} mg",
            f"{datetime.fromtimestamp(d.at_s, UTC):%Y-%m-%d}" if np.isfinite(d.at_s) and d.verdict != "steady" else "",
            d.note,
        )
        for d in listed
    ]


@command
def fleet(
    source: Annotated[
        Path | None, typer.Argument(help="Table: device,time_s,temperature_c,x_g,y_g,z_g; else the database.")
    ] = None,
    days: Annotated[float, typer.Option("--days", help="Look back so many days in the database.")] = 70.0,
    every: Annotated[float, typer.Option("--every", help="One rest per so many hours.")] = 6.0,
    postgres: Annotated[str, typer.Option("--postgres", envvar="TRIAX_POSTGRES", help="postgresql://user@host:5432/triax")] = "",
    report: Annotated[Path, typer.Option("--report", help="HTML report.")] = Path("fleet.html"),
    json_output: Json = False,
) -> None:
    """Drift of each device along gravity, after its own temperature regression. A drift anywhere: exit code 1."""
    output = Output(json_output)
    if source is not None:
        found = drift.fleet(fleet_rests.from_table(source))
    else:
        settings = replace(Settings.from_env(), postgres=postgres) if postgres else Settings.from_env()
        end = datetime.now(UTC)
        found = drift.fleet(fleet_rests.from_database(settings, end - timedelta(days=days), end, every * 3600))
    if not found:
        raise BadInput("The database holds no minute of any device in that time: give --days, or a table of rests.")
    head = ("device", "verdict", "along gravity", "across gravity", "since", "")
    rows = _fleet_rows(found)
    output.table(f"{len(found)} devices", head, [row for row in rows if row[1] != "steady"][:40])
    counts = {verdict: sum(d.verdict == verdict for d in found) for verdict in _ORDER}
    output.say(", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n))
    drifted = sum("drift" in d.verdict for d in found)
    gates = (Gate("devices that drifted", float(drifted), 0.0, "", drifted == 0),)
    gates_table(output, gates)
    made = Report("Drift of the fleet", drifted == 0, {"devices": len(found), **counts})
    made.section("Changes", plots.fleet_plot(found, drift.DRIFT_G))
    made.section("Devices", table(head, rows[:500]))
    facts = {"devices": len(found), "verdicts": counts, "drifted": [d.device for d in found if "drift" in d.verdict]}
    output.finish(drifted == 0, facts, made, report)
