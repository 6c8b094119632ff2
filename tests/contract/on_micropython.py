"""The heart of the contract, on MicroPython: driver and twin both run there. PAIRS is put in front by who starts this.

Prints one line of JSON: for each pair "ok" or what went wrong.
"""

import json
import sys
from array import array

from triax.chips import FAIL, NOT_MEASURED, PASS, TEMPERATURE_NONE
from triax.errors import WrongPart
from triax_sim import chips
from triax_sim.wiring import connect
from triax_sim.world import World


class Pattern:
    """x and y are the digits of the sample's number in steps of 2, z swings between the extreme codes."""

    constant = None

    def begin(self, first, start_us, rate_hz, lsb_per_g, low, high):
        self.low, self.high, self.rate_hz, self.lsb_per_g = low, high, rate_hz, lsb_per_g
        self.base = min((high - low) // 2, 1 << 15) - 2

    def __call__(self, first, count):
        if self.constant is not None:
            return array("i", [{"low": self.low, "high": self.high, "zero": 0}[self.constant]] * (3 * count))
        low, base = self.low + 2, self.base
        out = array("i", bytes(12 * count))
        for n in range(count):
            i = first + n
            out[3 * n] = low + 2 * (i % base)
            out[3 * n + 1] = low + 2 * (i // base % base)
            out[3 * n + 2] = self.high if i % 2 else self.low
        return out

    def number(self, out, at):
        low = self.low + 2
        return (out[3 * at] - low) // 2 + (out[3 * at + 1] - low) // 2 * self.base


class Rig:
    def __init__(self, name, kind):
        module = sys.modules.get("triax.chips." + name) or __import__("triax.chips." + name, None, None, ["x"])
        self.driver = next(c for c in module.__dict__.values() if isinstance(c, type) and getattr(c, "NAME", "") == name)
        self.world = World(1_000_000)
        self.source = Pattern()
        self.twin = chips.load(name)(self.world, self.source, ppm=3000.0)
        self.bus, self.device = connect(self.world, self.twin, kind)
        self.part = self.driver(self.device)
        self.out = array("i", bytes(12 * self.part.FIFO_SETS))
        byte_us = self.bus._byte_ns / 1000
        self.fastest_hz = max([hz for hz in self.driver.ODRS_HZ if hz * (self.part.SET_BYTES + 1) * byte_us < 0.5e6])
        self.gaps = 0

    def up(self, watermark=0):
        self.part.check()
        self.part.reset()
        self.part.configure(self.driver.RANGES_G[-1], self.fastest_hz)
        self.part.start(watermark or self.part.FIFO_SETS // 2)
        self.world.advance_to(self.twin.epoch.time_of(1))

    def wait(self, sets):
        self.world.advance(int(sets * 1e6 / self.part.odr_hz))

    def read(self):
        numbers = []
        self.part.level()
        while True:
            sets = self.part.read_fifo(self.out)
            self.gaps += self.part.gap != 0
            if not sets:
                return numbers
            numbers += [self.source.number(self.out, at) for at in range(sets)]


def must(condition, text):
    if not condition:
        raise ValueError(text)


def follow(numbers):
    return numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def identity(rig):
    rig.part.check()
    address, value = next(iter(rig.twin.IDENTITY.items()))
    rig.twin.planted = {address: value ^ 0xC0}
    try:
        rig.part.check()
    except WrongPart:
        return
    raise ValueError("a wrong part was taken")


def ranges_and_rates(rig):
    settings = [(range_g, rig.fastest_hz) for range_g in rig.driver.RANGES_G]
    settings += [(rig.driver.RANGES_G[-1], odr_hz) for odr_hz in rig.driver.ODRS_HZ]
    for range_g, odr_hz in settings:
        rig.part.reset()
        rig.part.configure(range_g, odr_hz)
        rig.part.start(1)
        rig.world.advance_to(rig.twin.epoch.time_of(4))
        numbers = rig.read()
        must(len(numbers) >= 4 and follow(numbers), f"{numbers[:6]} at {range_g} g, {odr_hz} Hz")
        must(abs(rig.source.lsb_per_g * rig.part.scale_g - 1) < 2e-3, f"scale at {range_g} g")
        rig.part.stop()


def wrap(rig):
    rig.up()
    numbers = []
    share = 0
    while len(numbers) < 3 * rig.part.FIFO_SETS:
        share = (share * 7 + 11) % 60
        rig.wait(1 + share * rig.part.FIFO_SETS // 100)
        numbers += rig.read()
    must(follow(numbers) and not rig.gaps, "lost in the wrap")


def overrun(rig):
    rig.up()
    numbers = rig.read()
    before = rig.twin.truth.lost
    rig.wait(2.3 * rig.part.FIFO_SETS)
    for _ in range(4):
        numbers += rig.read()
        rig.wait(0.3 * rig.part.FIFO_SETS)
    steps = [numbers[n + 1] - numbers[n] for n in range(len(numbers) - 1)]
    must(rig.gaps and min(steps) >= 1, "overrun not told or out of order")
    lost, truth = sum(steps) - len(steps), rig.twin.truth.lost - before
    must(lost == truth, f"{lost} are missing, the part knows of {truth}")


def saturation(rig):
    for which in ("low", "high"):
        rig.source.constant = which
        rig.up()
        rig.wait(3)
        rig.part.level()
        sets = rig.part.read_fifo(rig.out)
        clip = rig.part.clip_low if which == "low" else rig.part.clip_high
        must(sets and set(rig.out[: 3 * sets]) == {clip}, f"{rig.out[0]} is no clip code")
        rig.part.stop()


def reset(rig):
    fresh = bytes(rig.twin.registers)
    rig.up()
    rig.part.stop()
    rig.part.reset()
    must(bytes(rig.twin.registers) == fresh, "registers after reset")


def watermark(rig):
    sets = rig.part.FIFO_SETS // 3
    rig.up(sets)
    when = rig.twin.watermark_us()
    if when is None:
        must(rig.part.NAME == "mpu6050", "no watermark")  # it has none: the level must do
        return
    pin = getattr(rig.twin, "int0", rig.twin.int1)
    idle = pin()
    rig.world.advance_to(when)
    must(pin() != idle and rig.part.level() >= sets, "the pin does not rise at the watermark")


def stop_and_start(rig):
    rig.up()
    rig.wait(5)
    rig.part.stop()
    made = rig.twin.truth.made
    rig.wait(5)
    must(rig.part.level() == 0 and rig.twin.truth.made == made, "it goes on measuring")
    rig.part.start(4)
    rig.world.advance_to(rig.twin.epoch.time_of(5))
    must(rig.read()[0] >= made, "old samples after a start")


def recovery(rig):
    rig.up()
    rig.twin.power_dip()
    rig.world.advance(rig.twin.DIP_US)
    must(rig.part.recover() is True, "a lost configuration was not seen")
    rig.world.advance_to(rig.twin.epoch.time_of(5))
    numbers = rig.read()
    must(len(numbers) >= 4 and follow(numbers), "no samples after recovery")
    rig.bus.faults.stuck = 0
    try:
        rig.part.check()
    except (WrongPart, OSError):
        rig.bus.faults.stuck = None
        return
    raise ValueError("a stuck bus is no part")


def temperature(rig):
    rig.twin.temperature_c = 40.0
    rig.up()
    reading = rig.part.temperature_mc()
    if rig.driver.TEMPERATURE_CLASS == TEMPERATURE_NONE:
        must(reading == NOT_MEASURED, "a temperature from nowhere")
    elif reading != NOT_MEASURED:
        must(abs(reading - 40000) <= 2500, f"{reading} at 40 degrees")


def self_test(rig):
    rig.source.constant = "zero"
    rig.part.check()
    rig.part.reset()
    rig.part.configure(rig.driver.RANGES_G[-1], rig.driver.ODRS_HZ[-1])
    before = bytes(rig.twin.registers)
    for wanted in (PASS, FAIL):
        result = rig.part.self_test()
        must(bytes(rig.twin.registers) == before, "registers after the self-test")
        must(result == wanted, f"{result}: {rig.part.self_test_reason}")
        rig.twin.SELF_TEST_G = 0.0 if isinstance(rig.twin.SELF_TEST_G, float) else (0.0, 0.0, 0.0)


CHECKS = (
    identity,
    ranges_and_rates,
    wrap,
    overrun,
    saturation,
    reset,
    watermark,
    stop_and_start,
    recovery,
    temperature,
    self_test,
)


def contract(name, kind):
    for check in CHECKS:
        rig = Rig(name, kind)
        try:
            check(rig)
            must(rig.twin.refusals == [], str(rig.twin.refusals[:2]))
        except Exception as error:  # what went wrong is the result
            return f"{check.__name__}: {error!r}"
    return "ok"


print(json.dumps({name + "-" + kind: contract(name, kind) for name, kind in PAIRS}))  # noqa: F821
