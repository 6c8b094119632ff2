"""The loop around a node: how long it rests, what shortens the rest, and how a program on probation is left."""

import types

import pytest
from triax import main
from triax.bus import SpiDevice
from triax.config import DEFAULTS
from triax.update import Probation, Slots

from .node_rig import Store


class Node:
    """Stops after some steps, or when it is told to."""

    def __init__(self, steps=5):
        self.steps, self.stopped, self.started = steps, False, 0
        self.now_ms, self.acked = 0, 0
        part = types.SimpleNamespace(FIFO_SETS=512)
        settings = types.SimpleNamespace(values={**DEFAULTS, "odr_hz": 26667})
        self.channels = [types.SimpleNamespace(part=part, configuration=settings)]

    def start(self):
        self.started += 1

    def step(self):
        self.steps -= 1
        self.now_ms += 60_000
        self.stopped = self.steps <= 0

    def stop(self):
        self.stopped = True

    def connected(self):
        return True

    def measures(self):
        return True


class Port:
    def __init__(self):
        self.rests = []

    def wait(self, us):
        self.rests.append(us)


def test_the_loop_rests_an_eighth_of_a_fifo():
    node, port = Node(), Port()
    main.loop(node, port, [])
    assert node.started == 1
    assert port.rests == [2399] * 5
    assert main.wait_us(node.channels) == int(512e6 / 26667) // 8


def test_a_raised_interrupt_line_leaves_no_rest():
    port = Port()
    main.loop(Node(), port, [lambda: False, lambda: True])
    assert port.rests == []


def test_a_program_that_stays_dumb_on_probation_is_left():
    slots = Slots(Store())
    slots.trial, slots.active = True, 1
    node = Node(steps=100)
    main.loop(node, Port(), [], Probation(slots, 0))
    assert node.steps > 60
    assert (slots.trial, slots.active) == (False, 0)


@pytest.mark.parametrize("frames", [100, 1000])
def test_channels_of_settings(tmp_path, frames):
    asked = []

    class Hardware:
        def device(self, sensor, part):
            asked.append(part.NAME)
            return SpiDevice(None, lambda level: None, lambda us: None)

        def files(self, name):
            from triax.ports.disk import Files

            return Files(str(tmp_path / name))

    sensor = {"device": "0011223344556677", "part": "adxl355", "range_g": 2, "odr_hz": 1000, "qos": 0}
    channel = main._channel(sensor, Hardware(), {"frames": frames, "files": True, "keep_newest": False})
    assert channel.device == 0x0011223344556677
    assert channel.frames.spool.slots == (100 if frames == 100 else 768)
    assert asked == ["adxl355"]
    with pytest.raises(main.BadSetting, match="want 16 hex digits"):
        main._channel({**sensor, "device": "12"}, Hardware(), {})
    with pytest.raises(main.BadSetting, match="no range_g"):
        main._channel({k: v for k, v in sensor.items() if k != "range_g"}, Hardware(), {})
