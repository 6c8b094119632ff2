"""Histograms against hdrhistogram, another program's, and against the values themselves."""

import json

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from triax_sim.histogram import Histogram

PERCENTS = (0.1, 1, 25, 50, 90, 99, 99.9, 99.99, 100)


def filled(values):
    histogram = Histogram()
    histogram.record(np.asarray(values, np.int64))
    return histogram


@pytest.mark.parametrize("seed", range(5))
def test_percentiles_are_within_a_thousandth(seed):
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.integers(0, 3000, 500), (10 ** rng.uniform(0, 10, 5000)).astype(np.int64)])
    histogram = filled(values)
    exact = np.sort(values)
    other = HdrHistogram(1, 10**11, 3)
    for value in values.tolist():
        other.record_value(value)
    for percent, found in zip(PERCENTS, histogram.percentiles(PERCENTS), strict=True):
        true = exact[max(0, int(np.ceil(len(exact) * percent / 100)) - 1)]
        assert true <= found <= true * 1.001 + 1
        if percent < 99.99 or percent == 100:  # hdrhistogram rounds the rank there, of 5,500 values, to the last but one
            assert found == pytest.approx(other.get_value_at_percentile(percent), rel=0.002, abs=1)
    assert histogram.maximum == exact[-1]
    assert histogram.mean() == pytest.approx(exact.mean())


def test_many_at_once_and_few_are_the_same():
    values = np.random.default_rng(1).integers(0, 10**7, 20_000)
    piecemeal = Histogram()
    for part in np.array_split(values, 300):
        piecemeal.record(part)
    assert (piecemeal.counts == filled(values).counts).all()


def test_merged_is_what_one_would_have_recorded():
    values = np.random.default_rng(2).integers(0, 10**6, 1000)
    whole, a, b = filled(values), filled(values[:300]), filled(values[300:])
    a.merge(b)
    assert a.to_json() == whole.to_json()


def test_negative_values_are_evidence():
    histogram = filled([-5, -900, 7])
    assert (histogram.count, histogram.negative, histogram.lowest) == (1, 2, -900)
    assert histogram.summary()["negative"] == 2
    only = filled([-1])
    assert (only.count, only.percentile(50)) == (0, 0)


def test_empty_and_extreme():
    assert Histogram().summary() == {"count": 0, "p50": 0, "p99": 0, "p999": 0, "max": 0}
    assert filled([2**50]).maximum == 2**50
    assert filled([2047, 2048, 2049]).percentiles([1, 60, 100]) == [2047, 2049, 2049]


def test_json_and_back():
    histogram = filled([1, 2, 3, 10**6])
    data = json.loads(json.dumps(histogram.to_json()))
    assert Histogram.from_json(data).to_json() == data
    for wrong in ({}, {**data, "count": 3}, {**data, "buckets": "AAAA"}):
        with pytest.raises(ValueError, match="histogram"):
            Histogram.from_json(wrong)
