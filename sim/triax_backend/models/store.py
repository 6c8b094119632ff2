"""Models as bytes: skops files with a hash, on S3 or in a directory, announced by a manifest on triax.models.v1.

A skops file holds no code: what it may build is checked against a list before anything is built. Pickles are never read.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from triax_proto.names import MODELS
from triax_proto.v1.event_pb2 import Model

from triax_backend.models.errors import Rejected
from triax_backend.settings import Settings
from triax_backend.stream.features import MODEL_LENGTH

__all__ = ["announce", "dump", "fetch", "load", "manifest", "put"]

_FOLDER = "models"
# Types beyond skops' own list that our pipelines are made of; a file with any other is refused.
TRUSTED = ("numpy.dtype", "sklearn.tree._tree.Tree")


def dump(pipeline: Any) -> bytes:
    """The pipeline as a skops file."""
    import skops.io

    return bytes(skops.io.dumps(pipeline))


def load(data: bytes, hash_: bytes) -> Any:
    """The pipeline of a skops file with this SHA-256. Raises Rejected."""
    import skops.io

    if hashlib.sha256(data).digest() != hash_:
        raise Rejected("the file's hash is not the manifest's")
    try:
        strange = [name for name in skops.io.get_untrusted_types(data=data) if name not in TRUSTED]
        if strange:
            raise Rejected(f"the file holds types that are not trusted: {', '.join(strange)[:200]}")
        return skops.io.loads(data, trusted=list(TRUSTED))
    except Rejected:
        raise
    except Exception as error:  # whatever a broken file makes of skops, numpy and scikit-learn
        raise Rejected(f"the file cannot be loaded: {error}"[:300]) from error


def manifest(
    name: str, version: str, data: bytes, address: str, features: Sequence[str], threshold: float, scope: str, from_us: int
) -> Model:
    """Manifest of a model. Raises Rejected if name and version do not fit a feature row."""
    if len(f"{name}/{version}".encode()) > MODEL_LENGTH:
        raise Rejected(f"{name}/{version} is longer than {MODEL_LENGTH} bytes")
    return Model(
        name=name,
        version=version,
        hash=hashlib.sha256(data).digest(),
        address=address,
        effective_from_us=from_us,
        features=features,
        threshold=threshold,
        scope=scope,
    )


def _bucket(settings: Settings, bucket: str) -> Any:
    from obstore.store import S3Store

    s3 = settings.s3_parts()
    config = {"region": s3.region}
    if s3.endpoint is not None:
        config |= {"endpoint": s3.endpoint, "virtual_hosted_style_request": "false"}
    if s3.key is not None:
        config |= {"access_key_id": s3.key, "secret_access_key": s3.secret or ""}
    plain = s3.endpoint is not None and s3.endpoint.startswith("http:")
    return S3Store(bucket, config=config, client_options={"allow_http": plain, "timeout": "10s"})  # type: ignore[arg-type]


def put(settings: Settings, name: str, version: str, files: dict[str, bytes], directory: Path | None = None) -> str:
    """Store a model's files (its skops file is "model.skops"); return the address of that one."""
    place = f"{_FOLDER}/{name}/{version}"
    if directory is not None:
        (directory / name / version).mkdir(parents=True, exist_ok=True)
        for file, data in files.items():
            (directory / name / version / file).write_bytes(data)
        return (directory / name / version / "model.skops").resolve().as_uri()
    import obstore

    bucket = settings.s3_parts().bucket
    for file, data in files.items():
        obstore.put(_bucket(settings, bucket), f"{place}/{file}", data)
    return f"s3://{bucket}/{place}/model.skops"


def fetch(settings: Settings, address: str) -> bytes:
    """Bytes at s3://bucket/key or file:///path. Raises Rejected if there is nothing, OSError if the place is away."""
    parts = urlsplit(address)
    if parts.scheme == "file":
        try:
            return Path(parts.path).read_bytes()
        except FileNotFoundError:
            raise Rejected(f"there is nothing at {address}") from None
    if parts.scheme != "s3":
        raise Rejected(f"{address!r} is no address of a model: want s3://bucket/key")
    import obstore
    from obstore.exceptions import BaseError, NotFoundError

    try:
        return bytes(obstore.get(_bucket(settings, parts.netloc), parts.path.lstrip("/")).bytes())
    except (NotFoundError, FileNotFoundError):
        raise Rejected(f"there is nothing at {address}") from None
    except BaseError as error:
        raise OSError(str(error)[:300]) from None


def announce(settings: Settings, model: Model) -> None:
    """Put the manifest on the compacted topic, under its name and version. Raises OSError if Kafka does not take it."""
    from confluent_kafka import Producer

    failed: list[str] = []
    producer = Producer({**settings.kafka_config(), "enable.idempotence": True, "delivery.timeout.ms": 20_000, "log_level": 2})
    producer.produce(
        MODELS,
        model.SerializeToString(),
        f"{model.name}/{model.version}".encode(),
        on_delivery=lambda error, _: failed.append(error.str()) if error is not None else None,
    )
    if producer.flush(25) or failed:
        raise OSError(f"{MODELS} did not take the manifest: {failed or 'no answer'}")
