"""FIFO bytes: numpy and the plain loops give the same, and both give what the data sheets show."""

import numpy as np
import pytest
from triax_sim import pack

RNG = np.random.default_rng(3)
WIDE = RNG.integers(-(1 << 19), 1 << 19, (64, 3), dtype=np.int32)
NARROW = RNG.integers(-32768, 32768, (64, 3), dtype=np.int32)
FINE = RNG.integers(-(1 << 17), 1 << 17, (64, 3), dtype=np.int32)
TIMES = list(range(60_000, 60_064))


@pytest.mark.parametrize(
    ("make", "counts"),
    [
        (lambda c: pack.big16(c), NARROW),
        (lambda c: pack.little16(c), NARROW),
        (lambda c: pack.big16_tagged(c, (0, 1, 2)), NARROW),
        (lambda c: pack.big20_marked(c), WIDE),
        (lambda c: pack.tagged_words(c, 5, 2), NARROW),
        (lambda c: pack.packets8(c, 0x40, 17), NARROW),
        (lambda c: pack.packets16(c, 0x68, -32768, 17, TIMES), NARROW),
        (lambda c: pack.packets20(c, 0x70, 0, 1717, None), FINE),
        (lambda c: pack.big16(pack.with_column(pack.select(c, (0, 2)), 2, 9120)), NARROW),
        (lambda c: pack.big16(pack.shifted(c, (5, -7, 40000), -32768, 32767)), NARROW),
        (lambda c: pack.big16(pack.rows(c, [3, 3, 4, 0])), NARROW),
        (lambda c: pack.big16(pack.filled(c, -32768)), NARROW),
        (lambda c: bytes([pack.length(c)]), NARROW),
    ],
)
def test_arrays_and_plain_lists_give_the_same_bytes(make, counts):
    assert make(counts) == make(counts.reshape(-1).tolist())


def test_the_kernel_documents_sample_set():
    """X -2073, Y 168, Z -1083, T 584 are the words F7E7 00A8 FBC5 2480 in Linux's ADXL380 document."""
    counts = np.array([[-2073, 168, -1083]], dtype=np.int32)
    assert pack.big16(pack.with_column(counts, 3, 584 << 4)) == bytes.fromhex("f7e700a8fbc52480")


def test_tags_count_and_have_even_parity():
    words = np.frombuffer(pack.tagged_words(NARROW[:8], 2, 2), dtype=np.uint8).reshape(8, 7)
    assert [tag >> 3 for tag in words[:, 0]] == [2] * 8
    assert [tag >> 1 & 3 for tag in words[:, 0]] == [2, 3, 0, 1, 2, 3, 0, 1]
    assert all(int(tag).bit_count() % 2 == 0 for tag in words[:, 0])


def test_twenty_bits_left_justified_with_an_x_mark():
    assert pack.big20_marked(np.array([[1, -1, -(1 << 19)]])) == bytes.fromhex("000011 fffff0 800000".replace(" ", ""))


def test_twenty_bit_packet_splits_values():
    """18 bits at the top of 20: bits 19:4 in front, 3:0 in the high half of the last three bytes."""
    packet = pack.packets20(np.array([[0x12345 >> 2, -1, 0]]), 0x78, 0, 0, [0x0102])
    assert packet[0] == 0x78
    assert packet[1:7] == bytes.fromhex("1234ffff0000")
    assert packet[15:17] == b"\x01\x02"
    assert packet[17:] == bytes([0x40, 0xC0, 0x00])
