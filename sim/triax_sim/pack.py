"""Sample counts to the bytes that parts put into their FIFOs, a whole block at once.

Counts come as a numpy array (count, columns), or, where numpy is absent (MicroPython), as one flat sequence in the same order;
both give the same bytes. Layouts: facts of each part, stated at the part that uses them.
"""

try:
    import numpy as np
except ImportError:  # MicroPython: the loops below do the same, value by value
    np = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "big16",
    "big16_tagged",
    "big20_marked",
    "even_parity",
    "filled",
    "length",
    "little16",
    "packets16",
    "packets20",
    "packets8",
    "rows",
    "select",
    "shifted",
    "tagged_words",
    "with_column",
]


def _is_array(counts: "Any") -> bool:
    return hasattr(counts, "astype")


def shifted(counts: "Any", shift: "tuple[int, int, int]", low: int, high: int) -> "Any":
    """Counts of three axes plus a constant each (offset register, self-test deflection), clipped to the part's codes."""
    if shift == (0, 0, 0):
        return counts
    if _is_array(counts):
        return np.clip(counts + np.asarray(shift, dtype=np.int32), low, high)
    return [min(max(value + shift[i % 3], low), high) for i, value in enumerate(counts)]


def select(counts: "Any", columns: "tuple[int, ...]") -> "Any":
    """Some of the three axes, in the order named."""
    if columns == (0, 1, 2):
        return counts
    if _is_array(counts):
        return counts[:, list(columns)]
    return [counts[row + column] for row in range(0, len(counts), 3) for column in columns]


def with_column(counts: "Any", width: int, value: int) -> "Any":
    """One more column holding a constant (a temperature) after the `width` columns there are."""
    if _is_array(counts):
        return np.column_stack([counts, np.full(len(counts), value, dtype=np.int32)])
    wider: list[int] = []
    for row in range(0, len(counts), width):
        wider.extend(counts[row : row + width])
        wider.append(value)
    return wider


def big16(counts: "Any") -> bytes:
    """Two bytes a value, high byte first."""
    if _is_array(counts):
        return bytes(counts.astype(">i2").tobytes())
    out = bytearray(2 * len(counts))
    for i, value in enumerate(counts):
        out[2 * i] = (value >> 8) & 0xFF
        out[2 * i + 1] = value & 0xFF
    return bytes(out)


def little16(counts: "Any") -> bytes:
    """Two bytes a value, low byte first."""
    if _is_array(counts):
        return bytes(counts.astype("<i2").tobytes())
    out = bytearray(2 * len(counts))
    for i, value in enumerate(counts):
        out[2 * i] = value & 0xFF
        out[2 * i + 1] = (value >> 8) & 0xFF
    return bytes(out)


def big16_tagged(counts: "Any", tags: "tuple[int, ...]") -> bytes:
    """Three bytes a value: the channel number of its column, then the value high byte first (ADXL38x with channel ids)."""
    if _is_array(counts):
        rows = np.empty((len(counts), len(tags), 3), dtype=np.uint8)
        rows[:, :, 0] = tags
        rows[:, :, 1] = counts >> 8
        rows[:, :, 2] = counts
        return rows.tobytes()
    out = bytearray(3 * len(counts))
    for i, value in enumerate(counts):
        out[3 * i] = tags[i % len(tags)]
        out[3 * i + 1] = (value >> 8) & 0xFF
        out[3 * i + 2] = value & 0xFF
    return bytes(out)


def big20_marked(counts: "Any") -> bytes:
    """Three bytes a value of 20 bits, left justified, high byte first; bit 0 of the last byte marks X (ADXL355)."""
    if _is_array(counts):
        rows = np.empty((len(counts), 3, 3), dtype=np.uint8)
        rows[:, :, 0] = counts >> 12
        rows[:, :, 1] = counts >> 4
        rows[:, :, 2] = counts << 4
        rows[:, 0, 2] |= 1
        return rows.tobytes()
    out = bytearray(3 * len(counts))
    for i, value in enumerate(counts):
        out[3 * i] = (value >> 12) & 0xFF
        out[3 * i + 1] = (value >> 4) & 0xFF
        out[3 * i + 2] = ((value << 4) & 0xF0) | (i % 3 == 0)
    return bytes(out)


def even_parity(tag: int) -> int:
    """The tag with bit 0 set so that the number of ones is even."""
    ones = 0
    bits = tag & 0xFE
    while bits:
        ones += bits & 1
        bits >>= 1
    return (tag & 0xFE) | (ones & 1)


def tagged_words(counts: "Any", first: int, sensor: int) -> bytes:
    """Seven bytes a set: tag (sensor number, two bits counting sets, even parity), then x, y, z low byte first (IIS3DWB)."""
    tags = bytes([even_parity(sensor << 3 | (first + i) % 4 << 1) for i in range(4)])
    if _is_array(counts):
        rows = np.empty((len(counts), 7), dtype=np.uint8)
        for i in range(4):
            rows[i::4, 0] = tags[i]
        rows[:, 1:] = counts.astype("<i2").view(np.uint8).reshape(len(counts), 6)
        return rows.tobytes()
    body = little16(counts)
    out = bytearray()
    for i in range(len(body) // 6):
        out.append(tags[i % 4])
        out.extend(body[6 * i : 6 * i + 6])
    return bytes(out)


def length(counts: "Any") -> int:
    """Sets in counts of three axes."""
    return len(counts) if _is_array(counts) else len(counts) // 3


def rows(counts: "Any", chosen: "list[int]") -> "Any":
    """The sets with these numbers, repeats included."""
    if _is_array(counts):
        return counts[chosen]
    return [counts[3 * row + axis] for row in chosen for axis in range(3)]


def filled(counts: "Any", value: int) -> "Any":
    """As many sets, all of one value."""
    return np.full_like(counts, value) if _is_array(counts) else [value] * len(counts)


def packets8(counts: "Any", head: int, temperature: int) -> bytes:
    """Eight bytes a set: header, x, y, z high byte first, temperature (ICM-42688-P, one sensor)."""
    if _is_array(counts):
        table = np.empty((len(counts), 8), dtype=np.uint8)
        table[:, 0] = head
        table[:, 1:7] = counts.astype(">i2").view(np.uint8).reshape(len(counts), 6)
        table[:, 7] = temperature
        return table.tobytes()
    body = big16(counts)
    return b"".join(bytes((head,)) + body[i : i + 6] + bytes((temperature,)) for i in range(0, len(body), 6))


def _word(value: int) -> bytes:
    return bytes((value >> 8 & 0xFF, value & 0xFF))


def packets16(counts: "Any", head: int, gyro: int, temperature: int, times: "list[int] | None") -> bytes:
    """Sixteen bytes a set: header, acceleration, gyro (one value for all axes), temperature, time (ICM-42688-P, both sensors)."""
    count = length(counts)
    body = big16(counts)
    tail = _word(gyro) * 3 + bytes((temperature,))
    stamps = times or [0] * count
    return b"".join(bytes((head,)) + body[6 * i : 6 * i + 6] + tail + _word(stamps[i]) for i in range(count))


def packets20(counts: "Any", head: int, gyro: int, temperature: int, times: "list[int] | None") -> bytes:
    """Twenty bytes a set: as sixteen, of 20 bits whose last four stand in three bytes at the end, acceleration in the high half.

    Counts have 18 bits and stand at the top of the 20.
    """
    count = length(counts)
    flat = [int(value) << 2 for value in (counts.reshape(-1) if _is_array(counts) else counts)]
    body = big16([value >> 4 for value in flat])
    tail = _word(gyro) * 3 + _word(temperature)
    stamps = times or [0] * count
    packets = []
    for i in range(count):
        low = bytes([(value & 0x0F) << 4 for value in flat[3 * i : 3 * i + 3]])
        packets.append(bytes((head,)) + body[6 * i : 6 * i + 6] + tail + _word(stamps[i]) + low)
    return b"".join(packets)
