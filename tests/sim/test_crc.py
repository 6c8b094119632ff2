"""CRC-32 by tables against zlib's."""

import zlib

import numpy as np
import pytest
from triax_sim.crc import Patch


@pytest.mark.parametrize("size", [1, 9, 273])
def test_patched_checksums_are_zlibs(size):
    rng = np.random.default_rng(size)
    start = min(5, size - 1)
    places = sorted(rng.choice(np.arange(start, size), min(24, size - start), replace=False).tolist())
    template = rng.integers(0, 256, size, dtype=np.uint8)
    template[places] = 0
    rows = np.repeat(template[None], 50, axis=0)
    rows[:, places] = rng.integers(0, 256, (50, len(places)), dtype=np.uint8)
    base = zlib.crc32(template[start:].tobytes())
    found = Patch(size, start, places).of(rows) ^ np.uint32(base)
    assert found.tolist() == [zlib.crc32(row[start:].tobytes()) for row in rows]


def test_a_place_that_is_not_covered():
    with pytest.raises(ValueError, match="not all within"):
        Patch(20, 5, [4, 6])
