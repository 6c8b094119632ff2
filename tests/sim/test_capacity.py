"""Search and cost model, against systems whose capacity and cost are known."""

import numpy as np
import pytest
from triax_sim.capacity import Point, fit, point_of, search
from triax_sim.plan import BadPlan

COSTS = {"mqtt": (0.01, 9e-6), "kafka": (0.06, 4.5e-6), "bridge": (0.02, 5e-6), "postgres": (0.005, 2e-6), "generator": (0.0, 8e-6)}


def measured(devices, rng=None, verdict="PASS"):
    """A run of a system with these costs, measured within 4 %."""
    noise = (lambda: 1.0) if rng is None else (lambda: float(rng.normal(1, 0.04)))
    cores = {name: (base + slope * devices * 10) * noise() for name, (base, slope) in COSTS.items()}
    return Point(devices, verdict, devices * 10.0, cores, 800.0)


@pytest.mark.parametrize("limit", [100, 137, 999, 6400, 10_000])
def test_the_search_ends_within_a_tenth_of_the_limit(limit):
    tried = []

    def measure(devices):
        tried.append(devices)
        return measured(devices, verdict="PASS" if devices <= limit else "FAIL")

    best, points = search(measure, 100, 10_000)
    assert best <= limit < best * 1.1 + 2 or best == 10_000
    assert len(points) == len(tried) <= 14


def test_a_system_that_holds_nothing_and_a_generator_that_fails():
    assert search(lambda n: measured(n, verdict="FAIL"), 50, 1000) == (0, [measured(50, verdict="FAIL")])
    verdicts = iter(["INVALID", "PASS", "INVALID", "INVALID", "PASS", "PASS", "PASS", "PASS"])
    best, points = search(lambda n: measured(n, verdict=next(verdicts)), 100, 1000)
    assert [p.devices for p in points][:4] == [100, 100, 200, 200]
    assert 150 <= best < 200
    with pytest.raises(BadPlan, match="nothing to try"):
        search(measured, 10, 5)


@pytest.mark.parametrize("seed", range(20))
def test_a_point_that_was_not_seen_is_predicted_within_15_percent(seed):
    rng = np.random.default_rng(seed)
    model = fit([measured(n, rng) for n in (300, 600, 1200, 2000)], cell_devices=2000)
    for devices in (1500, 4000):
        assert model.error(measured(devices, rng)) <= 0.15
    need = model.predict(10_000)
    expected, low, high = need.total_cores
    assert low < expected < high
    assert need.cells == 5
    assert need.frames_s == pytest.approx(100_000)
    assert need.network_mb_s == pytest.approx(31.1)
    assert need.disk_gb_day == pytest.approx(273 * 100_000 * 86_400 / 1e9)
    assert set(need.cores) == {"mqtt", "kafka", "bridge", "postgres"}


def test_the_interval_covers_the_truth_as_often_as_it_says():
    hits = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        points = [measured(n, rng) for n in (300, 600, 900, 1200, 1500, 1800)]
        _, low, high = fit(points).predict(1400).total_cores
        hits += low <= measured(1400, rng).path_cores <= high
    assert hits >= 180


def test_no_process_becomes_cheaper_with_more_frames():
    """Kafka compiles while the first rungs run."""
    points = [Point(n, "PASS", 10.0 * n, {"kafka": used}, 0.0) for n, used in ((500, 0.17), (1000, 0.13), (2000, 0.12))]
    expected, low, high = fit(points).predict(10_000).cores["kafka"]
    assert 0.0 <= low <= expected <= high
    assert expected >= 0.1


def test_machines_are_planned_with_headroom():
    model = fit([measured(n) for n in (500, 1000, 2000)])
    cores = model.predict(10_000).total_cores[0]
    assert cores == pytest.approx(0.095 + 20.5e-6 * 100_000)
    assert model.machines(10_000, 2) == 2
    assert model.machines(10, 64) == 1


def test_too_few_rates_are_no_model():
    with pytest.raises(BadPlan, match="three different rates"):
        fit([measured(100), measured(100), measured(200)])


def test_a_point_of_a_report():
    data = {
        "verdict": "PASS",
        "reasons": [],
        "scenario": {"duration_s": 20.0, "cohorts": [{"count": 90}, {"count": 10}]},
        "processes": [{"name": "mqtt", "cores": 0.15}],
        "generator": {"cpu_us_per_frame": 10.0, "sent": 20_000, "due": 20_000},
        "memory_bytes": 1 << 30,
    }
    point = point_of(data)
    assert (point.devices, point.frames_s, point.memory_mib) == (100, 1000.0, 1024.0)
    assert point.cores == {"mqtt": 0.15, "generator": 0.01}
    assert point.path_cores == 0.15
