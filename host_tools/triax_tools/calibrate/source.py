"""Where a command's data come from: a file, a folder, the lake (lake.py), or a live node (`live:<device>`, for `seconds`)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from triax_proto.errors import FrameError
from triax_proto.frame import parse
from triax_proto.names import mqtt_topic

from triax_tools.calibrate.broker import Broker, identity_of, parse_device
from triax_tools.calibrate.errors import DeviceError
from triax_tools.calibrate.lake import LAKE, read_lake
from triax_tools.calibrate.readers import Hints, read
from triax_tools.calibrate.recording import Recording, from_frames

__all__ = ["LIVE", "open_recording"]

LIVE = "live:"


def open_recording(
    source: str, hints: Hints, mqtt: str = "", seconds: float = 60.0, progress: Callable[[float], None] | None = None
) -> Recording:
    """A recording from a path, the lake, or from a node's frames as they come. Raises BadInput, DeviceError (nothing came)."""
    if source.startswith(LAKE):
        return read_lake(source, hints)
    if not source.startswith(LIVE):
        return read(Path(source), hints)
    device = parse_device(source.removeprefix(LIVE))
    frames: list[bytes] = []
    arrivals: list[float] = []
    with Broker(mqtt) as broker:
        identity = identity_of(broker.info(device))
        topic = mqtt_topic(device, "frame")
        broker.subscribe(topic)
        first = 0
        for arrival_us, heard, payload in broker.messages(seconds):
            if heard != topic:
                continue
            try:
                parse(payload)
            except FrameError:
                continue
            first = first or arrival_us
            frames.append(payload)
            arrivals.append(arrival_us / 1e6)
            if progress is not None:
                progress((arrival_us - first) / 1e6)
    if not frames:
        raise DeviceError(f"No frame of {device:016x} came within {seconds:g} s: is the node on, and does it publish?")
    return from_frames(frames, np.array(arrivals), identity, source=source)
