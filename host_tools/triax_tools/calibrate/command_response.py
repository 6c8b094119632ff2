"""`response`: a line's amplitude and phase, and the frequency response from a shaker run."""

import csv
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from triax_tools.calibrate import noise as noises
from triax_tools.calibrate import plots
from triax_tools.calibrate import response as responses
from triax_tools.calibrate.console import (
    Json,
    MqttOption,
    Output,
    PageOption,
    Rate,
    Scale,
    Seconds,
    Sensor,
    Unit,
    command,
    hints_of,
    page_of,
)
from triax_tools.calibrate.errors import BadInput
from triax_tools.calibrate.readers import Hints, read
from triax_tools.calibrate.recording import Recording
from triax_tools.calibrate.report import Report, table
from triax_tools.calibrate.source import open_recording

__all__ = ["response"]


def _tones(path: Path) -> list[tuple[Path, responses.Tone]]:
    """Rows of file, frequency_hz, amplitude_g, phase_deg; files stand beside the table."""
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    out = []
    for number, row in enumerate(rows, start=2):
        try:
            tone = responses.Tone(float(row["frequency_hz"]), float(row["amplitude_g"]), float(row["phase_deg"]))
            out.append((path.parent / row["file"], tone))
        except (KeyError, TypeError, ValueError):
            raise BadInput(f"{path}:{number}: want the columns file, frequency_hz, amplitude_g, phase_deg") from None
    if not out:
        raise BadInput(f"{path}: holds no tones")
    return out


def _raw(recording: Recording) -> Recording:
    if recording.decimation > 1:
        raise BadInput(
            f"{recording.name}: its values are means of {recording.decimation} samples, which lowers and delays a line; "
            "record raw samples: triax calibrate capture --raw SECONDS"
        )
    return recording


@command
def response(
    source: Annotated[
        str, typer.Argument(help="Recording of one tone; with --tones a table: file,frequency_hz,amplitude_g,phase_deg.")
    ],
    tones: Annotated[bool, typer.Option("--tones", help="SOURCE is a table of tones of a shaker run.")] = False,
    frequency: Annotated[float, typer.Option("--frequency", help="Where the line is, Hz; default: the strongest.")] = 0.0,
    harmonics: Annotated[int, typer.Option("--harmonics", help="Fit so many harmonics with it.", min=1, max=50)] = 1,
    report: PageOption = None,
    sensor: Sensor = "",
    unit: Unit = "",
    scale: Scale = 0.0,
    rate: Rate = 0.0,
    mqtt: MqttOption = "mqtt://127.0.0.1:1883",
    seconds: Seconds = 10.0,
    json_output: Json = False,
) -> None:
    """Four-parameter sine fit of a line; or the frequency response from a shaker run."""
    output = Output(json_output)
    hints = hints_of(sensor, unit, scale, rate)
    if tones:
        _shaker(output, Path(source), hints, report)
        return
    recording = _raw(open_recording(source, hints, mqtt, seconds))
    hz = recording.rate_hz
    found = responses.sine_fit(recording.longest_g, hz, frequency or None, harmonics)
    wander = "" if found.wander_hz is None else f", halves differ by {found.wander_hz:.2g} Hz"
    rows = [
        (
            "xyz"[k],
            f"{found.amplitude_g[k]:.5g} g +- {found.amplitude_sd[k]:.2g}",
            f"{found.phase_start_deg[k]:+.2f} deg +- {found.phase_sd[k] * 2:.2g}",
            f"{found.residual_g[k]:.4g} g",
        )
        for k in range(3)
    ]
    head = ("axis", "amplitude, peak", "phase at the first sample", "residual, rms")
    output.table("line", head, rows)
    line = f"{found.frequency_hz:.6g} Hz +- {found.frequency_sd:.2g} Hz{wander}"
    output.say(f"line at {line}")
    made = Report("Line", True, {"recording": recording.name, "frequency": line})
    made.section("Amplitude and phase", table(head, rows))
    values = recording.longest_g
    spectrum = noises.psd(values, hz, hz / min(2048, len(values) // 2))
    made.section("Density", plots.psd_plot(spectrum, noises.band_density(spectrum, 3 * spectrum.bin_hz, hz / 2)))
    facts = {
        "frequency_hz": found.frequency_hz,
        "frequency_sd": found.frequency_sd,
        "amplitude_g": found.amplitude_g.tolist(),
        "amplitude_sd": found.amplitude_sd.tolist(),
        "wander_hz": found.wander_hz,
    }
    output.finish(True, facts, made, report or page_of(source, "line"))


def _shaker(output: Output, path: Path, hints: Hints, report: Path | None) -> None:
    listed = _tones(path)
    recordings = [_raw(read(file, hints)) for file, _ in listed]
    records = [recording.values_g for recording in recordings]
    wanted = [tone for _, tone in listed]
    nominal = float(np.median([recording.rate_hz for recording in recordings]))
    true_rate, off_ppm = responses.rate_from_tones(records, wanted, nominal)
    output.say(f"true rate {true_rate:,.3f} Hz, {off_ppm:+.1f} ppm off the recordings' {nominal:,.3f} Hz; used from here on")
    found = responses.frequency_response(records, wanted, true_rate)
    rows = [
        (
            f"{r.frequency_hz:.6g} Hz",
            f"{r.magnitude:.5f} +- {r.magnitude_sd:.1g}",
            f"{r.phase_deg:+.3f} deg +- {r.phase_sd:.1g}",
            "xyz"[r.axis],
            f"{r.transverse * 100:.2f} %",
        )
        for r in found
    ]
    head = ("tone", "sensor / reference", "phase", "axis", "transverse")
    output.table("frequency response", head, rows)
    made = Report("Frequency response", True, {"tones": path.name, "true rate": f"{true_rate:,.3f} Hz ({off_ppm:+.1f} ppm)"})
    made.section("Response", plots.response_plot(found), table(head, rows))
    facts = {"rate_hz": true_rate, "off_ppm": off_ppm, "tones": [r.__dict__ for r in found]}
    output.finish(True, facts, made, report or path.with_suffix(".response.html"))
