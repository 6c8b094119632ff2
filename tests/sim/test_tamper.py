"""The relays between devices and broker: what they plant, the checker finds; what they do to a link, it does."""

import threading
import time

import numpy as np
import pytest
from triax_proto.errors import FrameError
from triax_proto.frame import parse
from triax_proto.hop import HOP
from triax_sim import ledger as ledgers
from triax_sim.faults import Fault, Timeline, Victim, expected
from triax_sim.fleet import Fleet
from triax_sim.plan import Cohort, Plan, Target
from triax_sim.proxy import Relay
from triax_sim.reconcile import Emitted, Hop
from triax_sim.tamper import KINDS, Tamper, seal


class Turning(threading.Thread):
    """Turns a relay until it is told to end."""

    def __init__(self, relay):
        super().__init__(daemon=True)
        self.relay, self.end = relay, False
        self.start()

    def run(self):
        while not self.end:
            self.relay.turn(0.01)

    def stop(self):
        self.end = True
        self.join(5)
        self.relay.close()


def run(tmp_path, port, cohort, duration_s=1.5):
    plan = Plan(Target(port=port), (cohort,), str(tmp_path / "a.ledger"), str(tmp_path / "a.json"), duration_s=duration_s)
    result = Fleet(plan).run()
    time.sleep(0.3)  # at QoS 0 the sender is done before relay and broker are
    return result, ledgers.read([plan.ledger])


def arrived(broker):
    """HOP rows of what a broker was sent, and how many frames were no frames any more."""
    rows, bad = [], 0
    for order, (_, payload, _, _) in enumerate(broker.frames, 1):
        try:
            frame = parse(payload)
        except FrameError:
            bad += 1
            continue
        rows.append((*(int(frame[name][0]) for name in ("device", "boot", "sequence", "checksum")), True, 0, order))
    return np.array(rows, HOP), bad


@pytest.mark.parametrize("qos", [0, 1])
def test_the_checker_finds_exactly_what_was_planted(broker, tmp_path, qos):
    tamper = Tamper(("127.0.0.1", broker.port), dict.fromkeys(KINDS, 20), seed=5, from_s=0.0, for_s=0.6)
    turning = Turning(tamper.relay)
    tamper.begin()
    result, rows = run(tmp_path, tamper.relay.port, Cohort("reserved", 0, 60, qos=qos, window=8))
    turning.stop()
    assert tamper.left == 0
    assert (result["stray_acks"], result["unsent"]) == (0, 0)
    emitted = Emitted(rows)
    hop = Hop(emitted, "kafka", ordered=True)
    found, bad = arrived(broker)
    hop.add(found)
    planted = {kind: {(e["device"], e["sequence"]) for e in tamper.planted if e["kind"] == kind} for kind in KINDS}
    assert [len(planted[kind]) for kind in KINDS] == [20] * 4

    def named(places):
        return {(frame["device"], frame["sequence"]) for frame in emitted.names(places)}

    assert named(hop.missing) == planted["drop"] | planted["flip"]
    assert named(hop.repeats) == planted["repeat"]
    assert named(hop.inverted) == planted["swap"]
    assert bad == 20
    if qos:
        assert result["acked"] == len(rows)  # the device has been told that all is well


def test_a_seal_binds_the_list():
    planted = [{"kind": "drop", "device": "02", "sequence": 1}]
    assert seal(planted, "a") == seal([dict(planted[0])], "a")
    assert len({seal(planted, "a"), seal(planted, "b"), seal([], "a")}) == 3


def test_a_relay_passes_everything_in_order(broker, tmp_path):
    relay = Relay(("127.0.0.1", broker.port))
    turning = Turning(relay)
    result, rows = run(tmp_path, relay.port, Cohort("bulk", 0, 20), duration_s=0.5)
    turning.stop()
    assert result["acked"] == len(rows) == len(broker.frames)
    assert relay.accepted == 20


def test_delay_shows_in_the_latency_and_nowhere_else(broker, tmp_path):
    relay = Relay(("127.0.0.1", broker.port))
    relay.link.delay_ms = 40
    turning = Turning(relay)
    result, rows = run(tmp_path, relay.port, Cohort("bulk", 0, 10), duration_s=0.6)
    turning.stop()
    assert result["acked"] == len(rows) == len(broker.frames)
    assert (rows["acked_us"] - rows["sent_us"]).min() >= 80_000
    assert np.median(rows["sent_us"] - rows["due_us"]) < 20_000


def test_a_rate_limit_holds_frames_back_and_loses_none(broker, tmp_path):
    relay = Relay(("127.0.0.1", broker.port))
    relay.link.rate_kbps = 20  # 30 devices x 10 x 311 bytes: 93 kB/s are wanted
    turning = Turning(relay)
    threading.Timer(1.0, setattr, (relay.link, "rate_kbps", 0)).start()
    result, rows = run(tmp_path, relay.port, Cohort("bulk", 0, 30, replay_hz=1000), duration_s=0.8)
    turning.stop()
    assert result["acked"] == len(rows) == len(broker.frames)
    assert np.percentile(rows["acked_us"] - rows["due_us"], 90) > 200_000


def test_a_cut_and_a_silent_link(broker, tmp_path):
    relay = Relay(("127.0.0.1", broker.port))
    turning = Turning(relay)
    threading.Timer(0.3, relay.cut_all).start()
    threading.Timer(0.6, setattr, (relay.link, "silent", True)).start()
    threading.Timer(0.9, relay.cut_all).start()
    threading.Timer(0.9, setattr, (relay.link, "silent", False)).start()
    result, rows = run(tmp_path, relay.port, Cohort("bulk", 0, 8, replay_hz=1000, backoff=False), duration_s=1.3)
    turning.stop()
    assert result["connections"]["lost"] >= 8
    assert result["acked"] == len(rows)
    found, _ = arrived(broker)
    hop = Hop(Emitted(rows), "kafka")
    hop.add(found)
    assert len(hop.missing) == 0


def test_a_victim_is_the_process_that_was_meant():
    import subprocess

    child = subprocess.Popen(["sleep", "30"])
    victim = Victim.of(child.pid)
    with pytest.raises(ProcessLookupError, match="another one"):
        Victim(child.pid, "1").kill()
    victim.pause()
    victim.resume()
    victim.kill()
    assert child.wait(5) == -9
    with pytest.raises(ProcessLookupError):
        victim.kill()


def test_a_timeline_does_things_in_order_and_keeps_errors():
    done = []

    def fail():
        raise OSError("gone")

    timeline = Timeline()
    timeline.at(2.0, "b", lambda: done.append("b"))
    timeline.at(1.0, "a", lambda: done.append("a"))
    timeline.at(1.5, "c", fail)
    timeline.run_due(1.7)
    assert (done, timeline.next_s) == (["a"], 2.0)
    timeline.run_due(5.0)
    assert [(e["what"], e.get("error")) for e in timeline.done] == [("a", None), ("c", "gone"), ("b", None)]
    assert timeline.next_s == float("inf")


def test_what_a_fault_may_cost():
    cut = Fault("link_cut", 1.0)
    assert expected(cut, 0, "bridge").lost == {"written"}
    assert not expected(cut, 1, "bridge").lost
    assert expected(cut, 1, "bridge").repeats
    assert expected(Fault("process_kill", 1.0, target="mqtt"), 1, "bridge").lost == {"acked", "written", "unknown"}
    assert not expected(Fault("process_kill", 1.0, target="postgres"), 1, "ingest").lost
