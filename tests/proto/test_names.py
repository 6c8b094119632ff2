import zlib

import pytest
from triax_proto import names


def test_device_text_round_trip():
    assert names.device_text(0x0123456789ABCDEF) == "0123456789abcdef"
    assert names.device_id("0123456789abcdef") == 0x0123456789ABCDEF


@pytest.mark.parametrize("text", ["", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdefg", "0x23456789abcdef"])
def test_bad_device_text_says_what_is_wanted(text):
    with pytest.raises(ValueError, match="16 lower-case hex digits"):
        names.device_id(text)


def test_topics_round_trip():
    for kind in ("frame", "raw", "info", "status", "config", "config/ack", "calibration", "event"):
        assert names.split_topic(names.mqtt_topic(0xAB, kind)) == (0xAB, kind)


@pytest.mark.parametrize("topic", ["triax/v1/ab/frame", "triax/v2/00000000000000ab/frame", "triax/v1/00000000000000ab/frame/x", ""])
def test_foreign_topics_are_none(topic):
    assert names.split_topic(topic) is None


def test_partition_is_crc32_of_the_big_endian_bytes():
    assert names.partition(0x0123456789ABCDEF, 2**32) == zlib.crc32(bytes.fromhex("0123456789abcdef"))
    assert names.partition(0x0123456789ABCDEF, 16) == zlib.crc32(bytes.fromhex("0123456789abcdef")) % 16
