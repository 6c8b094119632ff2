"""The vectorised codec against Google's protobuf on the same frames. Prints rows of a Markdown table; ratios come from one run.

python tests/bench/codec.py
"""

import statistics
import time
from collections.abc import Callable

import google.protobuf
import numpy as np
from triax_proto import batch, frame
from triax_proto.v1.frame_pb2 import Frame

FRAMES = 1000
REPEATS = 15


def us_per_frame(work: Callable[[], object]) -> float:
    """Median CPU time of `work` over all FRAMES, per frame."""
    times = []
    for _ in range(REPEATS):
        began = time.process_time_ns()
        work()
        times.append(time.process_time_ns() - began)
    return statistics.median(times) / FRAMES / 1000


def rows() -> list[str]:
    """Rows of a Markdown table: what, ours, Google's, ratio."""
    rng = np.random.default_rng(1)
    frames = frame.empty(FRAMES)
    for name in ("x", "y", "z"):
        frames[name] = rng.integers(-5_000_000, 5_000_000, (FRAMES, 10))
    frames["device"] = rng.integers(0, 2**63, FRAMES)
    frames["sequence"] = np.arange(FRAMES)
    wire = [row.tobytes() for row in frame.encode(frames)]
    joined = b"".join(wire)
    record = batch.join(wire)

    def google_parse() -> int:
        total = 0
        for data in wire:
            message = Frame.FromString(data)
            total += message.sequence
        return total

    def google_read() -> list[np.ndarray]:
        out = []
        for data in wire:
            message = Frame.FromString(data)
            out.append(np.array([message.x, message.y, message.z]))
        return out

    def google_write() -> list[bytes]:
        out = []
        for row in frames:
            message = Frame(device=int(row["device"]), sequence=int(row["sequence"]))
            for axis in ("x", "y", "z"):
                getattr(message, axis).extend(row[axis].tolist())
            out.append(message.SerializeToString())
        return out

    def ours_split() -> object:
        rows = batch.split_array(record)
        return frame.decode(np.ascontiguousarray(rows))

    table = [
        ("decode to arrays", lambda: frame.decode(joined), "parse, fields to arrays", google_read),
        ("decode to arrays", lambda: frame.decode(joined), "parse, one field read", google_parse),
        ("Kafka record to arrays", ours_split, "parse, fields to arrays", google_read),
        ("encode with checksums", lambda: frame.encode(frames), "serialise 5 of 21 fields", google_write),
    ]
    lines = [f"| {FRAMES} frames | µs/frame | protobuf {google.protobuf.__version__} (upb) | µs/frame | ratio |"]
    lines.append("|---|---|---|---|---|")
    for what, work, other, theirs in table:
        mine, google_us = us_per_frame(work), us_per_frame(theirs)
        lines.append(f"| {what} | {mine:.3f} | {other} | {google_us:.3f} | {google_us / mine:.1f} x |")
    lines.append(f"| prove checksums | {us_per_frame(lambda: frame.checksums_ok(frames)):.3f} | | | |")
    return lines


if __name__ == "__main__":
    print("\n".join(rows()))
