"""Train models on the lake and hand them to the stream.

python -m triax_backend.models.train window [--name N] [--since-hours H] [--effective-in-s S] [--dry-run]
python -m triax_backend.models.train bearing --labels labels.csv [...]       device,capture,label with device as 16 hex digits
python -m triax_backend.models.train score --model file.skops --name N --version V      score every capture of the lake

A model's skops file, card.md and card.json go to S3, its manifest to triax.models.v1; --out DIR keeps all of it in a directory
instead.
"""

import argparse
import csv
import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from triax_proto.frame import frame_dtype
from triax_proto.names import device_id
from triax_proto.v1.event_pb2 import Model

from triax_backend.batch.captures import Capture, captures
from triax_backend.batch.source import lake_tables
from triax_backend.models import bearings, store, windows
from triax_backend.models.card import card
from triax_backend.models.errors import ModelError, TooLittle
from triax_backend.models.vectors import LEAST_CAPTURE_S, capture_vector
from triax_backend.models.windows import Trained
from triax_backend.settings import Settings
from triax_backend.sinks.lake_rows import groups_of
from triax_backend.stream.columns import of_frames
from triax_backend.stream.features import FEATURE
from triax_backend.stream.process import Stream

__all__ = ["features_of", "labelled", "main", "publish", "store_unusual", "train_bearing", "train_window"]

log = logging.getLogger("triax.models")
Array = np.ndarray[Any, Any]


def features_of(tables: Iterable[pa.Table]) -> Array:
    """FEATURE rows of the lake's frames, by the stream's own functions: what a model is trained on is what it will score."""
    stream = Stream()
    parts = []
    for table in tables:
        in_order = table.sort_by([("kafka_partition", "ascending"), ("kafka_offset", "ascending"), ("place", "ascending")])
        for frames, _, rows in groups_of(in_order):
            if frames.dtype == frame_dtype():
                partitions = in_order["kafka_partition"].take(pa.array(rows)).to_numpy()
                parts.append(stream.process(of_frames(frames, partitions.astype(np.int32)))[0])
    return np.concatenate(parts) if parts else np.zeros(0, FEATURE)


def train_window(tables: Iterable[pa.Table], seed: int = 0) -> tuple[Trained, dict[str, Any]]:
    """A model of windows and where its data came from. Raises TooLittle."""
    rows = features_of(tables)
    if not len(rows):
        raise TooLittle("the lake has no frames; wait until some are there")
    trained = windows.train(rows, seed)
    ones = rows[rows["windows"] == 1]
    first, last = (
        np.datetime64(int(at), "us").item().isoformat(" ", "seconds") for at in (ones["time_us"].min(), ones["time_us"].max())
    )
    data = {
        "source": "frames of the lake",
        "windows": len(ones),
        "devices": len(np.unique(ones["device"])),
        "from": first,
        "to": last,
    }
    return trained, data


def labelled(found: Iterable[Capture], labels: dict[tuple[int, int], str]) -> Iterator[tuple[Array, str, int]]:
    """(vector, label, device) of captures that have a label by (device, capture) and are long enough."""
    for one in found:
        label = labels.get((one.device, one.capture))
        if label is not None and one.seconds >= LEAST_CAPTURE_S:
            yield capture_vector(one.g, one.rate_hz), label, one.device


def train_bearing(found: Iterable[Capture], labels: dict[tuple[int, int], str], seed: int = 0) -> tuple[Trained, dict[str, Any]]:
    """A model of raw captures and where its data came from. Raises TooLittle."""
    rows = list(labelled(found, labels))
    if not rows:
        raise TooLittle("no capture of the lake has a label; the file wants device,capture,label")
    vectors = np.array([vector for vector, _, _ in rows])
    names, devices = np.array([label for _, label, _ in rows]), np.array([device for _, _, device in rows])
    trained = bearings.train(vectors, names, devices, seed)
    return trained, {"source": "raw captures of the lake", "captures": len(rows), "devices": len(np.unique(devices))}


def publish(
    settings: Settings,
    trained: Trained,
    data: dict[str, Any],
    *,
    name: str,
    version: str,
    scope: str,
    effective_from_us: int,
    out: Path | None = None,
) -> Model:
    """Store a model with its card and announce it; with `out`, keep it in that directory and announce nothing."""
    file = store.dump(trained.pipeline)
    words, numbers = card(name, version, scope, trained.report, data)
    files = {"model.skops": file, "card.md": words.encode(), "card.json": numbers.encode()}
    address = store.put(settings, name, version, files, out)
    features = trained.report["features"]
    manifest = store.manifest(name, version, file, address, features, trained.threshold, scope, effective_from_us)
    if out is None:
        store.announce(settings, manifest)
    return manifest


def store_unusual(settings: Settings, trained: Trained, label: str, until_us: int) -> int:
    """How strange each device of the training data is, into batch_unusual."""
    import psycopg

    from triax_backend.batch import results

    rows = [
        {**one, "device": int(np.uint64(int(one["device"], 16)).astype(np.int64)), "model": label, "until_us": until_us}
        for one in trained.report["devices"]
    ]
    with psycopg.connect(settings.postgres) as connection:
        results.create(connection)
        return results.store_rows(connection, "batch_unusual", rows)


def _labels(path: Path) -> dict[tuple[int, int], str]:
    with path.open(newline="") as source:
        return {(device_id(row["device"]), int(row["capture"])): row["label"] for row in csv.DictReader(source)}


def _score(settings: Settings, options: argparse.Namespace) -> int:
    """Labels of all captures of the lake into batch_scores."""
    import hashlib

    import psycopg

    from triax_backend.batch import results

    file = options.model.read_bytes()
    pipeline = store.load(file, hashlib.sha256(file).digest())
    long = [one for one in captures(lake_tables(settings, "raw")) if one.seconds >= LEAST_CAPTURE_S]
    if not long:
        return 0
    guessed, probability = bearings.predict(pipeline, np.array([capture_vector(one.g, one.rate_hz) for one in long]))
    rows = [
        {
            "device": one.device - (1 << 64) if one.device >= 1 << 63 else one.device,
            "boot": one.boot,
            "capture": one.capture,
            "start": one.start,
            "model": f"{options.name}/{options.version}",
            "time_us": one.time_us,
            "label": str(label),
            "probability": float(share),
        }
        for one, label, share in zip(long, guessed, probability, strict=True)
    ]
    with psycopg.connect(settings.postgres) as connection:
        results.create(connection)
        return results.store_rows(connection, "batch_scores", rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("window", "bearing", "score"))
    parser.add_argument("--name", help="of the model; else `what`")
    parser.add_argument("--version", default=time.strftime("%Y%m%dT%H%M%S", time.gmtime()))
    parser.add_argument("--labels", type=Path, help="of captures, for `bearing`")
    parser.add_argument("--model", type=Path, help="skops file, for `score`")
    parser.add_argument("--since-hours", type=float, help="only what was received in the last H hours")
    parser.add_argument(
        "--effective-in-s", type=float, default=10.0, help="the stream swaps this long from now, in time of the data"
    )
    parser.add_argument("--out", type=Path, help="keep the model in this directory and announce nothing")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main() -> int:
    """Run as a command. Returns the exit code: 2 if there is too little to train on."""
    parser = _parser()
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    settings = Settings.from_env()
    options.name = options.name or options.what
    since = None if options.since_hours is None else int((time.time() - options.since_hours * 3600) * 1e6)
    try:
        if options.what == "score":
            print(json.dumps({"scored": _score(settings, options)}))
            return 0
        if options.what == "window":
            trained, data = train_window(lake_tables(settings, "frames", since), options.seed)
        else:
            if options.labels is None:
                parser.error("bearing wants --labels")
            trained, data = train_bearing(captures(lake_tables(settings, "raw", since)), _labels(options.labels), options.seed)
    except ModelError as error:
        log.error("%s", error)
        return 2
    manifest = publish(
        settings,
        trained,
        data,
        name=options.name,
        version=options.version,
        scope="window" if options.what == "window" else "raw",
        effective_from_us=int((time.time() + options.effective_in_s) * 1e6),
        out=options.out,
    )
    if options.what == "window" and options.out is None:
        store_unusual(settings, trained, f"{manifest.name}/{manifest.version}", manifest.effective_from_us)
    print(json.dumps({"name": manifest.name, "version": manifest.version, "address": manifest.address, "report": trained.report}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
