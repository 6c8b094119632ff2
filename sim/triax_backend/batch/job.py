"""The batch jobs over the lake, results into PostgreSQL. Run again they replace what they said before.

python -m triax_backend.batch.job [--since-hours H] [--database FILE] [--skip-captures]
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from triax_backend.batch import results
from triax_backend.batch.captures import Capture, captures
from triax_backend.batch.compute import compute
from triax_backend.batch.source import duckdb_frames, lake_tables
from triax_backend.batch.spectra import amplitude_spectrum, envelope_spectrum, peaks
from triax_backend.settings import Settings

__all__ = ["main", "run", "spectra_rows"]

log = logging.getLogger("triax.batch")
_LEAST_S = 0.25  # of a capture: 4 Hz between lines; shorter stretches are left out
_ENVELOPE_BAND = (0.15, 0.45)  # of the rate: above the machine's own lines, below the part's cut-off
_LINES = 10


def spectra_rows(found: Iterable[Capture]) -> Iterator[dict[str, Any]]:
    """Rows of batch_spectra: amplitude and envelope spectrum of each axis of each capture."""
    for one in found:
        if one.seconds < _LEAST_S:
            continue
        low, high = (share * one.rate_hz for share in _ENVELOPE_BAND)
        kinds = {
            "amplitude": amplitude_spectrum(one.g, one.rate_hz),
            "envelope": envelope_spectrum(one.g, one.rate_hz, low, high),
        }
        for kind, (frequency, amplitude) in kinds.items():
            for index, axis in enumerate("xyz"):
                lines = peaks(frequency, amplitude[:, index], _LINES)
                yield {
                    "device": _signed(one.device),
                    "boot": one.boot,
                    "capture": one.capture,
                    "start": one.start,
                    "axis": axis,
                    "kind": kind,
                    "time_us": one.time_us,
                    "rate_hz": one.rate_hz,
                    "step_hz": one.rate_hz / len(one.g),
                    "amplitude_g": amplitude[:, index].tolist(),
                    "lines_hz": [item.frequency_hz for item in lines],
                    "lines_g": [item.amplitude_g for item in lines],
                }


def _signed(device: int) -> int:
    """The same 64 bits as PostgreSQL's bigint."""
    return device - (1 << 64) if device >= 1 << 63 else device


def run(
    settings: Settings, since_us: int | None = None, database: Path | None = None, with_captures: bool = True
) -> dict[str, int]:
    """Compute and store everything; rows by table."""
    frames = duckdb_frames(lake_tables(settings, "frames", since_us), database)
    counts = results.store(settings, compute(frames))
    if with_captures:
        with psycopg.connect(settings.postgres) as connection:
            rows = spectra_rows(captures(lake_tables(settings, "raw", since_us)))
            counts["batch_spectra"] = results.store_rows(connection, "batch_spectra", rows)
    return counts


def main() -> int:
    """Run as a command. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--since-hours", type=float, help="only frames received in the last H hours; else the whole lake")
    parser.add_argument("--database", type=Path, help="keep DuckDB's working tables in this file: for more than fits in memory")
    parser.add_argument("--skip-captures", action="store_true", help="no spectra")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    since = None if options.since_hours is None else int((time.time() - options.since_hours * 3600) * 1e6)
    print(json.dumps(run(Settings.from_env(), since, options.database, not options.skip_captures)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
