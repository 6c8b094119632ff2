"""Every frame that was made is recorded once, whatever connections and acknowledgements do."""

from types import SimpleNamespace

import numpy as np
import pytest
from triax_sim.flight import BACK, LIVE, Flight, packet_ids

DEVICES, WINDOW = 3, 4


class Ledger:
    def __init__(self):
        self.rows = []

    def add(self, device, boot, sequence, checksum, qos, due, sent, acked):
        self.rows += zip(device.tolist(), sequence.tolist(), (sent > 0).tolist(), (acked > 0).tolist(), strict=True)


def people():
    zeros = np.zeros(DEVICES, np.int64)
    return SimpleNamespace(
        count=DEVICES,
        device=np.arange(DEVICES),
        qos=np.ones(DEVICES, np.int64),
        window=np.full(DEVICES, WINDOW),
        spool=np.full(DEVICES, 10_000),
        due_us=lambda who, number: number * 100_000,
        identity=lambda who, number: (zeros[who], number),
        checksums=lambda who, number: number.astype(np.uint32),
    )


@pytest.mark.parametrize("seed", range(30))
def test_each_frame_is_recorded_once(seed):
    """Acknowledgements come several at a time and out of order; connections end with frames of both lanes in flight."""
    rng = np.random.default_rng(seed)
    ledger = Ledger()
    flight = Flight(people(), ledger)
    wire = [[] for _ in range(DEVICES)]  # (lane, number) that the server has and not acknowledged
    ready = np.zeros(DEVICES, bool)
    now = 0

    def send(lane):
        who = flight.waiting(lane, ready)
        number = flight.send[lane, who]
        flight.sent(lane, who, number, number.astype(np.uint32), np.full(len(who), now))
        for device, frame in zip(who.tolist(), number.tolist(), strict=True):
            wire[device].append((lane, frame))

    def acknowledge(most):
        told = [
            (device, int(packet_ids(lane, np.int64(number))))
            for device in range(DEVICES)
            for lane, number in [
                wire[device].pop(int(rng.integers(len(wire[device])))) for _ in range(min(most, len(wire[device])))
            ]
        ]
        if told:
            who, packet_id = np.array(told).T
            flight.acks(who, packet_id, now, once=len(set(who.tolist())) == len(who))

    def reconnect(device):
        wire[device].clear()
        flight.connected(device)
        ready[device] = True

    for _ in range(400):
        now += 10_000
        flight.due += 1 if rng.random() < 0.5 else 0
        send(LIVE)
        if rng.random() < 0.3:
            send(BACK)
        acknowledge(int(rng.integers(0, WINDOW + 1)))
        if rng.random() < 0.2:
            device = int(rng.integers(DEVICES))
            ready[device] = False
            wire[device].clear()
            if rng.random() < 0.5:
                reconnect(device)
        for device in np.flatnonzero(~ready).tolist():
            if rng.random() < 0.2:
                reconnect(device)
    for device in range(DEVICES):
        reconnect(device)
    for _ in range(400):
        send(LIVE)
        send(BACK)
        acknowledge(WINDOW)
    assert not flight.depth().any()
    flight.flush()
    made = [(device, number, True, True) for device in range(DEVICES) for number in range(int(flight.due[device]))]
    assert sorted(ledger.rows) == made
    assert len(made) > 200
    assert flight.stray == 0


def test_one_frame_that_is_never_acked_stops_its_device_and_is_not_forgotten():
    """MQTT servers answer in order; one that leaves a PUBLISH out must not make us forget it when the window has gone round."""
    ledger = Ledger()
    flight = Flight(people(), ledger)
    ready = np.ones(DEVICES, bool)

    def turn(now, answered):
        flight.due += 1
        while (who := flight.waiting(LIVE, ready)).size:
            number = flight.send[LIVE, who]
            flight.sent(LIVE, who, number, number.astype(np.uint32), np.full(len(who), now))
            told = answered(who, number)
            flight.acks(who[told], packet_ids(LIVE, number[told]), now, once=True)

    for now in range(1, 301):
        turn(now, lambda who, number: (who != 1) | (number != 5))
    assert flight.send[LIVE].tolist() == [300, 5 + 2 * WINDOW, 300]
    assert flight.stuck(10_000, 9_000).tolist() == [1]
    flight.connected(1)
    for lane in (BACK, LIVE) * 300:
        who = flight.waiting(lane, ready)
        number = flight.send[lane, who]
        flight.sent(lane, who, number, number.astype(np.uint32), np.full(len(who), 400))
        flight.acks(who, packet_ids(lane, number), 400, once=True)
    flight.flush()
    assert sorted(ledger.rows) == [(device, number, True, True) for device in range(DEVICES) for number in range(300)]
    assert flight.resent == [(1, 5)]
