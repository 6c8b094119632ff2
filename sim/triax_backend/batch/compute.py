"""All tables of expressions.py at once, on whatever engine holds the frames."""

from typing import Any

import pyarrow as pa

from triax_backend.batch import expressions

__all__ = ["compute"]


def compute(frames: Any) -> dict[str, pa.Table]:
    """All tables of expressions.py out of an Ibis table of frames, by the name of their table of results."""
    hours = expressions.hourly(frames)
    found = {
        "batch_hourly": hours,
        "batch_trend": expressions.trend(hours),
        "batch_ranking": expressions.ranking(hours),
        "batch_quality": expressions.quality(frames),
    }
    return {name: expression.to_pyarrow() for name, expression in found.items()}
