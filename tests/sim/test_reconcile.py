"""The checker: sets of frames at hops, against errors that were planted at random."""

import time

import numpy as np
import pytest
from triax_proto.hop import HOP, LEDGER
from triax_sim.reconcile import Emitted, Hop, behind, fate_names


def make_ledger(rng, devices=40, frames=50, boots=1):
    rows = np.zeros(devices * boots * frames, LEDGER)
    ids = np.sort(rng.integers(1, 2**63, devices, dtype=np.uint64))
    rows["device"] = np.repeat(ids, boots * frames)
    rows["boot"] = np.tile(np.repeat(np.arange(7, 7 + boots), frames), devices)
    rows["sequence"] = np.tile(np.arange(frames), devices * boots)
    rows["checksum"] = rng.integers(0, 2**32, len(rows), dtype=np.uint32)
    rows["qos"] = 1
    rows["due_us"] = 1_000_000 + rows["sequence"].astype(np.int64) * 100_000
    rows["sent_us"] = rows["due_us"] + 1000
    rows["acked_us"] = rows["due_us"] + 3000
    return rows


def hop_rows(ledger):
    """A hop that holds the ledger's frames, device after device."""
    rows = np.zeros(len(ledger), HOP)
    for name in ("device", "boot", "sequence", "checksum"):
        rows[name] = ledger[name]
    rows["proved"] = True
    rows["at_us"] = ledger["due_us"] + 20_000
    rows["order"] = np.arange(1, len(rows) + 1)
    return rows


def read(emitted, rows, chunk=333):
    hop = Hop(emitted, "kafka", ordered=True)
    for at in range(0, len(rows), chunk):
        hop.add(rows[at : at + chunk])
    return hop


def test_a_whole_hop_has_no_findings():
    ledger = make_ledger(np.random.default_rng(1), boots=2)
    emitted = Emitted(ledger)
    result = read(emitted, hop_rows(ledger)).result()
    assert result["frames"] == emitted.frames == len(ledger)
    assert [result[name] for name in ("missing", "repeated", "altered", "unproved", "inverted", "unknown", "foreign")] == [0] * 7
    assert result["latency_us"] == {"count": len(ledger), "p50": 20_000, "p99": 20_000, "p999": 20_000, "max": 20_000}
    assert result["named"] == {}


def plant(rng, rows):
    """Errors of every kind at places of their own: the rows, and what a checker has to say, as (device, boot, sequence)."""

    def name(n):
        return int(rows["device"][n]), int(rows["boot"][n]), int(rows["sequence"][n])

    # Rows 0 and last of a device stay, so that a swap has a neighbour; none is used for two errors.
    inner = np.flatnonzero((rows["sequence"] > 1) & (rows["sequence"] % 3 == 0))
    counts = rng.integers(0, 8, 6)
    picked = rng.permutation(inner)[: counts.sum()]
    lost, repeated, swapped, altered, unproved, invented = np.split(picked, np.cumsum(counts)[:-1])
    out = rows.copy()
    out["checksum"][altered] ^= np.uint32(1) << rng.integers(0, 32, len(altered)).astype(np.uint32)
    out["proved"][unproved] = False
    out["sequence"][invented] += 1_000_000
    # Swapped with the row before it, in the order of the hop.
    order = np.arange(len(rows))
    order[swapped], order[swapped - 1] = swapped - 1, swapped
    keep = np.ones(len(rows), bool)
    keep[lost] = False
    order = order[keep[order]]
    out = np.concatenate([out[order], out[repeated]])
    out["order"] = np.arange(1, len(out) + 1)
    expected = {
        "missing": {name(n) for n in np.concatenate([lost, invented])},
        "repeats": {name(n) for n in repeated},
        "inverted": {name(n - 1) for n in swapped},
        "altered": {name(n) for n in altered},
        "unproved": {name(n) for n in unproved},
    }
    return out, expected, len(invented)


@pytest.mark.parametrize("seed", range(100))
def test_planted_errors_are_found_exactly(seed):
    rng = np.random.default_rng(seed)
    ledger = make_ledger(rng, boots=1 + seed % 3)
    emitted = Emitted(ledger[rng.permutation(len(ledger))])
    rows, expected, invented = plant(rng, hop_rows(ledger))
    result = read(emitted, rows, chunk=int(rng.integers(1, 900))).result()
    found = {kind: {(int(f["device"], 16), f["boot"], f["sequence"]) for f in result["named"].get(kind, [])} for kind in expected}
    assert found == expected
    assert result["unknown"] == invented
    assert result["repeated"] == len(expected["repeats"])


def test_a_loss_and_a_repeat_do_not_cancel():
    ledger = make_ledger(np.random.default_rng(3), devices=2, frames=5)
    rows = hop_rows(ledger)
    rows[3] = rows[7]
    result = read(Emitted(ledger), rows).result()
    assert (result["missing"], result["repeated"], len(rows)) == (1, 1, len(ledger))


def test_the_hop_where_a_frame_vanished_is_named():
    ledger = make_ledger(np.random.default_rng(4), devices=1, frames=6)
    ledger["sent_us"][5] = ledger["acked_us"][5] = 0
    emitted = Emitted(ledger)
    rows = hop_rows(ledger)
    mqtt, kafka = read(emitted, rows[[0, 1, 2, 3]]), read(emitted, rows[[0, 1, 2]])
    lake = read(emitted, rows[[0, 1]])
    lake.name = "lake"
    lost = {f["sequence"]: f["lost_at"] for f in lake.result({"mqtt": mqtt, "kafka": kafka})["named"]["missing"]}
    assert lost == {2: "lake", 3: "kafka", 4: "mqtt", 5: "device"}


def test_fates_are_kept_apart():
    ledger = make_ledger(np.random.default_rng(5), devices=1, frames=4)
    ledger["acked_us"][1:] = 0
    ledger["qos"][2] = 0
    ledger["sent_us"][3] = 0
    emitted = Emitted(ledger)
    assert fate_names(emitted.fate) == {"never": 1, "unknown": 1, "written": 1, "acked": 1}
    assert Hop(emitted, "kafka").result()["missing_by_fate"] == {"never": 1, "unknown": 1, "written": 1, "acked": 1}


def test_a_cloned_identity_is_a_clone_and_another_run_is_foreign():
    rng = np.random.default_rng(6)
    ledger = make_ledger(rng, devices=3, frames=4)
    twin = ledger[4:8].copy()
    twin["checksum"] ^= 1
    emitted = Emitted(np.concatenate([ledger, twin]))
    assert (emitted.repeats, len(emitted.clones), emitted.frames) == (4, 4, 12)
    other = hop_rows(make_ledger(rng, devices=2, frames=3))
    assert read(emitted, other).result()["foreign"] == 6


def test_redis_behind():
    ledger = make_ledger(np.random.default_rng(7), devices=3, frames=4, boots=2)
    emitted = Emitted(ledger)
    a, b, c = (int(d) for d in np.unique(ledger["device"]))
    found = behind(emitted, emitted.known, {a: (8, 3), b: (8, 2)})
    assert [(f["device"], f["found"]) for f in found] == [(f"{b:016x}", (8, 2)), (f"{c:016x}", None)]
    assert found[0]["wanted"] == (8, 3)


def test_a_million_frames_take_seconds():
    ledger = make_ledger(np.random.default_rng(8), devices=10_000, frames=100)
    rows = hop_rows(ledger)[np.random.default_rng(9).permutation(len(ledger))]
    rows["order"] = np.arange(1, len(rows) + 1)
    began = time.process_time()
    hop = read(Emitted(ledger), rows, chunk=100_000)
    assert len(hop.missing) == 0
    assert time.process_time() - began < 10
