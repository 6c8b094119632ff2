"""Faults planted in devices: where they are, what they do to the frames, and how findings are judged against them."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from triax_backend.stream.columns import of_frames
from triax_backend.stream.events import messages
from triax_backend.stream.process import Stream
from triax_proto.frame import frame_dtype
from triax_proto.v1.event_pb2 import Event
from triax_sim.bulk import PARTS, reduce_counts
from triax_sim.diagnosis import judge_findings
from triax_sim.motion import after, shock, sine
from triax_sim.plan import BadPlan, Cohort, Plan, Target
from triax_sim.planted import ANY_AXIS, KINDS, ONCE, Planted, plant, sick_bank, unit
from triax_sim.population import Population
from triax_sim.scenario import load, parse

PART = PARTS["adxl382"]
COHORTS = (Cohort("a", 0, 30, motion="smooth"), Cohort("b", 30, 20, "iis3dwb", "rotor"))


def test_the_same_seed_plants_the_same_one_a_device_of_every_kind():
    found = plant(5, COHORTS, 4, 60.0)
    assert found == plant(5, COHORTS, 4, 60.0)
    assert found != plant(6, COHORTS, 4, 60.0)
    assert [sum(fault.kind == kind for fault in found) for kind in KINDS] == [4] * 6
    assert len({fault.index for fault in found}) == 24
    assert all(0 <= fault.index < 50 and 0 < fault.frame < 600 for fault in found)
    assert len(plant(5, COHORTS, 20, 60.0)) == 50


def test_a_shock_reaches_its_peak_and_what_comes_after_was_not_before():
    times = np.arange(0, 0.1, 1e-6)
    g = shock(0.05, 3.0, (0, 1, 0), 1200.0, 0.002)(times)
    assert g[:, 1].max() == pytest.approx(3.0, rel=1e-4)
    assert not g[times < 0.05].any()
    assert not g[:, [0, 2]].any()
    late = after(0.05, sine(1.0, 100.0))(times)
    assert not late[times < 0.05].any()
    assert (late[times >= 0.05] == sine(1.0, 100.0)(times)[times >= 0.05]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_sick_bank_is_what_the_unit_measures_from_the_fault_on(kind):
    fault = Planted(kind, 3, 20, ANY_AXIS if kind == "bearing" else 1, {"level_shift": 0.1, "drift": 0.002}.get(kind, 6.0), 0.4)
    healthy, sick = (unit(PART, "smooth", 9, one) for one in (None, fault))
    first = fault.frame * PART.samples
    assert (healthy(0, first) == sick(0, first)).all(), "nothing before"
    assert (healthy(first, PART.samples) != sick(first, PART.samples)).any()
    bank = sick_bank(fault, PART, "smooth", 9, 30)
    count = {"spike": 1, "glitch": 1, "drift": 10}.get(kind, 64)
    assert len(bank.frames) == count
    assert bank.frames.tobytes() == reduce_counts(unit(PART, "smooth", 9, fault)(first, count * PART.samples), PART).tobytes()
    if kind in ONCE:
        after_it = first + PART.samples
        assert np.abs(healthy(after_it, 1600) - sick(after_it, 1600)).max() <= 1, "over with its frame"


def test_bulk_devices_have_their_fault_from_its_frame_on_and_others_none():
    faults = plant(3, COHORTS[:1], 1, 62.0)
    plan = Plan(Target(), COHORTS[:1], "", "", seed=3, duration_s=62.0, options={"planted": [asdict(fault) for fault in faults]})
    people = Population(plan)
    people.begin(1_760_000_000_000_000)
    stream, events = Stream(), []
    for number in range(620):
        rows, _ = people.frames(0, np.arange(people.count), np.full(people.count, number))
        events += messages(stream.process(of_frames(rows.view(frame_dtype()).ravel(), 0))[1])
    devices = dict(zip(people.device.tolist(), people.index.tolist(), strict=True))
    found = judge_findings(faults, devices, [plan.boot], events)
    # A weak shock that dies away at once may hold no more energy than bad samples could: all others are found.
    assert all(row["found"] == 1 for kind, row in found["kinds"].items() if kind != "spike")
    assert [row["wrong"] for row in found["kinds"].values()] == [0] * 6
    assert (found["wrong"], found["spikes_of_glitches"]) == ([], 0)


def event(kind, device, axis, last, boot=1):
    out = Event(device=device, boot=boot, kind=Event.Kind.Value(f"KIND_{kind.upper()}"))
    out.finding.axis, out.finding.first_sequence, out.finding.last_sequence = axis, max(0, last - 1), last
    return out


def test_findings_are_right_by_kind_axis_and_time():
    spike, glitch = Planted("spike", 0, 100, 2, 5.0, 0.5), Planted("glitch", 1, 200, 0, 9.0, 0.5)
    missed = Planted("drift", 2, 50, 1, 0.001, 0.5)
    bearing = Planted("bearing", 3, 100, ANY_AXIS, 2.0, 0.5)
    devices = {16 + n: n for n in range(6)}
    events = [
        event("spike", 16, 2, 100),
        event("spike", 16, 1, 100),  # another axis
        event("spike", 16, 2, 103),  # too late
        event("glitch", 17, 0, 201),
        event("spike", 17, 0, 200),  # of a glitch
        event("bearing", 19, 0, 150),
        event("bearing", 19, 1, 170),  # on all axes
        event("dead_axis", 21, 0, 10),  # of a healthy device
        event("dead_axis", 99, 0, 10),  # not ours
        event("dead_axis", 16, 0, 10, boot=2),  # another run
        event("missing", 16, 0, 10),  # of no such kind
    ]
    found = judge_findings([spike, glitch, missed, bearing], devices, [1], events)
    kinds = found["kinds"]
    assert (kinds["spike"]["recall"], kinds["spike"]["precision"], kinds["spike"]["wrong"]) == (1.0, 0.25, 3)
    assert (kinds["glitch"]["recall"], kinds["glitch"]["precision"]) == (1.0, 1.0)
    assert (kinds["bearing"]["found"], kinds["bearing"]["events"], kinds["bearing"]["windows_until"]) == (1, 2, 5.0)
    assert (kinds["drift"]["recall"], kinds["drift"]["windows_until"]) == (0.0, None)
    assert kinds["dead_axis"]["wrong"] == 1
    assert found["spikes_of_glitches"] == 1
    assert [entry["kind"] for entry in found["missed"]] == ["drift"]
    assert len(found["wrong"]) == 4


def test_a_scenario_says_what_is_planted_and_where_it_cannot_be():
    scenario = load("planted")
    assert len(scenario.planted) == 48
    assert scenario.devices - scenario.tampering.devices == 200
    assert scenario.planted == replace(scenario, gates=scenario.gates).planted
    few = '[[cohort]]\nname = "a"\ndevices = 40\n[plant]\neach = 8\n'
    with pytest.raises(BadPlan, match="do not fit on 40 devices"):
        parse(few)
    with pytest.raises(BadPlan, match="a reboot begins"):
        parse(few.replace("8", "2") + '[[event]]\nkind = "reboot"\nat_s = 3.0\n')
