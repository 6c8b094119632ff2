"""Snapshots of the stream's state, outside of it: one object for each partition, with the offset that it stands for.

The state at an offset is a function of the frames before it, so a snapshot is never wrong, only old: from it, frames are read again
up to the offset that the last committed transaction stands for, with nothing sent out, and the state is as it was. Hence snapshots
may be rare, and two instances that write one do no harm.
"""

import json
import logging
import os
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from triax_backend.settings import Settings
from triax_backend.stream.state import BadSnapshot

__all__ = ["Directory", "Objects", "Snapshots", "pack", "unpack"]

log = logging.getLogger("triax.stream")
_FOLDER = "stream"


class Snapshots(Protocol):
    """Where snapshots are. Both methods raise OSError when the place is away."""

    def save(self, partition: int, data: bytes) -> None:
        """Replace the partition's snapshot, whole or not at all."""

    def load(self, partition: int) -> bytes | None:
        """The partition's snapshot, None: there is none."""


def pack(offset: int, state: bytes) -> bytes:
    """State as of the frames before `offset`."""
    return json.dumps({"offset": offset, "bytes": len(state)}).encode() + b"\n" + state


def unpack(data: bytes) -> tuple[int, bytes]:
    """Offset and state. Raises BadSnapshot."""
    head, _, state = data.partition(b"\n")
    try:
        fields = json.loads(head)
        offset, size = int(fields["offset"]), int(fields["bytes"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadSnapshot(f"{len(data)} bytes are no snapshot: {error}") from None
    if size != len(state):
        raise BadSnapshot(f"a snapshot of {size} bytes has {len(state)}")
    return offset, state


class Directory:
    """Snapshots as files, for one machine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(parents=True, exist_ok=True)

    def save(self, partition: int, data: bytes) -> None:
        """Written beside, synced, renamed."""
        partial = self._path / f"{partition}.{os.getpid()}"
        with partial.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(self._path / f"{partition}.state")

    def load(self, partition: int) -> bytes | None:
        """The file's bytes."""
        try:
            return (self._path / f"{partition}.state").read_bytes()
        except FileNotFoundError:
            return None


class Objects:
    """Snapshots as objects in the lake's bucket, for any number of machines: <bucket>/stream/<group>/<partition>."""

    def __init__(self, settings: Settings, group: str) -> None:
        from obstore.store import S3Store  # a client of its own runtime: only where it is used

        s3 = settings.s3_parts()
        options: dict[str, str] = {"region": s3.region}
        if s3.endpoint is not None:
            options |= {"endpoint": s3.endpoint, "virtual_hosted_style_request": "false"}
        for name, value in (("access_key_id", s3.key), ("secret_access_key", s3.secret)):
            if value is not None:
                options[name] = value
        plain = s3.endpoint is not None and s3.endpoint.startswith("http:")
        self._store = S3Store(
            s3.bucket,
            config=options,  # type: ignore[arg-type]
            client_options={"allow_http": plain, "timeout": "10s"},
            retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=15)},
        )
        self._folder = f"{_FOLDER}/{group}"

    def save(self, partition: int, data: bytes) -> None:
        """One PUT."""
        import obstore
        from obstore.exceptions import BaseError

        try:
            obstore.put(self._store, f"{self._folder}/{partition}", data)
        except BaseError as error:
            raise OSError(str(error)[:300]) from None

    def load(self, partition: int) -> bytes | None:
        """One GET."""
        import obstore
        from obstore.exceptions import BaseError, NotFoundError

        try:
            return bytes(obstore.get(self._store, f"{self._folder}/{partition}").bytes())
        except (NotFoundError, FileNotFoundError):
            return None
        except BaseError as error:
            raise OSError(str(error)[:300]) from None
