"""Replies of many servers at once: whole, in pieces, several together, with other packets between."""

import numpy as np
import pytest
from triax_sim.listener import Listener
from triax_sim.packet import publish


class FakeLinks:
    """Connections that are all up."""

    def __init__(self, count):
        self.state = np.full(count, 5, np.uint8)
        self.ready = np.ones(count, bool)
        self.closed = []
        self.said = []

    def close(self, device, now):
        self.closed.append(device)

    def say(self, device, packet, now):
        self.said.append((device, packet))
        return True


class FakeFlight:
    """Keeps what it was told."""

    def __init__(self):
        self.told = []
        self.late = np.empty(0, np.int64)

    def acks(self, who, packet_id, now, once):
        self.told += list(zip(who.tolist(), packet_id.tolist(), strict=True))

    def stuck(self, now, timeout_us):
        return self.late


def ack(number):
    return b"\x40\x02" + number.to_bytes(2, "big")


@pytest.fixture
def heard():
    links, flight = FakeLinks(4), FakeFlight()
    return Listener(links, flight, np.full(4, 60_000_000), 1), links, flight


def test_one_each_several_and_none(heard):
    listener, _, flight = heard
    listener.hear([], [], 1)
    listener.hear([0, 2], [ack(7), ack(300)], 1)
    listener.hear([1, 3], [ack(1) + ack(2), ack(9)], 1)
    assert flight.told == [(0, 7), (2, 300), (1, 1), (1, 2), (3, 9)]


def test_byte_by_byte_and_with_what_comes_after(heard):
    listener, _, flight = heard
    for byte in ack(515):
        listener.hear([1], [bytes([byte])], 1)
    listener.hear([1, 2], [ack(5) + ack(6)[:3], ack(4)], 1)
    listener.hear([1], [ack(6)[3:]], 1)
    assert flight.told == [(1, 515), (1, 5), (2, 4), (1, 6)]


def test_other_packets_between(heard):
    listener, links, flight = heard
    config = publish("triax/v1/0200000000000000/config", b"x" * 20)
    listener.hear([0, 1], [b"\xd0\x00" + ack(3), config + ack(4)], 1)
    listener.hear([0], [b"\xd0\x00" + b"\xd0\x00"], 1)  # four bytes and no PUBACK
    assert flight.told == [(0, 3), (1, 4)]
    assert not links.closed


def test_nonsense_closes_the_connection(heard):
    listener, links, flight = heard
    listener.hear([0, 1], [b"\x40\xff\xff\xff\xff\x01", ack(4)], 1)
    assert links.closed == [0]
    assert flight.told == [(1, 4)]


def test_silence(heard):
    listener, links, flight = heard
    flight.late = np.array([3])
    listener.begin(0)
    listener.chores(60_000_001)
    assert links.closed == [3]
    assert {device for device, _ in links.said} == {0, 1, 2, 3}
    listener.hear([0, 1, 2], [b"\xd0\x00"] * 3, 60_100_000)
    flight.late = np.empty(0, np.int64)
    listener.chores(120_000_002)
    assert links.closed == [3, 3]  # owes an answer to its ping
