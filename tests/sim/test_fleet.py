"""The generator against a broker that behaves badly: nothing moves the schedule, everything is in the ledger."""

import json
import socket
import threading
from collections import Counter

import numpy as np
import pytest
from triax_proto.frame import checksums_ok, decode, parse
from triax_sim import ledger as ledgers
from triax_sim.bulk import device_ids
from triax_sim.certificates import Authority
from triax_sim.fleet import Fleet
from triax_sim.histogram import Histogram
from triax_sim.plan import BadPlan, Cohort, LifeEvent, Plan, Target


def plan_for(broker, tmp_path, *cohorts, **options):
    target = Target(port=broker.port)
    return Plan(target, cohorts, str(tmp_path / "a.ledger"), str(tmp_path / "a.json"), boot=1_800_000_000, **options)


def run(plan, broker):
    """Statistics, ledger rows; the broker has read everything."""
    result = Fleet(plan).run()
    broker.settled()
    return result, ledgers.read([plan.ledger])


def test_a_server_that_is_not_there_yet_is_waited_for_under_tls_too(tmp_path):
    authority = Authority(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    target = Target(port=port, ca=str(authority.ca), certificates=str(authority.devices(device_ids(1, np.arange(2)).tolist())))
    cohort = Cohort("bulk", 0, 2, backoff=False)
    plan = Plan(target, (cohort,), str(tmp_path / "a.ledger"), str(tmp_path / "a.json"), duration_s=0.3, drain_s=0.1)
    result = Fleet(plan).run()
    assert result["connections"]["refused"] > 4
    assert (result["sent"], result["connections"]["opened"]) == (0, 0)


def test_a_plan_of_few_connections_a_second_opens_them_all(broker, tmp_path):
    event = LifeEvent("reconnect", 0.2)
    plan = plan_for(broker, tmp_path, Cohort("bulk", 0, 2, backoff=False), duration_s=2.0, connect_hz=4.0, events=(event,))
    assert run(plan, broker)[0]["connections"]["opened"] == 4


def frames_of(broker):
    data = b"".join(payload for _, payload, _, _ in broker.frames)
    frames = decode(data)
    assert checksums_ok(frames).all()
    return frames


def identities(rows):
    return list(
        zip(rows["device"].tolist(), rows["boot"].tolist(), rows["sequence"].tolist(), rows["checksum"].tolist(), strict=True)
    )


@pytest.mark.parametrize("qos", [0, 1])
def test_every_frame_is_sent_once_and_in_the_ledger(broker, tmp_path, qos, capsys):
    result, rows = run(plan_for(broker, tmp_path, Cohort("bulk", 0, 30, qos=qos), duration_s=1.0), broker)
    assert result["due"] == result["sent"] == len(rows) == len(broker.frames)
    assert result["due"] == pytest.approx(300, abs=30)
    assert result["acked"] == (len(rows) if qos else 0)
    frames = frames_of(broker)
    assert set(identities(frames)) == set(identities(rows))
    assert (rows["sent_us"] >= rows["due_us"]).all()
    assert (rows["acked_us"] >= rows["sent_us"]).all() if qos else not rows["acked_us"].any()
    for device in np.unique(frames["device"]):
        mine = frames[frames["device"] == device]
        assert mine["sequence"].tolist() == list(range(len(mine)))
        assert (np.diff(mine["first_sample"].astype(np.int64)) == 1600).all()
        period = 1600 / mine["rate_hz"][0].astype(float) * 1e6
        assert np.abs(np.diff(mine["time_us"]) - period).max() <= 1.01
    assert broker.births == 60
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"ready", "ages"} <= {key for line in lines for key in line}


def test_a_frame_is_due_when_its_last_sample_is_taken(broker, tmp_path):
    _, rows = run(plan_for(broker, tmp_path, Cohort("bulk", 0, 5, clock_ppm=0.0), duration_s=0.6), broker)
    frames = frames_of(broker)
    due = dict(zip(zip(rows["device"].tolist(), rows["sequence"].tolist(), strict=True), rows["due_us"].tolist(), strict=True))
    for frame in frames:
        assert due[int(frame["device"]), int(frame["sequence"])] - frame["time_us"] == pytest.approx(100_000, abs=1)


@pytest.mark.parametrize(("phase", "spread"), [("aligned", 0), ("uniform", 20_000), ("poisson", 20_000)])
def test_phases(broker, tmp_path, phase, spread):
    _, rows = run(plan_for(broker, tmp_path, Cohort("bulk", 0, 40, phase=phase, clock_ppm=0.0), duration_s=0.5), broker)
    first = rows[rows["sequence"] == 1]["due_us"]
    assert (first.max() - first.min() == 0) if not spread else first.std() > spread
    gaps = np.concatenate([np.diff(np.sort(rows[rows["device"] == d]["due_us"])) for d in np.unique(rows["device"])])
    assert (gaps.std() > 20_000) == (phase == "poisson")


def test_slow_acknowledgements_do_not_move_the_schedule(broker, tmp_path):
    """PUBACKs withheld for 0.6 s of 1.5 s: frames go on being due, the window holds them back, latency counts from due time."""
    plan = plan_for(broker, tmp_path, Cohort("bulk", 0, 20, window=2, replay_hz=1000), duration_s=1.5)
    fleet = Fleet(plan)
    stall = threading.Timer(0.5, setattr, (broker, "deaf", True))
    resume = threading.Timer(1.1, setattr, (broker, "deaf", False))
    stall.start()
    resume.start()
    result = fleet.run()
    rows = ledgers.read([plan.ledger])
    assert result["due"] == result["acked"] == len(rows)
    assert result["due"] == pytest.approx(300, abs=22)
    assert len(broker.frames) == len(rows)
    puback = Histogram.from_json(result["histograms"]["puback"])
    held = Histogram.from_json(result["histograms"]["held"])
    assert puback.maximum > 400_000
    assert held.count > 50  # waited for the window, and are no lateness of the generator
    assert Histogram.from_json(result["histograms"]["lateness"]).percentile(99) < 300_000


def test_a_lost_connection_sends_again_what_was_in_flight(broker, tmp_path):
    plan = plan_for(broker, tmp_path, Cohort("bulk", 0, 10, replay_hz=1000, backoff=False), duration_s=1.2)
    fleet = Fleet(plan)
    mute = threading.Timer(0.4, setattr, (broker, "mute", True))

    def cut():
        broker.mute = False
        broker.cut_all()

    timer = threading.Timer(0.8, cut)
    mute.start()
    timer.start()
    result = fleet.run()
    rows = ledgers.read([plan.ledger])
    assert result["connections"]["lost"] == 10
    assert result["resent"] > 0
    assert result["acked"] == len(rows) == result["due"]
    arrived = identities(frames_of(broker))
    assert set(arrived) == set(identities(rows))
    payloads = [payload for _, payload, _, _ in broker.frames]
    # The very same bytes; what was written last before the cut may not have arrived the first time.
    assert 0 < len(payloads) - len(set(payloads)) <= result["resent"]
    twice = [decode(payload) for payload in set(payloads) if payloads.count(payload) > 1]
    told = [(int(f["device"][0]), int(f["boot"][0]), int(f["sequence"][0])) for f in twice]
    assert set(told) <= {tuple(frame) for frame in result["resent_frames"]}
    assert not any(dup for _, _, _, dup in broker.frames)  # a new packet on a clean session


def test_an_outage_is_spooled_and_caught_up_beside_live_frames(broker, tmp_path):
    event = LifeEvent("outage", at_s=0.3, for_s=0.6, share=0.5)
    result, rows = run(plan_for(broker, tmp_path, Cohort("bulk", 0, 10, replay_hz=20), duration_s=1.8, events=(event,)), broker)
    assert result["acked"] == result["due"] == len(rows)
    frames = frames_of(broker)
    again = Counter((device, sequence) for device, _, sequence in result["resent_frames"])  # written as the connection ended
    for device in np.unique(frames["device"]):
        sequence = frames["sequence"][frames["device"] == device].tolist()
        arrived = Counter(sequence)
        assert sorted(arrived) == list(range(len(arrived)))
        assert all(count <= 1 + again[int(device), number] for number, count in arrived.items())
        mine = rows[rows["device"] == device]
        since = mine["due_us"] - result["start_us"]
        off = set(mine["sequence"][(since > 400_000) & (since < 800_000)].tolist())  # made while half of them were off
        assert [n for n in sequence if n in off] == sorted(off)
    mixed = [d for d in np.unique(frames["device"]) if (np.diff(frames["sequence"][frames["device"] == d].astype(int)) < 0).any()]
    assert 1 <= len(mixed) <= 5  # 20 frames/s of backlog do not wait for live ones, nor these for them
    late = rows["sent_us"] - rows["due_us"] > 100_000
    assert {device & 0xFFFFFF for device in rows["device"][late].tolist()} >= set(range(5))


def test_a_full_spool_drops_the_oldest_and_says_so(broker, tmp_path):
    event = LifeEvent("outage", at_s=0.2, for_s=0.8)
    cohort = Cohort("bulk", 0, 6, spool=3, window=2, replay_hz=1000)
    result, rows = run(plan_for(broker, tmp_path, cohort, duration_s=1.5, events=(event,)), broker)
    assert result["unsent"] == (rows["sent_us"] == 0).sum() > 6
    assert len(rows) == result["due"]
    sent = set(identities(frames_of(broker)))
    assert sent == set(identities(rows[rows["sent_us"] > 0]))


def test_a_reboot_begins_a_boot_and_a_spool_on_disk_outlives_it(broker, tmp_path):
    event = LifeEvent("reboot", at_s=0.5, for_s=0.2)
    cohort = Cohort("bulk", 0, 4, backlog_s=1.0, replay_hz=500)
    result, rows = run(plan_for(broker, tmp_path, cohort, duration_s=1.2, events=(event,)), broker)
    assert result["acked"] == result["due"] == len(rows)
    assert len(set(identities(rows))) == len(rows)
    assert set(rows["boot"]) == {1_800_000_000, 1_800_000_001}
    for device in np.unique(rows["device"]):
        for boot in (1_800_000_000, 1_800_000_001):
            mine = np.sort(rows["sequence"][(rows["device"] == device) & (rows["boot"] == boot)])
            assert mine.tolist() == list(range(len(mine)))
    assert set(identities(frames_of(broker))) == set(identities(rows))
    assert (rows["due_us"] < result["start_us"]).sum() == pytest.approx(40, abs=4)  # what was in the spool at the start


def test_a_spool_in_memory_does_not_outlive_a_reboot(broker, tmp_path):
    events = (LifeEvent("outage", at_s=0.3, for_s=0.9), LifeEvent("reboot", at_s=0.8, for_s=0.1, spool_kept=False))
    result, rows = run(plan_for(broker, tmp_path, Cohort("bulk", 0, 4, replay_hz=500), duration_s=1.5, events=events), broker)
    assert result["due"] == len(rows) == len(set(identities(rows)))
    lost = rows[rows["acked_us"] == 0]
    assert set(lost["boot"]) == {1_800_000_000}
    assert result["unsent"] == (lost["sent_us"] == 0).sum() >= 12
    assert set(identities(frames_of(broker))) == set(identities(rows[rows["sent_us"] > 0]))


def test_a_clock_step_moves_labels_and_not_the_schedule(broker, tmp_path):
    event = LifeEvent("clock_step", at_s=0.5, step_s=3.0)
    _, rows = run(plan_for(broker, tmp_path, Cohort("bulk", 0, 3, clock_ppm=0.0), duration_s=1.0, events=(event,)), broker)
    frames = frames_of(broker)
    for device in np.unique(frames["device"]):
        mine = frames[frames["device"] == device]
        steps = np.diff(mine["time_us"])
        assert sorted(steps.tolist())[-1] == pytest.approx(3_100_000, abs=2)
        assert (np.diff(np.sort(rows["due_us"][rows["device"] == device])) < 100_010).all()
        assert mine["sequence"].tolist() == list(range(len(mine)))


def test_storm_without_backoff_reconnects_at_once_and_with_it_spreads(broker, tmp_path):
    event = LifeEvent("reconnect", at_s=0.3)
    cohorts = (Cohort("bad", 0, 15, backoff=False), Cohort("good", 15, 15))
    result, rows = run(plan_for(broker, tmp_path, *cohorts, duration_s=1.5, events=(event,), drain_s=5), broker)
    assert result["acked"] == len(rows) == result["due"]
    assert len(broker.connects) == 60
    bad = sorted(t for t, client, _ in broker.connects if int(client, 16) & 0xFFFFFF < 15)[15:]
    good = sorted(t for t, client, _ in broker.connects if int(client, 16) & 0xFFFFFF >= 15)[15:]
    assert bad[-1] - bad[0] < 0.2 < good[-1] - good[0]


def test_power_up_is_spread(broker, tmp_path):
    cohort = Cohort("late", 0, 10, power_on_s=0.3, power_spread_s=0.5)
    result, rows = run(plan_for(broker, tmp_path, cohort, duration_s=1.2), broker)
    assert result["acked"] == len(rows)
    first = rows[rows["sequence"] == 0]["due_us"] - result["start_us"]
    assert first.min() > 300_000
    assert 200_000 < first.max() - first.min() < 650_000


def test_older_firmware_sends_a_shorter_frame(broker, tmp_path):
    run(plan_for(broker, tmp_path, Cohort("old", 0, 2, old_schema=True), Cohort("new", 2, 2, qos=0), duration_s=0.4), broker)
    sizes = {len(payload) for _, payload, _, _ in broker.frames}
    assert sizes == {267, 273}
    assert all(len(parse(payload)) == 1 for _, payload, _, _ in broker.frames)


def test_a_broker_that_is_not_there_leaves_everything_in_the_ledger(tmp_path, broker):
    broker.refuse = True
    plan = plan_for(broker, tmp_path, Cohort("bulk", 0, 3), duration_s=0.5, drain_s=0.2)
    fleet = Fleet(plan)
    fleet._connect = lambda: None  # it would wait half a minute
    result = fleet.run()
    rows = ledgers.read([plan.ledger])
    assert result["unsent"] == len(rows) == result["due"] > 9
    assert not rows["sent_us"].any()
    assert rows["checksum"].all()


def test_half_of_a_fleet_in_each_of_two_processes(broker, tmp_path):
    rows = []
    for process in range(2):
        plan = plan_for(broker, tmp_path, Cohort("bulk", 0, 7), duration_s=0.3, process=process, processes=2)
        rows.append(run(plan, broker)[1])
    assert [len(np.unique(r["device"])) for r in rows] == [4, 3]
    assert len(np.unique(np.concatenate(rows)["device"])) == 7


def test_a_wrong_plan_says_what_to_write():
    for data, words in (
        ('{"target": {"hots": 1}}', "there is no 'hots'; there are"),
        ('{"cohorts": [{"name": "a", "first": 0, "count": 3, "phase": "odd"}], "ledger": "", "stats": ""}', "it is one of uniform"),
        ("{", "is no JSON"),
        ('{"cohorts": [{"name": "a", "first": 0, "count": 3, "window": 99}], "ledger": "", "stats": ""}', "1 to 32"),
    ):
        with pytest.raises(BadPlan, match=words):
            Plan.from_json(data)


def test_a_plan_survives_json(tmp_path):
    plan = Plan(Target(), (Cohort("a", 0, 3),), "x", "y", events=(LifeEvent("outage", 1.0),))
    assert Plan.from_json(plan.to_json()) == plan
