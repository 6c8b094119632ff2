"""Unusual windows and devices: a mixture of normal distributions over window vectors, trained on a fleet that is mostly well.

The pipeline scales each feature and fits as many normal distributions as the Bayesian information criterion asks for (machines of
one kind run in a few states). The score of a window is minus the log of its density; the threshold is the highest of a held-out
part of the fleet's scores, less a share of windows that may be above it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from triax_backend.models.errors import TooLittle
from triax_backend.models.vectors import WINDOW_FEATURES, window_vectors

__all__ = ["Split", "Trained", "judge", "split", "train", "unusual_devices"]

Array = np.ndarray[Any, Any]
_STATES = (1, 2, 4, 8, 16)
_LEAST_ROWS = 200
_SHARE_ABOVE = 0.001  # of healthy windows: one in a thousand, a quarter of an hour of one device
# A held-out part cannot show its own far tail, and crests have a longer one than a normal distribution: the distance of that
# quantile from the median, times this. At 1.5, 2 % of healthy windows of other machines were above; at 2.5 one in a thousand is,
# and all planted faults still are.
_TAIL = 2.5
_MAX_TRAIN = 200_000


@dataclass(frozen=True)
class Split:
    """Rows for training, for the threshold and for the test: no device and no moment is in two of them."""

    train: Array
    tune: Array
    test: Array


@dataclass(frozen=True)
class Trained:
    """A pipeline with what is known of it."""

    pipeline: Any
    threshold: float
    report: dict[str, Any]


def split(device: Array, time_us: Array, seed: int = 0) -> Split:
    """Masks: half of the devices in the first half of the time, a quarter in the third quarter, the rest in the last.

    Raises TooLittle with fewer than four devices.
    """
    devices = np.unique(device)
    if len(devices) < 4:
        raise TooLittle(f"{len(devices)} devices; four are the least that can be split")
    order = np.random.default_rng(seed).permutation(len(devices))
    part = np.zeros(len(devices), int)
    part[order[len(devices) // 2 :]] = 1
    part[order[3 * len(devices) // 4 :]] = 2
    mine = part[np.searchsorted(devices, device)]
    half, later = np.quantile(time_us, (0.5, 0.75))
    return Split(
        (mine == 0) & (time_us <= half),
        (mine == 1) & (time_us > half) & (time_us <= later),
        (mine == 2) & (time_us > later),
    )


def train(rows: Array, seed: int = 0) -> Trained:
    """Train on FEATURE rows of single windows of a fleet that is mostly well. Raises TooLittle."""
    from sklearn.mixture import GaussianMixture
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = rows[(rows["windows"] == 1) & (rows["frames"] == 10)]
    parts = split(rows["device"], rows["time_us"], seed)
    vectors = window_vectors(rows)
    fit = vectors[parts.train]
    if len(fit) < _LEAST_ROWS or parts.tune.sum() < _LEAST_ROWS // 4:
        raise TooLittle(
            f"{len(fit)} windows to train on and {parts.tune.sum()} to set the threshold; want {_LEAST_ROWS} and a quarter"
        )
    if len(fit) > _MAX_TRAIN:
        fit = fit[np.random.default_rng(seed).choice(len(fit), _MAX_TRAIN, replace=False)]
    best = None
    for states in _STATES:
        if states * 40 > len(fit):
            break
        mixture = GaussianMixture(states, covariance_type="full", reg_covar=1e-3, random_state=seed, n_init=2)
        pipeline = make_pipeline(StandardScaler(), mixture).fit(fit)
        criterion = mixture.bic(pipeline[0].transform(fit))
        if best is None or criterion < best[0]:
            best = criterion, states, pipeline
    assert best is not None  # one state always fits
    _, states, pipeline = best
    held = -pipeline.score_samples(vectors[parts.tune])
    usual = float(np.median(held))
    threshold = usual + _TAIL * (float(np.quantile(held, 1 - _SHARE_ABOVE)) - usual)
    report = {
        "features": list(WINDOW_FEATURES),
        "states": states,
        "threshold": threshold,
        "train": {"windows": len(fit), "devices": len(np.unique(rows["device"][parts.train]))},
        "tune": {"windows": int(parts.tune.sum()), "devices": len(np.unique(rows["device"][parts.tune]))},
        "test": _tested(pipeline, threshold, vectors[parts.test], rows["device"][parts.test]),
    }
    trained = Trained(pipeline, threshold, report)
    report["devices"] = [
        {"device": f"{device:016x}", "score": score, "share_above": share}
        for device, score, share in unusual_devices(trained, rows)
    ]
    return trained


def _tested(pipeline: Any, threshold: float, vectors: Array, device: Array) -> dict[str, Any]:
    if not len(vectors):
        return {"windows": 0, "devices": 0}
    above = -pipeline.score_samples(vectors) > threshold
    return {"windows": len(vectors), "devices": len(np.unique(device)), "share_above": float(above.mean())}


def judge(trained: Trained, rows: Array, faulty: Array) -> dict[str, float]:
    """Recall of `faulty` rows and share of the others above the threshold."""
    above = -trained.pipeline.score_samples(window_vectors(rows)) > trained.threshold
    return {
        "faulty": int(faulty.sum()),
        "recall": float(above[faulty].mean()) if faulty.any() else 0.0,
        "healthy": int((~faulty).sum()),
        "false_share": float(above[~faulty].mean()) if (~faulty).any() else 0.0,
    }


def unusual_devices(trained: Trained, rows: Array) -> list[tuple[int, float, float]]:
    """(device, median score, share of windows above the threshold) of each device, the strangest first."""
    scores = -trained.pipeline.score_samples(window_vectors(rows))
    out = []
    for device in np.unique(rows["device"]).tolist():
        mine = scores[rows["device"] == device]
        out.append((int(device), float(np.median(mine)), float((mine > trained.threshold).mean())))
    return sorted(out, key=lambda item: (-item[1], item[0]))
