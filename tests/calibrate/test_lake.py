"""A recording out of the lake is the recording that the frames themselves give."""

from dataclasses import replace

import numpy as np
import pytest
from triax_backend.frames import unpack
from triax_backend.sinks import iceberg, lake_rows
from triax_proto import names
from triax_tools.calibrate.errors import BadInput, DeviceError
from triax_tools.calibrate.lake import read_lake
from triax_tools.calibrate.readers import Hints
from triax_tools.calibrate.recording import Identity, from_frames

from ..backend.build import odd_frame, record, wire
from ..backend.sinks import Place

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]
START_US = 1_790_000_000_000_000
SPAN = "2026-09-21T14:13:20Z/2026-09-21T14:13:22+00:00"  # START_US and two seconds


@pytest.fixture
def place(stack, tmp_path):
    own = Place(stack.settings, tmp_path)
    yield own
    own.close()


def archive(place, pieces, offset):
    one = record(pieces, received_us=START_US + 3_000_000)
    table = iceberg.open_table(iceberg.catalog(place.settings), "frames")
    rows = lake_rows.frames_table(unpack([one]), [one])
    iceberg.append(table, names.FRAMES, rows, {0: offset}, {0: offset + 1}, lambda _: None)


def test_two_seconds_of_one_device_repeats_and_an_odd_frame_included(place):
    frames = place.frames(2, 30, start_us=START_US, first=1)
    pieces = [piece for piece, device in zip(wire(frames), frames["device"], strict=True) if device == place.device]
    like = {name: frames[name][0] for name in ("boot", "samples", "rate_hz", "decimation", "scale_g", "time_us", "time_error_us")}
    odd = odd_frame(device=place.device, sequence=0, first_sample=0, flags=0, lost_samples=0, **like)
    archive(place, [*wire(frames), odd], 0)
    archive(place, pieces[:5], 1)
    device = f"{place.device:016x}"
    found = read_lake(f"lake:{device}@{SPAN}", Hints(), place.settings)
    want = from_frames([odd, *pieces[:19]], np.zeros(20), Identity(device=device))
    assert np.array_equal(found.counts, want.counts)
    assert (found.rate_hz, found.starts, found.identity) == (want.rate_hz, want.starts, want.identity)
    assert found.sequence.tolist() == list(range(20))
    assert set(found.block_arrival_s) == {START_US / 1e6 + 3}
    named = read_lake(f"lake:{device}@{SPAN}", Hints(identity=Identity(part="iis3dwb", sensor_serial="01")), place.settings)
    assert (named.identity.device, named.identity.part, named.identity.sensor_serial) == (device, "iis3dwb", "01")


def test_what_is_not_there_or_asked_wrongly_is_said(place):
    archive(place, wire(place.frames(1, 3, start_us=START_US)), 0)
    with pytest.raises(BadInput, match="no frame of 00000000000000aa in that time"):
        read_lake(f"lake:00000000000000aa@{SPAN}", Hints(), place.settings)
    for span in ("", "2026-09-21", "2026-09-21T14:13:22Z/2026-09-21T14:13:20Z", "2026-09-21T14:13:20/2026-09-21T14:13:22"):
        with pytest.raises(BadInput, match="want lake:<device>@<start>/<end>"):
            read_lake(f"lake:00000000000000aa@{span}", Hints(), place.settings)
    gone = replace(place.settings, postgres="postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(DeviceError, match="The lake does not answer"):
        read_lake(f"lake:00000000000000aa@{SPAN}", Hints(), gone)
