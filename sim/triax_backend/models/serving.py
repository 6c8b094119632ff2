"""Models in the stream: taken from triax.models.v1, checked, swapped by the time of the data, the last good one kept.

A window is scored by the newest model whose effective-from is not after the window's own time, so a swap falls on the same window
however the stream was cut or replayed. A manifest whose file has another hash, cannot be loaded, or wants features that a window
has not, is refused with an event; what scored before goes on scoring.
"""

import logging
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition
from google.protobuf.message import DecodeError
from triax_proto.names import EVENTS, MODELS
from triax_proto.v1.event_pb2 import Event, Model

from triax_backend.models import store
from triax_backend.models.errors import Rejected
from triax_backend.models.vectors import WINDOW_FEATURES, window_vectors
from triax_backend.settings import Settings
from triax_backend.stream.events import NO_AXIS
from triax_backend.stream.features import MODEL_LENGTH

__all__ = ["SCOPE", "KafkaModels", "Scores"]

log = logging.getLogger("triax.models")
Array = np.ndarray[Any, Any]

SCOPE = "window"
_CATCH_UP_S = 10.0
_RETRY_S = 5.0  # while the place of a model is away
_KEPT = 8  # versions in memory: the present one, one to come, and those that late windows still want


@dataclass(frozen=True)
class _Loaded:
    label: bytes
    from_us: int
    threshold: float
    pipeline: Any


class Scores:
    """The models at hand. Call it with one-window FEATURE rows: fills `score` and `model`, returns the threshold of each."""

    def __init__(self) -> None:
        self._models: list[_Loaded] = []

    @property
    def versions(self) -> list[str]:
        """name/version of the models at hand, in the order in which they take effect."""
        return [model.label.decode() for model in self._models]

    def offer(self, manifest: Model, data: bytes) -> None:
        """Take a model in. Raises Rejected; then nothing has changed."""
        label = f"{manifest.name}/{manifest.version}".encode()
        if len(label) > MODEL_LENGTH:
            raise Rejected(f"its name and version are longer than {MODEL_LENGTH} bytes")
        if tuple(manifest.features) != WINDOW_FEATURES:
            raise Rejected(f"it wants {', '.join(manifest.features)[:200]}; a window has {', '.join(WINDOW_FEATURES)}")
        pipeline = store.load(data, manifest.hash)
        try:
            probe = np.asarray(pipeline.score_samples(np.zeros((2, len(WINDOW_FEATURES)))))
        except Exception as error:  # any pipeline at all may have come
            raise Rejected(f"it does not score windows: {error}"[:300]) from error
        if probe.shape != (2,) or not np.isfinite(probe).all() or not np.isfinite(manifest.threshold):
            raise Rejected("its scores are no finite numbers")
        loaded = _Loaded(label, manifest.effective_from_us, manifest.threshold, pipeline)
        others = [model for model in self._models if model.label != label]
        self._models = sorted([*others, loaded], key=lambda model: (model.from_us, model.label))[-_KEPT:]

    def __call__(self, rows: Array) -> Array:
        thresholds = np.full(len(rows), np.inf)
        if not self._models:
            return thresholds
        starts = np.array([model.from_us for model in self._models])
        which = np.searchsorted(starts, rows["time_us"], side="right") - 1
        for index in np.unique(which[which >= 0]).tolist():
            model, mine = self._models[index], np.flatnonzero(which == index)
            rows["score"][mine] = -model.pipeline.score_samples(window_vectors(rows[mine]))
            rows["model"][mine] = model.label
            thresholds[mine] = model.threshold
        return thresholds


class KafkaModels:
    """Follows triax.models.v1 beside the stream; see loop.Models. `now` is monotonic seconds."""

    def __init__(self, settings: Settings, now: Callable[[], float] = time.monotonic) -> None:
        self.score = Scores()
        self._settings, self._now = settings, now
        self._waiting: dict[str, Model] = {}  # by name/version: read, not yet taken in or refused
        self._caught_up = False
        self._next_try = 0.0
        self._consumer = Consumer(
            {**settings.kafka_config(), "group.id": "triax-models", "enable.auto.commit": False, "log_level": 0}
        )
        self._consumer.assign([TopicPartition(MODELS, 0, OFFSET_BEGINNING)])

    def poll(self) -> list[tuple[str, int, bytes | None, bytes]]:
        """Take in what is new; records of events about what was refused.

        The first call waits until all that is on the topic has been read: what is streamed again after a restart is scored by the
        models that scored it before.
        """
        if not self._caught_up:
            self._catch_up()
        self._read(self._consumer.consume(10, 0))
        out: list[tuple[str, int, bytes | None, bytes]] = []
        if self._waiting and self._now() >= self._next_try:
            for label, manifest in sorted(self._waiting.items()):
                event = self._try(manifest)
                if event is None:
                    continue
                del self._waiting[label]
                if event:
                    out.append((EVENTS, 0, b"models", event))
            self._next_try = self._now() + _RETRY_S
        return out

    def _catch_up(self) -> None:
        """Read up to the topic's end as of now. Raises KafkaException if Kafka does not answer."""
        first, end = self._consumer.get_watermark_offsets(TopicPartition(MODELS, 0), timeout=_CATCH_UP_S)
        until = self._now() + _CATCH_UP_S
        while first < end and self._now() < until:
            found = self._consumer.consume(100, 0.5)
            self._read(found)
            at = self._consumer.position([TopicPartition(MODELS, 0)])[0].offset
            first = max(first, at)
        self._caught_up = True

    def _read(self, messages: list[Message]) -> None:
        for message in messages:
            if message.error() is not None or not message.value():
                continue
            manifest = Model()
            try:
                manifest.ParseFromString(message.value() or b"")
            except DecodeError:
                log.error("a manifest on %s cannot be read", MODELS)
                continue
            if manifest.scope == SCOPE:
                self._waiting[f"{manifest.name}/{manifest.version}"] = manifest
                self._next_try = 0.0

    def _try(self, manifest: Model) -> bytes | None:
        """b"": taken; an event: refused; None: to be tried again."""
        label = f"{manifest.name}/{manifest.version}"
        try:
            self.score.offer(manifest, store.fetch(self._settings, manifest.address))
        except OSError as error:
            log.warning("model %s cannot be fetched yet: %s", label, error)
            return None
        except Rejected as error:
            log.error("model %s is refused, %s stays: %s", label, self.score.versions[-1:] or "none", error)
            return bytes(refusal(manifest, str(error)).SerializeToString(deterministic=True))
        log.info("model %s from %d us on", label, manifest.effective_from_us)
        return b""

    def close(self) -> None:
        """Leave Kafka."""
        self._consumer.close()


def refusal(manifest: Model, why: str) -> Event:
    """The event of a refused model: the same bytes from every instance that refuses it."""
    event = Event(kind=Event.KIND_MODEL_REJECTED, time_us=manifest.effective_from_us)
    event.number = zlib.crc32(f"{manifest.name}/{manifest.version}".encode() + manifest.hash)
    event.finding.axis, event.finding.model = NO_AXIS, f"{manifest.name}/{manifest.version}"
    event.finding.quantity = why[:300]
    return event
