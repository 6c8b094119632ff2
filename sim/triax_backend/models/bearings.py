"""Which bearing defect a raw capture shows: a forest of decision trees over capture vectors.

Trained on labelled captures (device, capture, label), split by device: a machine is either in the training or in the test.
"""

from typing import Any

import numpy as np

from triax_backend.models.errors import TooLittle
from triax_backend.models.vectors import CAPTURE_FEATURES
from triax_backend.models.windows import Trained

__all__ = ["LABELS", "predict", "train"]

Array = np.ndarray[Any, Any]
LABELS = ("healthy", "outer", "inner", "ball", "cage")
_TREES = 120
_LEAST_DEVICES = 4  # of each label


def train(vectors: Array, labels: Array, devices: Array, seed: int = 0) -> Trained:
    """Train on capture vectors (captures, features) with their labels and devices. Raises TooLittle.

    Three quarters of the devices of each label train, the others test; the model that is kept is trained on all of them.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(seed)
    test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        mine = np.unique(devices[labels == label])
        if len(mine) < _LEAST_DEVICES:
            raise TooLittle(f"{len(mine)} devices are labelled {label!r}; want at least {_LEAST_DEVICES}")
        test |= np.isin(devices, rng.permutation(mine)[: len(mine) // 4])

    def fitted(which: Array) -> Any:
        forest = RandomForestClassifier(_TREES, min_samples_leaf=2, class_weight="balanced", random_state=seed)
        return make_pipeline(StandardScaler(), forest).fit(vectors[which], labels[which])

    guessed = fitted(~test).predict(vectors[test])
    names = sorted(set(labels.tolist()))
    matrix = {true: {guess: int(((labels[test] == true) & (guessed == guess)).sum()) for guess in names} for true in names}
    report: dict[str, Any] = {
        "features": list(CAPTURE_FEATURES),
        "labels": names,
        "train": {"captures": int((~test).sum()), "devices": len(np.unique(devices[~test]))},
        "test": {
            "captures": int(test.sum()),
            "devices": len(np.unique(devices[test])),
            "accuracy": float((guessed == labels[test]).mean()),
            "confusion": matrix,
        },
    }
    for name in names:
        right = matrix[name][name]
        claimed, there = sum(matrix[true][name] for true in names), sum(matrix[name].values())
        report["test"][name] = {"precision": right / max(claimed, 1), "recall": right / max(there, 1)}
    return Trained(fitted(np.ones(len(labels), bool)), 0.5, report)


def predict(trained: Any, vectors: Array) -> tuple[Array, Array]:
    """Label of each vector and its probability."""
    pipeline = trained.pipeline if isinstance(trained, Trained) else trained
    probability = pipeline.predict_proba(vectors)
    best = probability.argmax(axis=1)
    return np.asarray(pipeline.classes_)[best], probability[np.arange(len(best)), best]
