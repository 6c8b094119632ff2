"""One connection: what ends it, and what is said then."""

import pytest
from triax.connection import LOST, OPEN, OPENING, RESTING, Connection
from triax.mqtt import NOTHING, Publisher

SETTINGS = {"host": "broker", "port": 1883, "tls": False}


class Link:
    """`opens`: what connected() says; `inbox`: what the broker sends."""

    blocks = True

    def __init__(self, opens=True, at_once=False):
        self.opens, self.at_once, self.inbox, self.closed = opens, at_once, b"", 0

    def connect(self, host, port, tls):
        return not self.at_once

    def connected(self):
        return self.opens

    def send(self, buffer, count):
        return count

    def readinto(self, buffer):
        data, self.inbox = self.inbox[: len(buffer)], self.inbox[len(buffer) :]
        buffer[: len(data)] = data
        return len(data) or None

    def close(self):
        self.closed += 1


def opened(link):
    connection = Connection(link, Publisher("x"), lambda limit: 1000)
    connection.use(SETTINGS)
    assert connection.about_to_block(0)
    connection.step(0)
    return connection


@pytest.mark.parametrize("at_once", [True, False])
def test_a_link_that_is_open_at_once_or_later(at_once):
    connection = opened(Link(at_once=at_once))
    assert connection.state == (OPEN if at_once else OPENING)
    connection.step(1)
    assert connection.state == OPEN


def test_a_link_that_says_neither_yes_nor_no_is_given_up_after_30_s():
    link = Link(opens=False)
    connection = opened(link)
    assert connection.step(29_999) == NOTHING
    assert connection.step(30_000) == LOST
    assert (connection.state, connection.reason) == (RESTING, "no connection within 30 s")
    assert link.closed
    assert not connection.about_to_block(30_000)  # it rests for the second that the dice gave
    assert connection.about_to_block(31_000)


def test_a_broker_that_breaks_the_protocol_is_left_and_named():
    link = Link(at_once=True)
    connection = opened(link)
    link.inbox = b"\x30\x04\x00\x01tx"  # a message before CONNACK
    assert connection.step(10) == LOST
    assert connection.reason.startswith("the broker broke MQTT: ")
    assert connection.state == RESTING
