"""Two slots: what is tried, what is confirmed, and every way back."""

import hashlib
import json
import random
import sys
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from triax.update import CONFIRM_ACKS, NO_CAPTURE_MS, SILENT_MS, Probation, Slots, manifest_hash, run

from .node_rig import Store


def program(root, slot, content=b"print(1)"):
    folder = root / slot
    (folder / "triax").mkdir(parents=True, exist_ok=True)
    (folder / "triax/main.py").write_bytes(content)
    text = json.dumps({"files": {"triax/main.py": hashlib.sha256(content).hexdigest()}}).encode()
    (folder / "manifest.json").write_bytes(text)
    return manifest_hash(text)


@pytest.fixture
def tried(tmp_path):
    store = Store()
    program(tmp_path, "a")
    slots = Slots(store, str(tmp_path))
    slots.switch(program(tmp_path, "b", b"print(2)"))
    return Slots(store, str(tmp_path))


def test_a_fresh_board_runs_a():
    slots = Slots(Store(), "/x")
    assert slots.start() == "/x/a"
    assert not slots.trial


def test_a_switch_is_a_trial_until_it_is_confirmed(tried):
    assert tried.start().endswith("/b")
    assert tried.trial
    tried.confirm()
    again = Slots(tried._store, tried._root)
    assert again.start().endswith("/b")
    assert not again.trial


def test_three_starts_without_a_confirmation_lead_back(tried):
    for _ in range(3):
        tried = Slots(tried._store, tried._root)
        assert tried.start().endswith("/b")
    tried = Slots(tried._store, tried._root)
    assert tried.start().endswith("/a")
    assert not tried.trial
    assert "3 times" in tried.reason


@pytest.mark.parametrize("damage", ["bit", "missing file", "other manifest", "no manifest", "truncated"])
def test_a_damaged_program_is_not_tried(tmp_path, damage):
    digest = program(tmp_path, "b")
    file = tmp_path / "b/triax/main.py"
    if damage == "bit":
        file.write_bytes(b"print(3)")
    elif damage == "missing file":
        file.unlink()
    elif damage == "other manifest":
        digest = b"\0" * 32
    elif damage == "no manifest":
        (tmp_path / "b/manifest.json").unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1])
    slots = Slots(Store(), str(tmp_path))
    with pytest.raises(ValueError, match=r"damaged|missing|another program"):
        slots.switch(digest)
    assert (slots.active, slots.trial) == (0, False)


def test_twenty_acknowledgements_confirm(tried):
    probation = Probation(tried, 0)
    assert not probation.step(1000, True, CONFIRM_ACKS - 1, True)
    assert tried.trial
    assert not probation.step(2000, True, CONFIRM_ACKS, True)
    assert not tried.trial


def minutes(probation, count, connected, acked, captures=True):
    return any(probation.step(minute * 60000, connected, acked, captures) for minute in range(1, count + 1))


def test_thirty_connected_minutes_without_an_acknowledgement_lead_back(tried):
    assert not minutes(Probation(tried, 0), SILENT_MS // 60000 - 1, True, 0)
    assert minutes(Probation(tried, 0), SILENT_MS // 60000, True, 0)
    assert tried.active == 0
    assert "30 minutes" in tried.reason


def test_an_outage_of_the_network_is_no_fault_of_the_program(tried):
    assert not minutes(Probation(tried, 0), 3000, False, 0)
    assert tried.trial


def test_no_capture_within_a_minute_leads_back(tried):
    probation = Probation(tried, 0)
    assert not probation.step(NO_CAPTURE_MS - 1, True, 100, False)
    assert probation.step(NO_CAPTURE_MS, True, 100, False)
    assert "no capture" in tried.reason


def test_a_program_that_is_not_on_trial_is_left_alone(tried):
    tried.confirm()
    assert not minutes(Probation(tried, 0), 100, True, 0, captures=False)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_fuzz_a_damaged_record_means_slot_a(data):
    store = Store()
    store.data["slots"] = data
    assert Slots(store, "").start() == "/a"


def test_every_bit_of_the_record_counts(tried):
    good = tried._store.data["slots"]
    for _ in range(100):
        data = bytearray(good)
        data[random.Random(1).randrange(len(data))] ^= 4
        tried._store.data["slots"] = bytes(data)
        assert Slots(tried._store, "").active == 0


@pytest.mark.parametrize("fault", [None, RuntimeError("no such pin")])
def test_the_program_of_the_slot_runs_and_a_trial_that_ends_badly_is_taken_back(tried, monkeypatch, capsys, fault):
    ran, restarts = [], []

    def program(settings, port_class, slots):
        ran.append((settings, port_class, sys.path[0], slots.trial))
        if fault:
            raise fault

    monkeypatch.setitem(sys.modules, "triax.ports.board", types.SimpleNamespace(Port="port"))
    monkeypatch.setattr("triax.main.run", program)
    monkeypatch.setattr(sys, "path", list(sys.path))
    run(tried._store, tried._root, "node.json", "board", lambda: restarts.append(1))
    assert ran == [("node.json", "port", tried._root + "/b", True)]
    assert restarts == [1]
    left = Slots(tried._store, tried._root)
    assert (left.active, "no such pin" in left.reason) == ((0, True) if fault else (1, False))
    assert ("no such pin" in capsys.readouterr().out) == bool(fault)
