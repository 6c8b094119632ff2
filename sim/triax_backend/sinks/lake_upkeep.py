"""Keeping the lake small: old snapshots forgotten, old days dropped, files of no table removed.

The sink forgets snapshots itself while it runs; the rest is for a daily job (triax_backend/upkeep.py). Rows leave a table at once,
their files with the next sweep after the snapshots that knew them are forgotten.
"""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.fs as pafs
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from triax_backend.settings import Settings

__all__ = ["KEEP_SNAPSHOTS", "drop_days", "forget", "sizes", "sweep"]

# Each commit writes all snapshots' summaries anew, 1 kB each: 300 are 25 minutes of commits every 5 s.
KEEP_SNAPSHOTS = 300
_SLACK = 50  # forgotten together, as forgetting is a commit too
_SWEEP_AFTER_S = 86_400.0  # a file that is being written or committed is younger
_DAY = "received_day"


def forget(table: Table, keep: int = KEEP_SNAPSHOTS) -> int:
    """Forget the oldest snapshots once there are `keep` and some more; how many. The offsets stay in the table's properties."""
    found = sorted(table.metadata.snapshots, key=lambda s: s.timestamp_ms)
    if len(found) <= keep + _SLACK:
        return 0
    old = [s.snapshot_id for s in found[:-keep]]
    try:
        table.maintenance.expire_snapshots().by_ids(old).commit()
    except CommitFailedException:  # another writer was quicker: next time
        return 0
    return len(old)


def sizes(table: Table) -> dict[str, int]:
    """Bytes of the current files of each day of receipt (YYYY-MM-DD), oldest first."""
    out: dict[str, int] = {}
    for file in table.inspect.files().to_pylist():
        day = str(file["partition"][_DAY])
        out[day] = out.get(day, 0) + int(file["file_size_in_bytes"])
    return dict(sorted(out.items()))


def drop_days(table: Table, keep_days: int | None = None, budget_bytes: int | None = None, now_s: float | None = None) -> list[str]:
    """Drop whole days of receipt: older than `keep_days`, then the oldest until `budget_bytes` hold; never today. The days dropped.

    Raises CommitFailedException if another writer commits meanwhile: try again.
    """
    now = time.time() if now_s is None else now_s
    today = str(np.datetime64(int(now), "s").astype("M8[D]"))
    held = {day: size for day, size in sizes(table).items() if day < today}
    dropped = []
    if keep_days is not None:
        oldest = str(np.datetime64(today, "D") - keep_days)
        dropped += [day for day in held if day < oldest]
    if budget_bytes is not None:
        total = sum(sizes(table).values()) - sum(held[day] for day in dropped)
        for day in held:
            if total <= budget_bytes:
                break
            if day not in dropped:
                dropped.append(day)
                total -= held[day]
    if dropped:
        end = np.datetime64(max(dropped), "D") + 1
        table.delete(f"received < '{end}T00:00:00+00:00'")  # whole files: no row is rewritten
    return sorted(dropped)


def _referenced(table: Table) -> Iterator[str]:
    yield table.metadata_location
    yield from (entry.metadata_file for entry in table.metadata.metadata_log)
    for snapshot in table.metadata.snapshots:
        yield snapshot.manifest_list
        for manifest in snapshot.manifests(table.io):
            yield manifest.manifest_path
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False):
                yield entry.data_file.file_path


def sweep(settings: Settings, table: Table, older_s: float = _SWEEP_AFTER_S, now_s: float | None = None) -> list[str]:
    """Remove files below the table's location that none of its snapshots knows and that are older than `older_s`; their paths.

    Such files are what a writer that died between upload and commit left, and what forgotten snapshots held.
    """
    now = time.time() if now_s is None else now_s
    s3 = settings.s3_parts()
    given: dict[str, Any] = {"region": s3.region, "connect_timeout": 5, "request_timeout": 30}
    if s3.endpoint is not None:
        given |= {"endpoint_override": s3.endpoint, "access_key": s3.key, "secret_key": s3.secret}
    files = pafs.S3FileSystem(**given)
    place = table.location().removeprefix("s3://")
    listed = files.get_file_info(pafs.FileSelector(place, recursive=True, allow_not_found=True))
    # Listed first, asked second: what a writer commits in between is known then.
    table.refresh()
    known = {path.removeprefix("s3://") for path in _referenced(table)}
    removed = []
    for file in listed:
        if file.is_file and file.path not in known and now - file.mtime.timestamp() > older_s:
            files.delete_file(file.path)
            removed.append(file.path)
    return removed
