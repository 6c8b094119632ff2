"""What calibration costs: `fit` of 18 x 10 s at 1 kHz, `noise` of 3 h at 1 kHz, Allan deviation against allantools. Markdown rows.

python tests/bench/calibrate.py [--hours 3]
"""

import argparse
import platform
import tempfile
import time
from pathlib import Path

import allantools
import numpy as np
from threadpoolctl import threadpool_limits
from triax_tools.calibrate import document, gravity, noise, plots, pose, procedure, simulate
from triax_tools.calibrate.readers import Hints, read
from triax_tools.calibrate.recording import Identity, from_values

FIT_LIMIT_S, NOISE_LIMIT_S = 2.0, 10.0
RATE_HZ = 1000.0


def timed(function):
    """Result and the better of two runs, seconds."""
    best, result = float("inf"), None
    for _ in range(2):
        start = time.perf_counter()
        result = function()
        best = min(best, time.perf_counter() - start)
    return result, best


def capture_file(folder):
    """18 poses of 10 s with the turns between them, raw samples at 1 kHz, as a table of counts."""
    rng = np.random.default_rng(1)
    unit = simulate.draw_unit(rng)
    poses = simulate.hand_poses(pose.CELLS, rng)
    parts = []
    for before, after in zip([poses[-1], *poses], poses, strict=False):
        parts += [simulate.move(before, after, 1500, RATE_HZ, rng), simulate.hold(after, 11_600)]
    counts = unit.read(np.concatenate(parts), rng)
    path = folder / "run.csv"
    np.savetxt(
        path, np.c_[np.arange(len(counts)) / RATE_HZ, counts], delimiter=",", fmt="%.3f,%d,%d,%d", header="t,x,y,z", comments=""
    )
    return path, len(counts)


def fit(path):
    """From the file to a calibration with its residuals and plots."""
    recording = read(path, Hints(scale_g=1 / 16384))
    found = procedure.calibrate(recording, gravity.given(9.81))
    from datetime import UTC, datetime

    made = document.build(found.fit, recording.identity, datetime.now(UTC), list(found.gates), recording.data_sha256)
    return found, document.dump(made)


def analyse(recording):
    """Density, Allan deviation and N, B, K of three axes, with both figures."""
    values = recording.values_g
    spectrum = noise.psd(values, recording.rate_hz)
    density = noise.band_density(spectrum, 3, 400)
    measured = noise.allan(values, recording.rate_hz)
    fits = [noise.fit_noise(measured, axis) for axis in range(3)]
    return density, fits, plots.psd_plot(spectrum, density) + plots.allan_plot(measured, fits)


def main():
    """Print the rows; exit 1 if a limit is passed."""
    options = argparse.ArgumentParser()
    options.add_argument("--hours", type=float, default=3.0)
    hours = options.parse_args().hours
    rows, ok = [], True
    with threadpool_limits(1, user_api="blas"), tempfile.TemporaryDirectory() as folder:
        path, count = capture_file(Path(folder))
        (found, _), seconds = timed(lambda: fit(path))
        ok &= seconds < FIT_LIMIT_S and len(found.rests.kept) == 18
        rows.append(("fit, 18 poses x 10 s at 1 kHz, from a CSV", f"{count:,} samples", f"{seconds:.2f} s", f"< {FIT_LIMIT_S:g} s"))

        rng = np.random.default_rng(2)
        counts = rng.normal([0, 0, 16384], 75e-6 * np.sqrt(RATE_HZ / 2) * 16384, (int(hours * 3600 * RATE_HZ), 3))
        recording = from_values(counts, RATE_HZ, Identity(scale_g=1 / 16384))
        start = time.perf_counter()
        density, fits, _ = analyse(recording)
        seconds = time.perf_counter() - start
        ok &= seconds < NOISE_LIMIT_S * max(1.0, hours / 3)
        said = f"{density.mean() * 1e6:.2f} ug/rtHz, N {np.mean([f.n.value for f in fits]) * 1e6:.2f} ug"
        rows.append(
            (
                f"noise, {hours:g} h at 1 kHz, 3 axes ({said})",
                f"{len(counts):,} samples",
                f"{seconds:.2f} s",
                f"< {NOISE_LIMIT_S:g} s",
            )
        )

        axis = np.ascontiguousarray(recording.values_g[:2_000_000, 0])
        factors = noise.octaves(len(axis))
        ours, our_s = timed(lambda: noise.oadev(axis, RATE_HZ, factors))
        theirs, their_s = timed(lambda: allantools.oadev(axis, rate=RATE_HZ, data_type="freq", taus=factors / RATE_HZ)[1])
        worst = float(np.max(np.abs(ours / theirs - 1)))
        ok &= worst < 1e-9 and our_s < their_s
        name = f"Allan, one axis, {len(factors)} times"
        rows.append((f"{name}, ours", f"{len(axis):,} samples", f"{our_s * 1e3:.0f} ms", f"equal to {worst:.1e} (< 1e-9)"))
        rows.append(
            (
                f"{name}, allantools {allantools.__version__}",
                f"{len(axis):,} samples",
                f"{their_s * 1e3:.0f} ms",
                f"{their_s / our_s:.1f} x ours",
            )
        )
    print(f"<!-- CPython {platform.python_version()}, numpy {np.__version__} -->")
    print("| what | data | time | limit |\n|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    return 0 if ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
