"""`triax frames decode`: what a person sees of a frame, and of a bad one."""

import json

import pytest
from triax_proto import batch, frame
from triax_tools.cli import build
from typer.testing import CliRunner


@pytest.fixture
def wire():
    """Two frames of one device: 1 g on z at 0.5 mg a count."""
    frames = frame.empty(2)
    frames["device"] = 0x0200000000000007
    frames["sequence"] = [4, 5]
    frames["decimation"] = 160
    frames["samples"] = 1600
    frames["scale_g"] = 0.0005
    frames["z"] = 2000 * 160
    frames["minimum"] = frames["maximum"] = [0, 0, 2000]
    frames["sum_squares"] = [0, 0, 1600 * 2000**2]
    frames["time_error_us"] = frame.NO_UTC
    frames["temperature_mc"] = frame.NO_TEMPERATURE
    return [row.tobytes() for row in frame.encode(frames)]


def run(data, *options):
    return CliRunner().invoke(build("frames"), ["frames", "decode", *options], input=data)


def test_one_frame_in_g(wire):
    result = run(wire[0])
    assert result.exit_code == 0
    shown = json.loads(result.stdout)
    assert shown["device"] == "0200000000000007"
    assert shown["sequence"] == 4
    assert shown["time_error_us"] is None
    assert shown["temperature_mc"] is None
    assert shown["z_g"] == pytest.approx([1.0] * 10)
    assert shown["rms_g"] == pytest.approx([0, 0, 1.0])


def test_a_kafka_record_and_hexadecimal(wire):
    result = run(batch.join(wire).hex(), "--hex")
    assert [json.loads(line)["sequence"] for line in result.stdout.splitlines()] == [4, 5]


def test_a_bad_frame_is_named_and_the_others_shown(wire):
    flipped = bytearray(wire[0])
    flipped[50] ^= 4
    result = run(batch.join([bytes(flipped), wire[1]]))
    assert result.exit_code == 1
    assert json.loads(result.stdout.splitlines()[0])["sequence"] == 5
    assert "frame 0: the checksum does not match" in result.stderr


@pytest.mark.parametrize(
    ("data", "options", "says"), [(b"", (), "no frame"), (b"\x99", (), "neither a frame"), (b"xyz", ("--hex",), "not hexadecimal")]
)
def test_wrong_input_says_so(data, options, says):
    result = run(data, *options)
    assert result.exit_code != 0
    assert says in result.stderr


def test_a_frame_without_values_is_shown():
    result = run(frame.encode(frame.empty(1, 0))[0].tobytes())
    assert result.exit_code == 0
    assert json.loads(result.stdout)["x_g"] == []
