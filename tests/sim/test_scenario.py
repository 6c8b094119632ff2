"""Scenario files: the ones that come with triax load, wrong ones say what to write."""

from pathlib import Path

import pytest
from triax_sim.plan import BadPlan
from triax_sim.scenario import load, parse

FOLDER = Path(__file__).parents[2] / "sim" / "scenarios"
SMALL = '[[cohort]]\nname = "a"\ndevices = 10\n[tamper]\ndevices = 0\n'


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_those_that_come_with_triax(path):
    scenario = load(path)
    assert scenario.name == path.stem
    firsts = [cohort.first for cohort in scenario.cohorts]
    ends = [cohort.first + cohort.count for cohort in scenario.cohorts]
    assert firsts == [0, *ends[:-1]]
    assert scenario.cohorts[-1].reserved
    assert load(path.stem) == scenario


def test_six_at_least():
    assert {p.stem for p in FOLDER.glob("*.toml")} >= {"smoke", "ten-thousand", "storm", "outage", "faults", "soak"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "write \\[\\[cohort\\]\\]"),
        ("x = ", "is no TOML"),
        ("[rnu]\n" + SMALL, "there is no \\[rnu\\]"),
        ("[run]\ndurations = 3\n" + SMALL, "there is no 'durations'; there are"),
        ("[run]\nduration_s = 'long'\n" + SMALL, "duration_s = 'long' is no float"),
        ("[run]\nduration_s = 1\nwarmup_s = 2\n" + SMALL, "leaves nothing"),
        ("[run]\nprocesses = 0\n" + SMALL, "at least one generator"),
        ('[run]\nway = "bridge"\ntls = true\n' + SMALL, "take way = ingest"),
        ('[[cohort]]\nname = "a"\n', "give how many there are"),
        ('[[cohort]]\nname = "a"\ndevices = 3\nqos = 2\n', "sent at 0 or 1"),
        ('[[cohort]]\nname = "a"\ndevices = 3\nkind = "silver"\n', "bulk or gold"),
        ('[[cohort]]\nname = "a"\ndevices = 3\nmotion = "waltz"\n', "there is no motion 'waltz'; there are"),
        ('[[cohort]]\nname = "a"\ndevices = 3\npart = "adxl999"\n', "there is no part 'adxl999'; there are"),
        ('[[cohort]]\nname = "a"\ndevices = 3\nfirst = 7\n', "give `devices`"),
        (SMALL + SMALL.partition("[tamper]")[0], "different names"),
        ('[[event]]\nkind = "flood"\nat_s = 1\n' + SMALL, "it is one of outage"),
        ('[[event]]\nkind = "outage"\nat_s = 1\ncohort = "b"\n' + SMALL, "there is no cohort 'b'; there are a"),
        ('[[event]]\nkind = "outage"\nat_s = 99\n' + SMALL, "outside of the run"),
        ('[[event]]\nkind = "outage"\n' + SMALL, "at_s"),
        ('[[fault]]\nkind = "process_kill"\nat_s = 1\ntarget = "moon"\n' + SMALL, "target is 'moon'; it is one of mqtt"),
        ('[[fault]]\nkind = "fire"\nat_s = 1\n' + SMALL, "it is one of link_delay"),
        ("[gates]\nmissing = true\n" + SMALL, "is no int"),
        ("tamper = 3\n" + SMALL.partition("[tamper]")[0], "is no table"),
        ('[[cohort]]\nname = "a"\ndevices = 3\n[tamper]\ndevices = 2\neach = 50\n', "do not fit on 2 devices"),
    ],
)
def test_a_wrong_one_says_what_to_write(text, words):
    with pytest.raises(BadPlan, match=words):
        parse(text)


def test_a_missing_file_names_those_that_are_there():
    with pytest.raises(BadPlan, match="smoke"):
        load("no-such")


def test_other_size_and_quality():
    scenario = parse(SMALL.replace("devices = 0", "devices = 4\neach = 1"))
    assert scenario.devices == 14
    larger = scenario.with_(devices=100, qos=0, duration_s=30.0)
    assert [c.count for c in larger.cohorts] == [100, 4]  # the reserved ones come on top
    assert {c.qos for c in larger.cohorts} == {0}
    assert larger.duration_s == 30.0
    with pytest.raises(BadPlan, match="take 1 or more"):
        scenario.with_(devices=0)


@pytest.mark.parametrize("devices", [11, 12, 100, 201, 5000])
def test_cohorts_keep_their_proportions(devices):
    scenario = load("smoke").with_(devices=devices)
    gold, bulk = scenario.of_kind("gold"), scenario.of_kind("bulk")
    assert [c.count for c in gold] == [c.count for c in load("smoke").of_kind("gold")]
    assert sum(c.count for c in (*gold, *bulk)) == devices
    before = load("smoke").of_kind("bulk")
    whole = sum(c.count for c in before)
    for old, new in zip(before, bulk, strict=True):
        assert new.count == pytest.approx(old.count * (devices - gold[0].count) / whole, abs=2)
