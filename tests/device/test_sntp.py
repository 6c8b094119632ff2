"""SNTP: the bound holds for any asymmetry, and replies that must not be believed are not."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from triax import sntp
from triax.errors import TimeReplyError

NONCE = b"01234567"
UTC_US = 1_800_000_000_123_456


def stamp(unix_us):
    seconds, us = divmod(unix_us, 1_000_000)
    return struct.pack(">II", (seconds + 2208988800) & 0xFFFFFFFF, -(-(us << 32) // 1_000_000))


def server(received_us, sent_us, first=0x24, stratum=2, root_delay=0, root_dispersion=0, nonce=NONCE, code=b"GPS\0"):
    head = bytes((first, stratum, 6, 0xE8)) + struct.pack(">iI", root_delay, root_dispersion) + code + bytes(8)
    return head + nonce + stamp(received_us) + stamp(sent_us)


def test_the_request():
    data = sntp.request(NONCE)
    assert len(data) == 48
    assert data[0] == 0x23
    assert data[40:] == NONCE


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 2**40),
    st.integers(0, 400_000),
    st.integers(0, 100_000),
    st.integers(0, 400_000),
    st.integers(-60_000, 60_000),
    st.integers(UTC_US, UTC_US + 10**15),
)
def test_the_truth_lies_within_the_bound(mono_us, there_us, held_us, back_us, server_error_us, utc_us):
    # The server's clock is wrong by server_error_us and says that it may be.
    at_server = utc_us + there_us + server_error_us
    root = -(-abs(server_error_us) * 65536 // 1_000_000)
    data = server(at_server, at_server + held_us, root_dispersion=root)
    offset_us, error_us = sntp.reply(data, NONCE, mono_us, mono_us + there_us + held_us + back_us)
    assert abs(offset_us - (utc_us - mono_us)) <= error_us
    assert error_us <= (there_us + back_us) // 2 + abs(server_error_us) + 20


@pytest.mark.parametrize(("year_s", "era"), [(2085978495, "0"), (2085978497, "1"), (2208988800 + 10**9, "1")])
def test_2036(year_s, era):
    unix_us = year_s * 1_000_000
    offset_us, _ = sntp.reply(server(unix_us, unix_us), NONCE, 0, 10)
    assert abs(offset_us - unix_us) <= 10


BOGUS = {
    "short": (lambda: server(UTC_US, UTC_US)[:47], "47 bytes"),
    "another request": (lambda: server(UTC_US, UTC_US, nonce=b"76543210"), "another request"),
    "a client": (lambda: server(UTC_US, UTC_US, first=0x23), "mode 3"),
    "version": (lambda: server(UTC_US, UTC_US, first=0x0C), "version 1"),
    "kiss of death": (lambda: server(UTC_US, UTC_US, stratum=0, code=b"RATE"), "refuses: RATE"),
    "kiss without a word": (lambda: server(UTC_US, UTC_US, stratum=0, code=b"\0\0\0\0"), "no reason"),
    "alarm": (lambda: server(UTC_US, UTC_US, first=0xE4), "not set"),
    "stratum 16": (lambda: server(UTC_US, UTC_US, stratum=16), "not set"),
    "far from its reference": (lambda: server(UTC_US, UTC_US, root_dispersion=2 << 16), "reference"),
    "far by delay": (lambda: server(UTC_US, UTC_US, root_delay=4 << 16), "reference"),
    "zero": (lambda: server(UTC_US, UTC_US)[:32] + bytes(16), "zero"),
    "sent before received": (lambda: server(UTC_US, UTC_US - 10), "held"),
    "held longer than it took": (lambda: server(UTC_US, UTC_US + 5000), "held"),
}


@pytest.mark.parametrize("name", BOGUS)
def test_bogus_replies(name):
    make, what = BOGUS[name]
    with pytest.raises(TimeReplyError, match=what):
        sntp.reply(make(), NONCE, 1000, 2000)


def test_a_slow_answer_is_no_answer():
    with pytest.raises(TimeReplyError, match="took"):
        sntp.reply(server(UTC_US, UTC_US), NONCE, 0, sntp.MAX_DELAY_US + 1)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80))
def test_fuzz(data):
    with pytest.raises(TimeReplyError):
        sntp.reply(data, NONCE, 0, 100)
    if len(data) >= 48:
        try:
            _, error_us = sntp.reply(data[:24] + NONCE + data[32:], NONCE, 0, 100)
        except TimeReplyError:
            return
        assert error_us <= sntp.MAX_ROOT_US + 100
