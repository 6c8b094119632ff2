"""Figures of the reports as SVG text. Every axis names its unit, every density its side."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from triax_tools.calibrate.clock import Clock
from triax_tools.calibrate.drift import DeviceDrift, Difference
from triax_tools.calibrate.model import INTRINSIC_NAMES, Array
from triax_tools.calibrate.noise import Allan, NoiseFit, Psd
from triax_tools.calibrate.pose import CELLS, NAMES, missing
from triax_tools.calibrate.response import Response

__all__ = [
    "allan_plot",
    "check_plot",
    "clock_plot",
    "diff_plot",
    "fleet_plot",
    "psd_plot",
    "ramp_plot",
    "residual_plot",
    "response_plot",
    "rest_plot",
    "sphere_plot",
]

_AXIS = ("#c0392b", "#1e8449", "#2471a3")  # x, y, z
_INK, _MUTED, _GOOD = "#22313f", "#8395a7", "#1e8449"
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small, and found by a search
    "svg.hashsalt": "triax",  # the same data give the same file
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.edgecolor": _MUTED,
}
_WIDTH = 8.6  # inches: the report's column
_FAR = 3.0  # standard errors: a mark for the eye; the verdict is that of all nine together
_POINTS = 4000  # of a line in a plot: more than a screen has


# matplotlib loads when the first figure is made: `triax --help` needs none.


def _svg(figure: Any) -> str:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    out = io.StringIO()
    with rc_context(_STYLE):
        FigureCanvasSVG(figure).print_svg(  # type: ignore[no-untyped-call]
            out, metadata={"Date": None, "Creator": None}
        )
    text = out.getvalue()
    return text[text.index("<svg") :]


def _figure(height: float = 3.0, **kw: Any) -> tuple[Any, Any]:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        return figure, figure.subplots(**kw)


def residual_plot(names: Sequence[str], fitted_g: Array, left_out_g: Array, six_g: Array) -> str:
    """|a| - 1 of each pose: in the fit, left out of it; and what offset and scale alone would leave (its rms as a note)."""
    figure, axes = _figure()
    x = np.arange(len(fitted_g))
    axes.axhline(0, color=_MUTED, lw=0.8)
    axes.bar(x - 0.2, fitted_g * 1e6, 0.4, color="#2471a3", label="in the fit")
    axes.bar(x + 0.2, left_out_g * 1e6, 0.4, color="#e59866", label="left out and predicted")
    axes.set_xticks(x, names, rotation=60 if len(names) > 12 else 0, fontsize=7 if len(names) > 24 else 8)
    axes.set_ylabel("|a| - 1, ug of local g")
    rms = np.sqrt(np.mean(np.square(six_g)))
    axes.set_title(f"Residuals (without misalignment terms: {rms * 1e6:,.0f} ug rms)", loc="left", fontsize=10)
    axes.legend(ncols=2, fontsize=8)
    return _svg(figure)


def check_plot(residual_g: Array, expected_g: Array) -> str:
    """|a| - 1 of each rest, with two standard deviations of what the calibration predicts."""
    figure, axes = _figure()
    x = np.arange(1, len(residual_g) + 1)
    axes.axhline(0, color=_MUTED, lw=0.8)
    axes.bar(x, 4e6 * expected_g, 0.9, bottom=-2e6 * expected_g, color=_MUTED, alpha=0.2, label="expected, 2 sd")
    axes.plot(x, residual_g * 1e6, "o", ms=4, color="#2471a3", label="found")
    axes.use_sticky_edges = False
    axes.margins(y=0.08)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("rest")
    axes.set_ylabel("|a| - 1, ug of local g")
    axes.legend(ncols=2, fontsize=8)
    return _svg(figure)


def sphere_plot(directions: Array) -> str:
    """Where the rests were on the sphere, from two sides, with the 18 cells."""
    figure, both = _figure(4.2, ncols=2, subplot_kw={"projection": "3d"})
    absent = set(missing(directions))
    for axes, azimuth, elevation, title in zip(both, (35, 215), (25, -25), ("from +X +Y +Z", "from -X -Y -Z"), strict=True):
        _half_sphere(axes, directions, absent, azimuth, elevation)
        axes.set_title(title, fontsize=9)
    return _svg(figure)


def _half_sphere(axes: Any, directions: Array, absent: set[int], azimuth: float, elevation: float) -> None:
    u, v = np.mgrid[0 : 2 * np.pi : 25j, 0 : np.pi : 13j]
    axes.plot_wireframe(np.cos(u) * np.sin(v), np.sin(u) * np.sin(v), np.cos(v), color=_MUTED, lw=0.3, alpha=0.5)
    az, el = np.radians([azimuth, elevation])
    view = np.array([np.cos(el) * np.cos(az), np.cos(el) * np.sin(az), np.sin(el)])
    front = [cell for cell in range(len(CELLS)) if CELLS[cell] @ view > 0.05]
    for cell in front:
        colour = "#c0392b" if cell in absent else _GOOD
        axes.scatter(*(1.02 * CELLS[cell]), s=120, facecolors="none", edgecolors=colour, lw=1.2)
        axes.text(*(1.22 * CELLS[cell]), NAMES[cell], fontsize=7, ha="center", va="center", color=_INK)
    seen = directions / np.linalg.norm(directions, axis=1)[:, None]
    seen = seen[seen @ view > 0]
    axes.scatter(*(1.02 * seen.T), s=12, color="#2471a3", depthshade=False)
    axes.view_init(elevation, azimuth)
    axes.set_box_aspect((1, 1, 1), zoom=1.35)
    axes.set_axis_off()


def rest_plot(time_s: Array, values_g: Array, rests: Sequence[tuple[float, float]], rejected: Sequence[tuple[float, float]]) -> str:
    """The three axes in g (less their middle, where there is no calibration), rests that were used and those that were not."""
    figure, axes = _figure(height=2.4)
    step = max(1, len(time_s) // _POINTS)
    for k, colour in enumerate(_AXIS):
        axes.plot(time_s[::step], values_g[::step, k], color=colour, lw=0.7, label="xyz"[k])
    for low, high in rests:
        axes.axvspan(low, high, color=_GOOD, alpha=0.15, lw=0)
    for low, high in rejected:
        axes.axvspan(low, high, color="#c0392b", alpha=0.15, lw=0)
    axes.set_xlabel("s")
    axes.set_ylabel("g")
    axes.set_ylim(-1.5, 1.7)
    axes.legend(ncols=3, loc="upper right", fontsize=8)
    axes.set_title("Recording: rests used (green), refused (red)", loc="left", fontsize=10)
    return _svg(figure)


def allan_plot(measured: Allan, fits: Sequence[NoiseFit]) -> str:
    """Overlapping Allan deviation with one-sigma bars and the fitted model of each axis."""
    figure, axes = _figure(height=3.6)
    tau = measured.tau_s
    for k, fit in enumerate(fits):
        sigma = measured.sigma_g[:, k] * 1e6
        axes.errorbar(tau, sigma, sigma * measured.relative_error, color=_AXIS[k], lw=0, elinewidth=0.7, marker="o", ms=2.5)
        n, b, q = (c.value or 0.0 for c in (fit.n, fit.b, fit.k))
        model = np.sqrt(n**2 / tau + 2 * np.log(2) / np.pi * b**2 + q**2 * tau / 3) * 1e6
        told = f"{n * 1e6:.3g}" if fit.n.value is not None else f"< {(fit.n.bound or 0) * 1e6:.3g}"
        axes.plot(tau, model, color=_AXIS[k], lw=1, label=f"{'xyz'[k]}: N {told} ug s^1/2")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("tau, s")
    axes.set_ylabel("Allan deviation, ug")
    axes.legend(fontsize=8)
    axes.set_title("Allan deviation (N is two-sided: density / sqrt 2)", loc="left", fontsize=10)
    return _svg(figure)


def psd_plot(spectrum: Psd, density_g: Array) -> str:
    """One-sided amplitude density per axis."""
    figure, axes = _figure(height=3.2)
    f, d = _thinned(spectrum.frequency_hz, np.sqrt(spectrum.density) * 1e6)
    for k, colour in enumerate(_AXIS):
        axes.plot(f, d[:, k], color=colour, lw=0.8, label=f"{'xyz'[k]}: {density_g[k] * 1e6:.3g} ug/rtHz")
    axes.set_yscale("log")
    if spectrum.frequency_hz[-1] > 1000:
        axes.set_xscale("log")
    axes.set_xlabel("Hz")
    axes.set_ylabel("ug / sqrt(Hz), one-sided")
    axes.legend(fontsize=8)
    axes.set_title(
        f"Density, bins of {spectrum.bin_hz:.3g} Hz, Hann, {spectrum.averages} averages, bins 0-2 masked", loc="left", fontsize=10
    )
    return _svg(figure)


def _thinned(x: Array, y: Array) -> tuple[Array, Array]:
    """At most _POINTS, each the largest of its stretch, so that no line vanishes from the picture."""
    step = max(1, len(x) // _POINTS)
    count = len(x) // step
    tall = y[: count * step].reshape(count, step, -1)
    top = np.max(np.where(np.isnan(tall), -np.inf, tall), axis=1)
    return x[: count * step].reshape(count, step)[:, 0], np.where(np.isinf(top), np.nan, top)


def clock_plot(count: Array, arrival_s: Array, clock: Clock) -> str:
    """Delay of each block over the line of the true rate."""
    figure, axes = _figure(height=2.6)
    delay = (arrival_s - clock.start_s - count / clock.rate_hz) * 1e3
    axes.plot(arrival_s - arrival_s[0], delay, ".", ms=2, color="#2471a3")
    axes.axhline(0, color=_GOOD, lw=1, label=f"{clock.rate_hz:,.3f} Hz")
    axes.set_xlabel("s")
    axes.set_ylabel("delay over the line, ms")
    axes.legend(fontsize=8, loc="upper right")
    axes.set_title("Arrivals over the lower envelope", loc="left", fontsize=10)
    return _svg(figure)


def ramp_plot(temperature_c: Array, offset_mg: Array, model_c: Array, model_mg: Array) -> str:
    """Change against temperature, measured and fitted, mg."""
    figure, axes = _figure(height=2.8)
    for k, colour in enumerate(_AXIS):
        axes.plot(temperature_c, offset_mg[:, k], ".", ms=3, color=colour, label="xyz"[k])
        axes.plot(model_c, model_mg[:, k], color=colour, lw=1)
    axes.set_xlabel("C")
    axes.set_ylabel("change, mg")
    axes.legend(ncols=3, fontsize=8, markerscale=2)
    return _svg(figure)


def response_plot(found: Sequence[Response]) -> str:
    """Magnitude and phase against frequency."""
    figure, (top, bottom) = _figure(height=4.0, nrows=2, sharex=True)
    f = [r.frequency_hz for r in found]
    top.errorbar(f, [r.magnitude for r in found], [r.magnitude_sd for r in found], marker="o", ms=3, lw=1, color="#2471a3")
    bottom.errorbar(f, [r.phase_deg for r in found], [r.phase_sd for r in found], marker="o", ms=3, lw=1, color="#2471a3")
    top.set_ylabel("sensor / reference")
    bottom.set_ylabel("phase, degrees")
    bottom.set_xlabel("Hz")
    bottom.set_xscale("log")
    top.set_title("Frequency response", loc="left", fontsize=10)
    return _svg(figure)


def diff_plot(found: Difference) -> str:
    """Change of each of the nine numbers in its standard errors."""
    figure, axes = _figure(height=2.8)
    colours = ["#c0392b" if abs(s) > _FAR else "#2471a3" for s in found.sigmas]
    axes.barh(range(9), found.sigmas, color=colours)
    axes.set_yticks(range(9), [name.replace("_", " ") for name in INTRINSIC_NAMES])
    axes.invert_yaxis()
    axes.axvline(0, color=_MUTED, lw=0.8)
    for sign in (-1, 1):
        axes.axvline(sign * _FAR, color="#c0392b", lw=0.8, ls="--")
    axes.set_xlabel(f"change / standard error (dashed: {_FAR:g})")
    return _svg(figure)


def fleet_plot(found: Sequence[DeviceDrift], limit_g: float) -> str:
    """Each device's change along and across gravity."""
    figure, axes = _figure(height=3.2)
    colour = {"steady": _MUTED, "offset or tilt": "#e59866", "drift": "#c0392b", "drift, and offset or tilt": "#7b241c"}
    for verdict, ink in colour.items():
        chosen = [d for d in found if d.verdict == verdict]
        if chosen:
            across = [max(d.across_g * 1e3, 1e-3) for d in chosen]
            axes.plot([d.along_g * 1e3 for d in chosen], across, "o", ms=3, color=ink, label=f"{verdict}: {len(chosen)}")
    for sign in (-1, 1):
        axes.axvline(sign * limit_g * 1e3, color="#c0392b", lw=0.8, ls="--")
    axes.set_yscale("log")
    axes.set_xlabel("change along gravity, mg (drift)")
    axes.set_ylabel("change across gravity, mg (offset or tilt)")
    axes.legend(fontsize=8)
    return _svg(figure)
