"""The guided capture: states, prompts, what it accepts and what it gives back."""

import itertools

import numpy as np
import pytest
from triax_tools.calibrate import guide, pose, simulate
from triax_tools.calibrate.guide import Guide

RATE = 100.0
SCALE = 1 / simulate.COUNTS_PER_G


class Stage:
    """A unit, a hand and a guide; `play` moves and says what was heard."""

    def __init__(self, seed=1, **options):
        self.rng = np.random.default_rng(seed)
        self.unit = simulate.draw_unit(self.rng, rate_hz=RATE)
        self.guide = Guide(RATE, SCALE, **options)
        self.up = pose.CELLS[4]

    def play(self, g):
        return self.guide.feed(self.unit.read(g, self.rng))

    def rest(self, seconds, creep_g_per_s=0.0):
        across = np.cross(self.up, [0.3, 0.5, 0.8])
        creep = np.outer(np.arange(int(seconds * RATE)) / RATE, across / np.linalg.norm(across)) * creep_g_per_s
        return self.play(simulate.hold(self.up, len(creep)) + creep)

    def turn(self, cell, seconds=1.5, most_deg=7.0):
        after = simulate.tilt(pose.CELLS[cell], self.rng, most_deg)
        heard = self.play(simulate.move(self.up, after, int(seconds * RATE), RATE, self.rng))
        self.up = after
        return heard

    def hand(self, seconds, tremor_g):
        count = int(seconds * RATE)
        return self.play(simulate.hold(self.up, count) + simulate.tremor(count, RATE, tremor_g, self.rng))


def kinds(prompts):
    return [p.kind for p in prompts]


def test_all_eighteen_in_any_order():
    stage = Stage()
    order = stage.rng.permutation(18)
    heard = []
    for cell in order:
        stage.turn(cell)
        heard += stage.rest(13)
    assert kinds(heard).count("accepted") == 18
    assert heard[-1].kind == "done"
    assert stage.guide.done
    assert stage.guide.state == guide.COMPLETE
    assert sorted(stage.guide.taken) == list(range(18))
    for cell, taken in stage.guide.taken.items():
        assert taken.stop - taken.start == 1000
        truth = stage.unit.model.apply(taken.mean)
        assert np.linalg.norm(truth) == pytest.approx(1, abs=100e-6)
        assert pose.cell_of(truth)[0] == cell


def test_the_next_pose_is_the_smallest_turn_away():
    stage = Stage()
    stage.turn(0)
    heard = stage.rest(13)
    assert heard[-1].kind == "turn"
    assert float(pose.CELLS[heard[-1].cell] @ pose.CELLS[0]) == pytest.approx(np.cos(np.pi / 4))
    assert heard[-1].text == pose.instruction(heard[-1].cell)


def test_creep_is_rejected_with_its_amount_and_the_hold_starts_anew():
    stage = Stage()
    stage.turn(2)
    heard = stage.rest(12.5, creep_g_per_s=0.31e-3)
    rejected = [p for p in heard if p.kind == "rejected"]
    assert len(rejected) == 1
    assert rejected[0].moved_g == pytest.approx(3.1e-3, rel=0.1)
    assert rejected[0].text == f"moved by {rejected[0].moved_g * 1e3:.1f} mg: hold again"
    assert stage.guide.state == guide.HOLDING
    assert "accepted" in kinds(stage.rest(12))


def test_a_knock_in_the_hold_starts_it_anew():
    stage = Stage()
    stage.turn(3)
    stage.rest(6)
    ring = np.exp(-np.arange(20) / 4) * np.cos(np.arange(20) * 1.7)
    heard = stage.play(simulate.hold(stage.up, 20) + np.outer(ring, [0.1, 0.05, 0]))
    heard += stage.rest(5)
    assert "rejected" in kinds(heard)
    assert "accepted" not in kinds(heard)
    assert "accepted" in kinds(stage.rest(9))


def test_a_pose_done_already_and_one_between_cells():
    stage = Stage()
    stage.turn(0)
    stage.rest(13)
    stage.turn(2)
    stage.rest(13)
    stage.turn(0)
    heard = stage.rest(4)
    assert kinds(heard) == ["duplicate"]
    assert heard[0].text.startswith("+X is done already: turn")
    corner = np.ones(3) / np.sqrt(3)
    stage.play(simulate.move(stage.up, corner, 150, RATE, stage.rng))
    stage.up = corner
    heard = stage.rest(4)
    assert kinds(heard) == ["between"]
    assert "degrees from" in heard[0].text


def test_tremor_is_no_rest_once_the_floor_is_known():
    stage = Stage()
    stage.turn(0)
    stage.rest(13)
    stage.turn(2)
    heard = stage.hand(20, 5e-3)
    assert "hold" not in kinds(heard)
    assert 2 not in stage.guide.taken


def test_poses_taken_in_the_hand_are_given_back_when_the_floor_becomes_known():
    stage = Stage()
    stage.turn(0)
    heard = stage.hand(14, 4e-3)
    assert kinds(heard)[-2:] == ["accepted", "turn"]  # nothing quieter is known yet
    stage.turn(2)
    heard = stage.rest(4)
    assert "revoked" in kinds(heard)
    assert "was taken in the hand" in next(p.text for p in heard if p.kind == "revoked")
    assert 0 not in stage.guide.taken


def test_redo_opens_the_last_pose_and_a_finished_capture():
    stage = Stage(cells=(0, 2))
    for cell in (0, 2):
        stage.turn(cell)
        stage.rest(13)
    assert stage.guide.done
    heard = stage.guide.redo()
    assert kinds(heard) == ["redone"]
    assert heard[0].text == "+Y is open again: turn +Y up"
    assert stage.guide.missing == [2]
    stage.turn(0)
    stage.turn(2)
    assert kinds(stage.rest(13))[-1] == "done"
    assert kinds(Guide(RATE, SCALE).redo()) == ["redone"]


def test_a_gap_ends_the_hold():
    stage = Stage()
    stage.turn(0)
    stage.rest(6)
    assert stage.guide.state == guide.HOLDING
    assert kinds(stage.guide.gap()) == ["gap"]
    heard = stage.rest(9)
    assert "accepted" not in kinds(heard)
    assert "accepted" in kinds(stage.rest(4))
    assert stage.guide.gap() == []


@pytest.mark.parametrize("piece", [1, 7, 10, 33, 1000])
def test_how_the_values_are_cut_does_not_matter(piece):
    def run(cut):
        stage = Stage(seed=5)
        g = np.vstack([simulate.hold(pose.CELLS[4], 1300), simulate.move(pose.CELLS[4], pose.CELLS[0], 150, RATE, stage.rng)])
        counts = stage.unit.read(np.vstack([g, simulate.hold(pose.CELLS[0], 1300)]), stage.rng)
        heard = []
        for low in range(0, len(counts), cut):
            heard += stage.guide.feed(counts[low : low + cut])
        return [(p.kind, p.cell) for p in heard], {c: (t.start, t.stop) for c, t in stage.guide.taken.items()}

    assert run(piece) == run(10**6)


def test_every_edge_of_the_machine_is_walked_and_no_other():
    seen = set()

    class Watched(Guide):
        def _to(self, state):
            seen.add((self.state, state))
            super()._to(state)

    stage = Stage()
    stage.guide = Watched(RATE, SCALE, cells=(0, 2))
    stage.turn(0)
    stage.rest(1.6)
    stage.hand(1, 20e-3)
    stage.rest(5)
    stage.hand(1, 20e-3)
    stage.rest(13)
    stage.turn(2)
    stage.rest(13)
    assert stage.guide.done
    allowed = {(a, b) for a, after in guide.NEXT.items() for b in after}
    assert seen <= allowed
    assert {(guide.MOVING, guide.SETTLING), (guide.SETTLING, guide.HOLDING), (guide.SETTLING, guide.MOVING)} <= seen
    assert {(guide.HOLDING, guide.MOVING), (guide.HOLDING, guide.TAKEN), (guide.HOLDING, guide.COMPLETE)} <= seen
    assert (guide.TAKEN, guide.MOVING) in seen


def test_snapshot_is_what_the_page_draws():
    stage = Stage()
    stage.turn(0)
    stage.rest(13)
    shown = stage.guide.snapshot()
    assert shown["taken"] == 1
    assert shown["of"] == 18
    assert [c["name"] for c in shown["cells"] if c["taken"]] == ["+X"]
    assert shown["state"] == "taken"
    assert shown["next"] in pose.NAMES


def test_cells_are_18_apart_by_45_degrees():
    cosines = [float(a @ b) for a, b in itertools.combinations(pose.CELLS, 2)]
    assert max(cosines) == pytest.approx(np.cos(np.pi / 4))
    assert len(set(pose.NAMES)) == 18
    assert pose.design_condition(pose.CELLS) == pytest.approx(6)
    assert pose.design_condition(pose.CELLS[:6]) == float("inf")
