"""`triax budget`, and the data of hardware/ that it stands on."""

import json
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from triax_tools import hardware, wiring
from triax_tools.budget import budget
from typer import Typer
from typer.testing import CliRunner

FOLDER = Path(__file__).parents[2] / "hardware"


def run(*arguments):
    app = Typer()
    app.command()(budget)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_figures_of_an_iis3dwb_on_an_esp32():
    told = json.loads(run("--part", "iis3dwb", "--board", "esp32", "--json").stdout)
    assert told["works"]
    assert told["fifo_ms"] == pytest.approx(19.2, abs=0.01)
    assert told["bus_share"] == pytest.approx(26667 * 7 * 8 / 10e6, rel=0.05)
    assert told["drain_ms"] == pytest.approx(2.867, abs=0.01)
    assert 25 < told["link_kbit_s"] < 40
    assert told["heap_kib"] == pytest.approx(10 + 7 + 512 * (12 + 14) / 1024 + 120 * 273 / 1024, abs=0.1)
    assert any("freeze it" in line for line in told["warnings"])
    assert any("TLS" in line for line in told["warnings"])
    assert any("measured on a PC only" in line for line in told["unmeasured"])


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--part", "adxl382", "--board", "esp32", "--odr", "64000"], "the FIFO lasts 1.7 ms"),
        (["--part", "adxl382", "--board", "esp32", "--odr", "16000"], "the FIFO lasts 6.6 ms"),
        (["--part", "iis3dwb", "--board", "pico"], "no network"),
        (["--part", "adxl382", "--board", "raspberry-pi-4", "--bus", "i2c", "--odr", "16000"], "a lower rate or SPI"),
        (["--part", "adxl382", "--board", "raspberry-pi-4", "--odr", "64000", "--sensors", "2"], "busy for"),
        (["--part", "iis3dwb", "--board", "raspberry-pi-4", "--sensors", "3"], "2 chip selects"),
    ],
)
def test_what_cannot_work_is_refused_with_its_reason(arguments, what):
    told = run(*arguments)
    assert told.exit_code == 1
    assert "cannot work" in told.stdout
    assert what in told.stdout.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--part", "iis3dwb", "--board", "commodore"], "no board 'commodore'; there are esp32"),
        (["--part", "bmi270", "--board", "esp32"], "no part 'bmi270'; there are adxl345"),
        (["--part", "iis3dwb", "--board", "esp32", "--odr", "1000"], "it has 26667"),
        (["--part", "iis3dwb", "--board", "esp32", "--bus", "i2c"], "it is on spi"),
    ],
)
def test_what_there_is_not(arguments, what):
    told = run(*arguments)
    assert told.exit_code == 1
    assert what in told.stderr


def test_a_raspberry_pi_takes_two_of_the_fast_ones():
    for part in ("iis3dwb", "adxl382"):
        odr = ("--odr", "16000") if part == "adxl382" else ()
        assert run("--part", part, "--board", "raspberry-pi-5", "--sensors", 2, *odr).exit_code == 0


def test_a_spool_that_the_ram_does_not_hold_is_refused(monkeypatch):
    large = hardware.board("esp32")
    large["memory"] |= {"spool_frames": 400}
    monkeypatch.setattr(hardware, "board", lambda name: large)
    result = hardware.budget("iis3dwb", "esp32")
    assert any("KiB, esp32 has 110" in line for line in result.refusals)
    large["memory"] |= {"heap_kib": 300}
    result = hardware.budget("iis3dwb", "esp32")
    assert result.refusals == []
    assert not any("freeze" in line for line in result.warnings)


@pytest.mark.parametrize("name", hardware.boards())
def test_a_boards_pins_are_used_once_and_labelled(name):
    board = hardware.board(name)
    spi, i2c = board["spi"], board["i2c"]
    pins = [spi["sck"], spi["mosi"], spi["miso"], *spi["ready"], i2c["scl"], i2c["sda"]]
    pins += spi["select"] if board["port"] != "linux" else []
    assert len(set(pins)) == len(pins)
    assert set(board["labels"]) == {"vcc", "gnd", "sck", "mosi", "miso", "select", "ready", "scl", "sda"}
    assert all(board["stall"][f"{what}_source"] for what in ("erase", "tls", "collect", "scheduling"))
    for signal in ("sck", "mosi", "miso"):
        assert str(spi[signal]) in board["labels"][signal]


def test_every_driver_has_its_pins():
    chips = (FOLDER.parent / "device/triax/chips").glob("*.py")
    named = {path.stem for path in chips if path.stem not in ("__init__", "part") and "    NAME = " in path.read_text()}
    assert named == set(hardware.parts())
    for name in named:
        part, pins = hardware.part_class(name), hardware.part_pins(name)
        assert ("sck" in pins) == ("spi" in part.BUSES)
        assert "scl" in pins or "i2c" not in part.BUSES


def test_the_drawings_are_what_the_data_says(tmp_path):
    drawn = sorted((FOLDER / "wiring").glob("*.svg"))
    assert len(drawn) == 12
    for path in drawn:
        board, part = path.stem.rsplit("-", 1)
        text = path.read_text()
        assert text == wiring.svg(board, part), (
            f"draw {path.name} again: triax budget --part {part} --board {board} --wiring {path}"
        )
        labels = {element.text for element in ET.fromstring(text).iter("{http://www.w3.org/2000/svg}text")}
        for _, from_pin, to_pin in wiring.connections(board, part):
            assert {from_pin, to_pin} <= labels
    told = run("--part", "adxl355", "--board", "esp32", "--odr", "1000", "--wiring", tmp_path / "out.svg")
    assert told.exit_code == 0, told.output
    ET.fromstring((tmp_path / "out.svg").read_text())


def test_the_bill_of_materials_gives_a_reason_for_each_item():
    items = tomllib.loads((FOLDER / "bill_of_materials.toml").read_text())["item"]
    assert len(items) >= 8
    assert all(item["why"] and item["choose"] and item["each"] >= 1 for item in items)
