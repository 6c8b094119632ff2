"""Registers of virtual parts beside the FIFO: data, temperature, data ready, self-test, pins."""

import numpy as np
import pytest

from .twin_bench import START, Bench, started


@pytest.mark.parametrize(
    ("name", "changes", "address", "size", "order", "shift"),
    [
        ("adxl382", {0x30: 0}, 0x15, 2, "big", 0),
        ("iis3dwb", {0x0A: 0}, 0x28, 2, "little", 0),
        ("adxl355", {}, 0x08, 3, "big", 4),
        ("adxl345", {0x2C: 0x0D, 0x38: 0}, 0x32, 2, "little", 0),
        ("mpu6050", {0x6A: 0}, 0x3B, 2, "big", 0),
        ("icm42688p", {0x16: 0}, 0x1F, 2, "big", 0),
        ("lis3dh", {0x24: 0}, 0x28, 2, "little", 4),
        ("lis2dw12", {0x2E: 0}, 0x28, 2, "little", 2),
    ],
)
def test_data_registers_show_the_newest_sample(name, changes, address, size, order, shift):
    bench = Bench(name)
    bench.write(*[(register, changes.get(register, value)) for register, value in START[name]])
    bench.wait(38)
    burst = bench.read(address, 3 * size)
    assert burst == b"".join(bench.read(address + i) for i in range(3 * size))
    values = [int.from_bytes(burst[i : i + size], order, signed=True) >> shift for i in range(0, 3 * size, size)]
    assert values == [37, 1037, 2037]
    assert bench.part.refusals == []


@pytest.mark.parametrize(
    ("name", "address", "size", "order", "code"),
    [
        ("iis3dwb", 0x20, 2, "little", 10 * 256),
        ("adxl355", 0x06, 2, "big", 1794),
        ("mpu6050", 0x41, 2, "big", round(-1.53 * 340)),
        ("icm42688p", 0x1D, 2, "big", round(10 * 132.48)),
        ("lis3dh", 0x0C, 2, "little", 40 << 6),
        ("lis2dw12", 0x0D, 2, "little", 10 * 256),
        ("lis2dw12", 0x26, 1, "little", 10),
    ],
)
def test_temperature_registers(name, address, size, order, code):
    bench = started(name)
    bench.part.temperature_c = 35.0
    if name == "lis3dh":
        assert bench.read(address, size) == bytes(size), "off until it is switched on"
        bench.write((0x1F, 0xC0))
    assert int.from_bytes(bench.read(address, size), order, signed=True) == code


@pytest.mark.parametrize(
    ("name", "address", "mask", "data"),
    [
        ("adxl382", 0x14, 0x01, 0x15),
        ("iis3dwb", 0x1E, 0x01, 0x28),
        ("adxl355", 0x04, 0x01, 0x08),
        ("adxl345", 0x30, 0x80, 0x32),
        ("icm42688p", 0x2D, 0x08, None),
        ("mpu6050", 0x3A, 0x01, None),
        ("lis3dh", 0x27, 0x08, 0x28),
        ("lis2dw12", 0x27, 0x01, 0x28),
    ],
)
def test_data_ready_comes_with_a_sample_and_goes_when_it_is_read(name, address, mask, data):
    bench = Bench(name)
    bypass = {0x38: 0} if name == "adxl345" else {0x24: 0} if name == "lis3dh" else {0x2E: 0} if name == "lis2dw12" else {}
    bench.write(*[(register, bypass.get(register, value)) for register, value in START[name]])
    bench.wait(1)
    if data is None:
        assert bench.read(address)[0] & mask, "and this read clears it"
    else:
        assert bench.read(address)[0] & mask
        bench.read(data, 6)
    assert not bench.read(address)[0] & mask


@pytest.mark.parametrize(
    ("name", "test", "deflection_g"),
    [
        ("adxl382", [(0x38, 0xC0)], (1.8, 1.8, 1.5)),
        ("adxl382", [(0x38, 0xE0)], (-1.8, -1.8, -1.5)),
        ("iis3dwb", [(0x14, 0x01)], (1.5, 1.5, 1.5)),
        ("iis3dwb", [(0x14, 0x02)], (-1.5, -1.5, -1.5)),
        ("adxl355", [(0x2E, 0x03)], (0.3, 0.3, 1.5)),
        ("lis3dh", [(0x23, 0x3A)], (0.2, 0.2, 0.2)),
        ("lis2dw12", [(0x22, 0x40)], (0.5, 0.5, 0.5)),
        ("adxl345", [(0x31, 0x8B)], (2.0, -2.0, 2.7)),
        ("mpu6050", [(0x1C, 0xF8)], (0.489770, 0.578154, 0.705514)),  # what the factory codes 12, 17, 23 stand for
        ("icm42688p", [(0x70, 0x78)], (0.482563, 0.445639, 0.582988)),  # codes 112, 104, 131
        ("icm42688p", [(0x70, 0x38)], (0.0, 0.0, 0.0)),  # without its supply
    ],
)
def test_self_test_deflects_from_its_moment_on(name, test, deflection_g):
    bench = started(name, source=lambda first, count: np.zeros((count, 3), dtype=np.int32))
    bench.wait(3)
    before = bench.part.latest()
    bench.write(*test)
    scale = bench.part._lsb_per_g()
    bench.wait(1)
    assert before == (0, 0, 0)
    assert bench.part.latest() == tuple(round(g * scale) for g in deflection_g)
    assert bench.part.refusals == []


def test_data_ready_pins():
    for name, route, pin in (
        ("adxl345", [(0x2E, 0x80)], "int1"),
        ("adxl355", [(0x2A, 0x10)], "int2"),
        ("iis3dwb", [(0x0E, 0x01)], "int2"),
        ("lis3dh", [(0x22, 0x10)], "int1"),
        ("lis2dw12", [(0x24, 0x01), (0x3F, 0x20)], "int2"),
        ("mpu6050", [(0x38, 0x01)], "int1"),
    ):
        bench = Bench(name)
        if name == "mpu6050":
            bench.write((0x6B, 0x01))
        bench.write(*route)
        idle = getattr(bench.part, pin)()
        bench.write(*START[name])
        bench.wait(2)
        assert getattr(bench.part, pin)() != idle, name
        assert bench.part.refusals == []
