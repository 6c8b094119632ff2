"""`noise` and `clock`: what a recording says of the sensor's noise and of its clock."""

from typing import Annotated

import numpy as np
import typer

from triax_tools.calibrate import clock as clocks
from triax_tools.calibrate import noise as noises
from triax_tools.calibrate import plots, rest
from triax_tools.calibrate.console import (
    Json,
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
    hints_of,
    page_of,
)
from triax_tools.calibrate.errors import Refused
from triax_tools.calibrate.model import Array
from triax_tools.calibrate.noise import Coefficient
from triax_tools.calibrate.recording import Recording
from triax_tools.calibrate.report import Report, table
from triax_tools.calibrate.source import open_recording

__all__ = ["clock", "noise"]

_STATED_PPM = 2000.0  # of a rate that a file states: loggers measure it over a second at their start, 350 ppm off has been seen
_MOVES = 0.1  # of a recording that is still, the odd second is loud
_USABLE = 0.8  # of half the rate: above, decimation and the part's own filter bend the density


def _text(found: Coefficient) -> str:
    if found.value is None:
        return f"< {(found.bound or 0) * 1e6:.3g}"
    return f"{found.value * 1e6:.4g} ({found.low * 1e6:.4g}..{found.high * 1e6:.4g})"


def _noise_rows(density_g: Array, fits: list[noises.NoiseFit]) -> list[tuple[str, ...]]:
    return [
        ("density, one-sided, ug/rtHz", *(f"{d * 1e6:.4g}" for d in density_g)),
        ("the same two-sided (/ sqrt 2), ug s^1/2", *(f"{d / np.sqrt(2) * 1e6:.4g}" for d in density_g)),
        ("N of Allan, two-sided, ug s^1/2", *(_text(f.n) for f in fits)),
        ("B (floor / 0.664), ug", *(_text(f.b) for f in fits)),
        ("K, ug / s^1/2", *(_text(f.k) for f in fits)),
    ]


def _moving(recording: Recording) -> float:
    """Share of the recording that rest.py does not call still."""
    spans = rest.find(recording.values_g, recording.rate_hz, starts=recording.starts, lsb_g=recording.identity.scale_g)
    return 1 - sum(stop - start for start, stop in spans) / len(recording.counts)


@command
def noise(
    source: Source,
    bin_hz: Annotated[float, typer.Option("--bin", help="Width of a frequency bin, Hz; default: a thousandth of the rate.")] = 0.0,
    low: Annotated[float, typer.Option("--from", help="Density from this frequency, Hz.")] = 0.0,
    high: Annotated[float, typer.Option("--to", help="Density up to this frequency, Hz.")] = 0.0,
    limit: Annotated[float, typer.Option("--limit", help="Fail above this one-sided density, ug/rtHz; 0: no gate.")] = 0.0,
    report: PageOption = None,
    sensor: Sensor = "",
    unit: Unit = "",
    scale: Scale = 0.0,
    rate: Rate = 0.0,
    mqtt: MqttOption = "mqtt://127.0.0.1:1883",
    seconds: Seconds = 600.0,
    json_output: Json = False,
) -> None:
    """Density (one-sided) and Allan deviation with N, B, K (two-sided) and their intervals, of a sensor at rest."""
    output = Output(json_output)
    recording = open_recording(source, hints_of(sensor, unit, scale, rate), mqtt, seconds)
    values, hz = recording.longest_g, recording.rate_hz
    spectrum = noises.psd(values, hz, bin_hz or hz / min(1000, max(8, len(values) // 8)))
    density = noises.band_density(spectrum, low or 3 * spectrum.bin_hz, high or _USABLE * hz / 2)
    measured = noises.allan(values, hz)
    fits = [noises.fit_noise(measured, axis) for axis in range(3)]
    rows = _noise_rows(density, fits)
    head = ("95 % intervals in brackets", "x", "y", "z")
    output.table(f"{len(values):,} values at {hz:.6g} Hz ({len(values) / hz:,.0f} s)", head, rows)
    moving = _moving(recording)
    notes = [f"{moving * 100:.0f} % of the recording is not still: this is noise and motion."] if moving > _MOVES else []
    for note in notes:
        output.say(f"note: {note}", "yellow")
    output.say("Data sheets give the one-sided density; Allan's N and kalibr's noise density are two-sided: smaller by sqrt(2).")
    passed = not limit or bool((density * 1e6 <= limit).all())
    facts = {
        "recording": recording.name,
        "values": f"{len(values):,} at {hz:.6g} Hz",
        "SHA-256 of the data": recording.data_sha256,
    }
    made = Report("Noise", passed, facts, "One-sided densities; N, B, K of the Allan deviation are two-sided (density / sqrt 2).")
    made.section("Per axis", table(head, rows))
    made.text("To know", notes)
    made.section("Density", plots.psd_plot(spectrum, density))
    made.section("Allan deviation", plots.allan_plot(measured, fits))
    held = {
        "density_one_sided_g_rthz": density.tolist(),
        "axes": [{"n": f.n.__dict__, "b": f.b.__dict__, "k": f.k.__dict__} for f in fits],
        "rate_hz": hz,
    }
    output.finish(passed, held, made, report or page_of(source, "noise"))


@command
def clock(
    source: Source,
    limit_ppm: Annotated[
        float, typer.Option("--limit-ppm", help="Fail if the rate is further off the stated one; 0: no gate.")
    ] = 0.0,
    nominal: Annotated[
        float, typer.Option("--nominal", help="Rate to compare with, Hz; default: what the recording states.")
    ] = 0.0,
    lost: Annotated[bool, typer.Option("--fail-lost", help="Fail if frames or samples were lost.")] = False,
    report: PageOption = None,
    sensor: Sensor = "",
    unit: Unit = "",
    scale: Scale = 0.0,
    rate: Rate = 0.0,
    mqtt: MqttOption = "mqtt://127.0.0.1:1883",
    seconds: Seconds = 60.0,
    json_output: Json = False,
) -> None:
    """True sample rate by the lower envelope of the arrivals, its drift, lost frames and samples."""
    output = Output(json_output)
    recording = open_recording(source, hints_of(sensor, unit, scale, rate), mqtt, seconds)
    count, arrival = recording.block_count, recording.block_arrival_s
    stated = nominal or recording.known_rate_hz
    try:
        found: clocks.Clock | None = clocks.measure_clock(count, arrival)
    except Refused as refusal:
        if not stated or len(count) < 2:
            raise
        found = None
        output.say(f"note: {refusal}", "yellow")
    off = (found.rate_hz / stated - 1) * 1e6 if found is not None and stated else 0.0
    missing, loss = clocks.holes(recording.sequence), _loss(recording, stated)
    rows = _clock_rows(found) + _loss_rows(recording, stated, off, missing, loss)
    output.table(f"{len(count)} blocks over {arrival[-1] - arrival[0]:,.1f} s", ("", ""), rows)
    lossy = missing > 0 or recording.lost_samples > 0 or (loss is not None and loss.samples > loss.bound)
    passed = not (limit_ppm and abs(off) > limit_ppm) and not (lost and lossy)
    made = Report("Clock", passed, {"recording": recording.name})
    made.section("Rate", table(("", ""), rows))
    if found is not None:
        made.section("Delays", plots.clock_plot(count, arrival, found))
    held = {
        "rate_hz": found.rate_hz if found else None,
        "error_ppm": found.error_ppm if found else None,
        "drift_ppm": found.drift_ppm if found else None,
        "drifts": found.drifts if found else None,
        "stated_hz": stated or None,
        "lost_frames": missing,
        "lost_samples": recording.lost_samples if len(recording.sequence) else loss.samples if loss else 0,
    }
    output.finish(passed, held, made, report or page_of(source, "clock"))


def _clock_rows(found: clocks.Clock | None) -> list[tuple[str, str]]:
    if found is None:
        return []
    drift = f"{found.drift_ppm:+.2f} +- {found.drift_error_ppm:.2g} ppm" + (": IT DRIFTS" if found.drifts else "")
    return [
        ("true rate", f"{found.rate_hz:,.4f} Hz +- {found.error_ppm:.2g} ppm"),
        ("by least squares (follows stalls)", f"{found.least_squares_hz:,.4f} Hz"),
        *(
            (f"in its {name} third", f"{part:,.4f} Hz")
            for name, part in zip(("first", "second", "last"), found.parts_hz, strict=True)
        ),
        ("drift, first to last third", drift),
        ("delay over the line", f"median {found.delay_median_s * 1e3:.3f} ms, worst {found.delay_worst_s * 1e3:.3f} ms"),
    ]


def _loss_rows(
    recording: Recording, stated: float, off_ppm: float, missing: int, loss: clocks.Loss | None
) -> list[tuple[str, str]]:
    rows = []
    if stated:
        rows.append(("stated rate", f"{stated:,.4f} Hz" + (f" (the true one: {off_ppm:+.1f} ppm)" if off_ppm else "")))
    if len(recording.sequence):
        rows.append(("lost frames", f"{missing} of {len(recording.sequence) + missing}"))
        rows.append(("lost samples, as the device counts", f"{recording.lost_samples}"))
    elif loss is not None:
        told = f"{loss.samples:,} +- {loss.bound:,} ({loss.share * 100:.1f} %)" if loss.samples > loss.bound else "none that shows"
        rows.append(("lost samples against the stated rate", told))
    return rows


def _loss(recording: Recording, stated: float) -> clocks.Loss | None:
    """Losses of a recording without the device's own count, where the file states a rate."""
    if len(recording.sequence) or not stated or len(recording.block_count) < 2:
        return None
    return clocks.lost_against(stated, recording.block_count, recording.block_arrival_s, _STATED_PPM)
