"""What the kernels of all kinds share: the state of `fold` and the table of the CRC."""

from array import array

# Indices into the state of `fold`, array("i") of STATE_WORDS.
DECIMATION, VALUES, FILL, DONE, SAMPLES, SUM, MINIMUM, MAXIMUM, SQUARES = 0, 1, 2, 3, 4, 5, 8, 11, 14
STATE_WORDS = 23  # SQUARES: three pieces an axis, 20 + 20 + 24 bits, lowest first
NO_MINIMUM = 0x1FFFFFFF  # above any count


def _crc_tables() -> tuple:
    """Low and high halves of the table of zlib's CRC-32 (polynomial 0xEDB88320, reflected)."""
    low = array("H", bytes(512))
    high = array("H", bytes(512))
    for i in range(256):
        lo, hi = i, 0
        for _ in range(8):
            odd = lo & 1
            lo = lo >> 1 | (hi & 1) << 15
            hi >>= 1
            if odd:
                lo ^= 0x8320
                hi ^= 0xEDB8
        low[i] = lo
        high[i] = hi
    return low, high


CRC_LOW, CRC_HIGH = _crc_tables()
del _crc_tables
