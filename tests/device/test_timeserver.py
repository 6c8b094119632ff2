"""UTC over the network: the truth stays within the bound for days, past wraps, bad servers and lost answers."""

import random

import pytest
from triax.errors import LinkError
from triax.timeserver import TimeServer

from .test_sntp import UTC_US, server


class Net:
    """Virtual time, and servers by name."""

    def __init__(self, start_us=0, drift_ppm=0):
        self.true_us = start_us
        self.drift_ppm = drift_ppm
        self.inbox = []
        self.asked = []
        self.behaviour = {"good": {}}
        self.rng = random.Random(5)

    def ticks_us(self):
        return int(self.true_us * (1 + self.drift_ppm / 1e6)) & 0x3FFFFFFF

    def send(self, data, host, port):
        self.asked.append(host)
        behaviour = self.behaviour.get(host)
        if behaviour is None:
            raise LinkError(f"{host}: no such host")
        if behaviour.get("silent"):
            return
        there, back = self.rng.randrange(1000, 80_000), self.rng.randrange(1000, 80_000)
        at = UTC_US + self.true_us + there
        reply = server(at, at, **{"nonce": data[40:], **behaviour})
        self.inbox.append((self.true_us + there + back, reply))

    def receive(self):
        if self.inbox and self.inbox[0][0] <= self.true_us:
            return self.inbox.pop(0)[1]
        return None

    def run(self, clock, seconds, step_us=5000):
        for _ in range(int(seconds * 1e6 / step_us)):
            clock.step()
            self.true_us += step_us
            utc_us = clock.utc_us()
            if utc_us is not None:
                assert abs(utc_us - UTC_US - self.true_us) <= clock.utc_error_us


def make(net, *servers):
    return TimeServer(net, list(servers or ("good",)), net.ticks_us, random.Random(1).randbytes)


@pytest.mark.parametrize("drift_ppm", [-40, 0, 40])
def test_the_truth_is_within_the_bound_also_when_ticks_wrap(drift_ppm):
    net = Net(2**30 - 100_000_000, drift_ppm)
    clock = make(net)
    assert clock.utc_us() is None
    net.run(clock, 2)
    assert clock.utc_us() is not None
    assert clock.utc_error_us < 100_000
    net.run(clock, 3600, 50_000)
    assert clock.exchanges in (62, 63)  # eight in the first two minutes, then one a minute


def test_a_long_silence_widens_the_bound_and_is_right():
    net = Net(drift_ppm=45)
    clock = make(net)
    net.run(clock, 2)
    net.behaviour["good"] = {"silent": True}
    net.run(clock, 5000, 100_000)
    assert clock.exchanges == 1
    assert clock.utc_error_us > 200_000
    assert "no answer" in clock.reason


FAILURES = {
    "no such host": None,
    "no answer": {"silent": True},
    "DENY": {"stratum": 0, "code": b"DENY"},
    "not set": {"first": 0xE4},
}


@pytest.mark.parametrize("what", FAILURES)
def test_another_server_is_asked_when_one_fails(what):
    net = Net()
    net.behaviour["bad"] = FAILURES[what]
    clock = make(net, "bad", "good")
    net.run(clock, 3)
    assert what in clock.reason
    net.run(clock, 6)
    assert net.asked[:2] == ["bad", "good"]
    assert clock.utc_us() is not None


def test_a_socket_that_fails_while_an_answer_is_awaited():
    net = Net()
    clock = make(net)
    clock.step()
    receive, net.receive = net.receive, lambda: (_ for _ in ()).throw(OSError(111, "connection refused"))
    clock.step()
    assert "refused" in clock.reason
    net.receive = receive
    net.run(clock, 6)
    assert clock.utc_us() is not None


def test_retries_back_off():
    net = Net()
    net.behaviour["good"] = {"silent": True}
    clock = make(net)
    net.run(clock, 600, 100_000)
    assert len(net.asked) in (8, 9)


def test_an_answer_to_another_request_is_waited_past():
    net = Net()
    clock = make(net)
    clock.step()
    net.inbox.insert(0, (0, server(UTC_US, UTC_US, nonce=b"xxxxxxxx")))
    net.run(clock, 1)
    assert clock.exchanges == 1


def test_due_tells_when_a_step_may_block():
    net = Net()
    clock = make(net)
    assert clock.due()
    clock.step()
    assert not clock.due()


def test_a_node_without_a_server_to_ask():
    with pytest.raises(ValueError, match="time server"):
        TimeServer(Net(), [], lambda: 0, bytes)
