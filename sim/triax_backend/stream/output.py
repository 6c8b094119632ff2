"""Feature and event rows as Kafka records: on the partition of their device, features in batches, each event alone."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from triax_proto.names import EVENTS, FEATURES

from triax_backend.stream.events import messages
from triax_backend.stream.features import encode
from triax_backend.stream.state import State

__all__ = ["Out", "records"]

_ROWS = 4_000  # of a FeatureBatch: 800 kB, below Kafka's 1 MB

Array = np.ndarray[Any, Any]
# topic, partition, key, value
Out = tuple[str, int, bytes | None, bytes]


def records(state: State, features: Array, events: Array) -> Iterator[Out]:
    """Records of these rows; every device of them is in `state`."""
    if len(features):
        partitions = state.partitions_of(features["device"])
        order = np.argsort(partitions, kind="stable")
        ranked = partitions[order]
        edges = np.flatnonzero(np.diff(ranked, prepend=-1, append=-1))
        for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            for first in range(start, end, _ROWS):
                yield FEATURES, int(ranked[start]), None, encode(features[order[first : min(end, first + _ROWS)]])
    if len(events):
        partitions = state.partitions_of(events["device"])
        for partition, event in zip(partitions.tolist(), messages(events), strict=True):
            yield EVENTS, partition, b"%016x" % event.device, event.SerializeToString(deterministic=True)
