"""The whole node on virtual parts: birth, frames, outages, what stops it. Time is virtual, the broker is the rig's."""

import zlib
from itertools import pairwise

import pytest
from triax import boot
from triax.segments import Segments
from triax.spool import Spool
from triax_proto.v1.device_pb2 import DeviceInfo, Status
from triax_proto.v1.event_pb2 import Event, Gap

from .node_rig import DEVICE, UTC_US, Rig, Store
from .test_spool import Disk

# For tests of minutes: 125 Hz, whose FIFO lasts 256 ms.
SLOW = {"part": "adxl355", "settings": {"odr_hz": 125}}
SLOW_US = 50_000


def sequences(rig, device=DEVICE):
    return [one.sequence for one in rig.frames(device)]


def whole(rig, device=DEVICE):
    """Sequences as a set, after checking that repeats are the same bytes and nothing is missing up to the last."""
    seen = {}
    for data, one in zip(rig.broker.messages("frame", device), rig.frames(device), strict=True):
        assert seen.setdefault((one.boot, one.sequence), data) == data, "resent, but not the same bytes"
    return {sequence for _, sequence in seen}


def test_birth_comes_before_frames_and_says_what_the_device_is():
    rig = Rig().start().run(1500)
    kinds = [topic.rsplit("/", 1)[1] for topic, _, _, _ in rig.broker.published]
    assert set(kinds[:2]) == {"info", "status"}
    assert kinds.count("frame") in (13, 14)
    info = rig.last("info")
    assert info == DeviceInfo(
        device=DEVICE,
        boot=rig.node.boot,
        part="iis3dwb",
        sensor_serial=rig.channels[0].part.serial,
        firmware="test",
        board="virtual",
        odr_nominal_hz=26667,
        range_g=16,
        scale_g=info.scale_g,
        decimation=267,
        delay_us=info.delay_us,
        loss_detection=info.loss_detection,
        temperature_class=info.temperature_class,
        spool_frames=200,
        clip_low=-32768,
        clip_high=32767,
        node=DEVICE,
    )
    status = rig.last("status")
    assert status.online
    assert status.reason == Status.REASON_STARTED
    assert all(retain for topic, _, _, retain in rig.broker.published if topic.endswith(("info", "status")))


def test_frames_are_consecutive_checked_and_in_time():
    rig = Rig().start().run(3000)
    frames = rig.frames()
    assert [one.sequence for one in frames] == list(range(len(frames)))
    for data, one in zip(rig.broker.messages("frame"), frames, strict=True):
        assert one.checksum == zlib.crc32(data[5:])
        assert one.boot == rig.node.boot
        assert one.lost_samples == 0
    assert all(b.first_sample == a.first_sample + a.samples for a, b in pairwise(frames))
    last = frames[-1]
    assert last.time_error_us < 10_000
    assert abs(last.time_us - UTC_US - rig.world.now_us) < 300_000


def test_two_accelerometers_on_one_connection():
    rig = Rig(sensors=2).start().run(2000)
    assert len(rig.broker.connects) == 1
    for device in (DEVICE, DEVICE + 1):
        assert sequences(rig, device) == list(range(len(sequences(rig, device))))
        assert len(sequences(rig, device)) > 15
        assert rig.last("info", device).node == DEVICE


@pytest.mark.parametrize("qos", [0, 1])
def test_a_link_that_takes_a_few_bytes_at_a_time(qos):
    rig = Rig(settings={"qos": qos})
    rig.link.chunk = 40
    rig.start().run(3000)
    assert sequences(rig) == list(range(len(sequences(rig))))
    assert len(sequences(rig)) > 20


def test_an_outage_loses_nothing_and_replays_beside_live_frames():
    rig = Rig().start().run(2000)
    rig.broker.up = False
    rig.run(8000)
    before = len(rig.frames())
    rig.broker.up = True
    rig.run(20000)
    assert whole(rig) == set(range(max(whole(rig)) + 1))
    assert rig.channels[0].frames.spool.dropped == 0
    after = [one.sequence for one in rig.frames()[before:]]
    first_live = next(b for a, b in pairwise(after) if b != a + 1)
    live = [s for s in after if s >= first_live]
    backlog = [s for s in after if s < first_live]
    assert live == sorted(live)
    assert backlog == sorted(backlog)
    assert len(backlog) > 50
    assert rig.last("status").health.reconnects in (0, 1)


def test_no_puback_means_reconnect_and_the_same_bytes_again():
    rig = Rig().start().run(2000)
    rig.broker.acks = False
    rig.run(11000)
    rig.broker.acks = True
    rig.run(15000)
    assert any("PUBACK" in line for line in rig.log)
    assert whole(rig) == set(range(max(whole(rig)) + 1))
    assert len(sequences(rig)) > len(whole(rig)), "something was resent"


@pytest.mark.parametrize("qos", [0, 1])
def test_a_half_open_connection_is_left_within_one_and_a_half_keepalives(qos):
    rig = Rig(part="adxl355", settings={"odr_hz": 125, "qos": qos}).start().run(2000)
    rig.broker.answers = False
    rig.run(30000, SLOW_US)
    assert any("PUBACK" in line or "half-open" in line for line in rig.log)
    assert len(rig.link.tries) > 1
    rig.broker.answers = True
    rig.run(40000, SLOW_US)
    assert rig.node.core.state == 2


@pytest.mark.parametrize(("keep_newest", "kept"), [(True, "newest"), (False, "oldest")])
def test_a_full_spool_drops_by_policy_and_counts(keep_newest, kept):
    rig = Rig(slots=30, settings={"keep_newest": keep_newest}).start().run(1500)
    rig.broker.up = False
    rig.run(10000)
    rig.broker.up = True
    rig.run(20000)
    got = whole(rig)
    missing = set(range(max(got) + 1)) - got
    assert len(missing) == rig.channels[0].frames.spool.dropped
    assert len(missing) > 40
    gap = sorted(missing)
    assert gap == list(range(gap[0], gap[-1] + 1)), "one stretch"
    assert (gap[0] < 30) == keep_newest
    assert kept in ("newest", "oldest")


def test_the_last_will_and_the_goodbye():
    rig = Rig().start().run(1000)
    rig.link.session.lost()
    assert rig.last("status") == Status(online=False, boot=rig.node.boot, reason=Status.REASON_LOST)
    rig = Rig().start().run(1000)
    rig.node.stop()
    rig.run(5000)
    assert rig.node.stopped
    assert rig.last("status").reason == Status.REASON_STOPPED
    assert not rig.last("status").online
    assert sequences(rig) == list(range(len(sequences(rig))))


def test_stopping_while_offline_does_not_hang():
    rig = Rig()
    rig.broker.up = False
    rig.start().run(1000)
    rig.node.stop()
    rig.run(5000)
    assert rig.node.stopped


def test_health_comes_periodically():
    rig = Rig(settings={"health_period_s": 2}).start().run(9000)
    reports = [one for one in rig.all("status") if one.reason == Status.REASON_HEALTH]
    assert len(reports) in (3, 4, 5)
    health = reports[-1].health
    assert health.samples > 200_000
    assert health.fifo_capacity == rig.channels[0].part.FIFO_SETS
    assert 0 < health.fifo_high_water <= health.fifo_capacity
    assert health.free_heap == 12345
    assert health.signal_dbm == -60
    assert health.worst_poll_gap_us >= 4000


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_stepped_moves_times_once_and_is_flagged(hours):
    rig = Rig(**SLOW).start().run(3000, SLOW_US)
    rig.clock.step_us = hours * 3_600_000_000
    rig.run(70_000, SLOW_US)
    frames = rig.frames()
    steps = [b.time_us - a.time_us - a.samples * 1e6 / a.rate_hz for a, b in pairwise(frames)]
    jumps = [step for step in steps if abs(step) > 1e6]
    assert len(jumps) == 1
    assert jumps[0] == pytest.approx(hours * 3.6e9, abs=1e5)
    assert sum(bool(one.flags & 16) for one in frames) == 1
    assert all(b.first_sample == a.first_sample + a.samples for a, b in pairwise(frames))
    assert abs(frames[-1].time_us - UTC_US - rig.world.now_us - rig.clock.step_us) < 1e6


def test_a_stall_becomes_a_gap_with_its_cause():
    rig = Rig().start().run(2000)
    rig.world.advance(60_000)
    rig.run(1000)
    gap = rig.last("event")
    assert gap.gap.cause == Gap.CAUSE_FIFO_OVERRUN
    assert 1000 < gap.gap.length < 1500  # 60 to 72 ms less a FIFO of 19 ms, at 26.7 kHz
    assert gap.gap.bound <= 2 + 26667 * 0.001
    frames = rig.frames()
    assert frames[-1].lost_samples == gap.gap.length
    after = next(one for one in frames if one.flags & 1)
    assert gap.gap.first_sample + gap.gap.length == after.first_sample


def test_a_connect_that_blocks_gives_its_name_to_the_gap():
    rig = Rig()
    rig.link.blocks = True
    connect = rig.link.connect

    def slow(host, port, tls):
        rig.world.advance(500_000)
        return connect(host, port, tls)

    rig.link.connect = slow
    rig.start().run(5000)
    assert any(one.gap.cause == Gap.CAUSE_BLOCKED for one in rig.all("event"))


def test_without_a_boot_number_nothing_is_numbered_until_there_is_utc():
    rig = Rig(provisioned=False)
    rig.clock.utc_from_us = 6_000_000
    rig.start().run(3000)
    assert rig.broker.messages("frame") == []
    assert rig.watchdog.fed
    rig.run(4000)
    assert rig.node.boot == (UTC_US + 6_000_000) // 1_000_000 or rig.node.boot > UTC_US // 1_000_000
    assert sequences(rig)[:3] == [0, 1, 2]


def test_erased_storage_and_a_reflash_give_larger_boots():
    rig = Rig().start().run(500)
    first = rig.node.boot
    store = Store()
    boot.seed(store, UTC_US // 1_000_000)
    again = Rig(store=store).start().run(500)
    assert again.node.boot > first


def test_utc_that_comes_late_is_told_to_those_who_got_frames_before():
    rig = Rig()
    rig.clock.utc_from_us = 6_000_000
    rig.start().run(8000)
    frames = rig.frames()
    early = [one for one in frames if one.time_error_us == 0xFFFFFFFF]
    late = [one for one in frames if one.time_error_us != 0xFFFFFFFF]
    assert early
    assert late
    fix = next(one for one in rig.all("event") if one.kind == Event.KIND_CLOCK_FIX)
    fixed = early[-1].time_us + fix.clock_fix.offset_us
    want = late[0].time_us - (late[0].first_sample - early[-1].first_sample) * 1e6 / late[0].rate_hz
    assert abs(fixed - want) < 2000


def test_the_watchdog_lives_on_samples_not_on_acks():
    rig = Rig()
    rig.broker.up = False
    rig.start().run(5000)
    assert rig.watchdog.fed >= 4
    fed = rig.watchdog.fed
    rig.channels[0].capture.poll = lambda now_us: 0
    rig.broker.up = True
    rig.run(5000)
    assert rig.watchdog.fed <= fed + 1


def test_a_part_that_is_not_there_does_not_stop_the_others():
    rig = Rig(sensors=2)
    rig.channels[1].part.check = lambda: (_ for _ in ()).throw(OSError(5, "input/output error"))
    rig.start().run(2000)
    assert len(sequences(rig)) > 10
    assert any("no capture" in line for line in rig.log)
    assert rig.last("status", DEVICE + 1).online


def test_a_store_that_is_full_numbers_nothing():
    rig = Rig()
    rig.store.broken = True
    rig.clock.utc_from_us = 10**12
    rig.start().run(1000)
    assert rig.broker.messages("frame") == []
    assert any("no space" in line for line in rig.log)


def test_frames_on_files_survive_a_restart_of_the_node():
    disk = Disk()
    rig = Rig(spool=Spool(Segments(disk, 256, 273, 64)))
    rig.broker.up = False
    rig.start().run(3000)
    first = rig.node.boot
    again = Rig(store=rig.store, spool=Spool(Segments(disk.after_cut(), 256, 273, 64)))
    again.start().run(4000)
    got = {(one.boot, one.sequence) for one in again.frames()}
    assert {(first, i) for i in range(20)} <= got
    assert {(first + 1, i) for i in range(20)} <= got


def test_storage_that_is_full_is_counted_and_capture_goes_on():
    disk = Disk()
    rig = Rig(spool=Spool(Segments(disk, 256, 273, 64)))
    rig.start().run(1000)
    disk.full = True
    rig.run(1000)
    disk.full = False
    rig.run(1000)
    dropped = rig.channels[0].frames.spool.dropped
    assert dropped in (9, 10, 11)
    assert rig.channels[0].storage_errors == dropped
    got = whole(rig)
    assert len(set(range(max(got) + 1)) - got) == dropped


def test_ten_thousand_nodes_do_not_come_back_in_step():
    from triax.connection import Connection
    from triax.mqtt import Publisher

    class Dead:
        def close(self):
            pass

    import random

    rng = random.Random(3)
    rests = []
    for _ in range(1000):
        connection = Connection(Dead(), Publisher("x"), rng.randrange)
        for _ in range(5):
            connection.close("gone", 0)
        rests.append(connection._rest_ms)
    assert max(rests) <= 32000
    assert min(rests) < 2000
    assert 14000 < sum(rests) / len(rests) < 18000


def test_a_node_with_a_time_server_of_its_own():
    from .test_timeserver import Net, make

    rig = Rig()
    net = Net()
    net.ticks_us = rig.clock.ticks_us
    server = make(net)
    rig.node._time_server = rig.node.clock = server
    rig.node.start()
    for _ in range(500):
        net.true_us = rig.world.now_us
        rig.run(12)
    assert server.exchanges == 1
    assert rig.channels[0].capture.clock.utc._crystal > 50 * 1073
    last = rig.frames()[-1]
    assert last.time_error_us < 200_000
    assert abs(last.time_us - UTC_US - rig.world.now_us) < 400_000


def test_a_store_that_fails_while_seeding_is_tried_again():
    rig = Rig(provisioned=False)
    rig.store.broken = True
    rig.start().run(2000)
    assert rig.node.boot == 0
    rig.store.broken = False
    rig.run(62_000, 100_000)
    assert rig.node.boot > 0
    assert rig.frames() == [] or rig.frames()[0].sequence == 0


def test_a_part_that_comes_back_is_started():
    rig = Rig(**SLOW)
    check, rig.channels[0].part.check = rig.channels[0].part.check, lambda: (_ for _ in ()).throw(OSError(5, "input/output error"))
    rig.start().run(5000, SLOW_US)
    assert rig.channels[0].failure
    rig.channels[0].part.check = check
    rig.run(62_000, SLOW_US)
    assert sequences(rig)[:3] == [0, 1, 2]
    assert not rig.channels[0].failure
