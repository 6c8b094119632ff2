import pytest
from triax_proto import calibration
from triax_proto.errors import CalibrationError, UnknownVersion

TEXT = b'{"schema":"any"}'


def container(version=calibration.VERSION, offset=2, gain=1):
    head = calibration.HEAD.pack(calibration.MAGIC, version, offset, gain, 0, 5, 0, b"part", b"\1\2", 2, 0.5, 25, 0, 50)
    block = head + calibration.NINE.pack(*range(21)) + bytes(12 * (offset + gain))
    return block, calibration.seal(block, TEXT)


@pytest.mark.parametrize(("offset", "gain"), [(0, 0), (2, 1), (3, 3)])
def test_what_was_sealed_comes_out(offset, gain):
    block, blob = container(offset=offset, gain=gain)
    assert calibration.unseal(blob) == (block, TEXT)
    assert calibration.document(blob) == TEXT
    assert calibration.digest(blob).hex()[:8] != calibration.digest(block).hex()[:8]


def test_every_shorter_longer_and_changed_container_is_refused():
    _, blob = container()
    for length in range(len(blob)):
        with pytest.raises(CalibrationError):
            calibration.document(blob[:length])
    for at in range(len(blob)):
        with pytest.raises(CalibrationError):
            calibration.document(blob[:at] + bytes([blob[at] ^ 0x10]) + blob[at + 1 :])
    with pytest.raises(CalibrationError, match="checksum"):
        calibration.document(blob + b"\0")


@pytest.mark.parametrize(
    ("blob", "error", "text"),
    [
        (b"", CalibrationError, "0 bytes are no calibration: empty or cut off"),
        (b"x" * 300, CalibrationError, "does not begin as a calibration does"),
        (container(version=2)[1], UnknownVersion, "version 2, this program reads 1"),
        (calibration.seal(container()[0] + b"\0" * 4, TEXT), CalibrationError, "wrong length"),
        (calibration.seal(container()[0][:-36], b""), CalibrationError, "wrong length"),
    ],
)
def test_each_damage_has_its_own_message(blob, error, text):
    with pytest.raises(error, match=text):
        calibration.document(blob)
