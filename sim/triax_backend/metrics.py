"""A stage's closed account and its health, for Prometheus.

    in = out + dead-lettered + repeats + returned + in flight

`returned` counts what was read and given back to be read again, after a failed write or a rebalance, so the account stays closed
through faults. Health means delivery: a stage that is connected and delivers nothing while something waits is not healthy.
"""

import json
import threading
import time
from collections.abc import Callable
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Account", "MetricsServer", "serve"]

# Twice the longest pause that normal work makes (a lake flush of 5 s), so that only a stop shows.
STALL_S = 15.0


class Account:
    """Counters of one stage, in frames (messages where a topic holds no frames). Thread-safe as far as prometheus_client is."""

    def __init__(self, stage: str, registry: CollectorRegistry | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self.stage = stage
        self.registry = registry or CollectorRegistry()
        self._now = now
        self._in = self._counter("frames_in", "Read from the stage before")
        self._out = self._counter("frames_out", "Delivered to the next stage")
        self._repeats = self._counter("frames_repeated", "Removed because they were delivered before")
        self._returned = self._counter("frames_returned", "Read and given back, to be read again")
        self._dead = Counter("triax_frames_dead", "Dead-lettered", ["stage", "cause"], registry=self.registry)
        self._conflicts = self._counter("identity_conflicts", "Same device, boot and sequence, another checksum")
        self._failures = self._counter("deliveries_failed", "Writes that failed and are tried again")
        self._flight = self._gauge("frames_in_flight", "Read and not yet delivered")
        self._delivered = self._gauge("last_delivery_timestamp_seconds", "UTC of the last delivery")
        self._lag = Gauge("triax_lag_records", "Records behind the end", ["stage", "topic", "partition"], registry=self.registry)
        self.flush_s = Histogram(
            "triax_flush_seconds",
            "Time of one delivery",
            ["stage"],
            registry=self.registry,
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10),
        ).labels(stage)
        self._totals = {"in": 0, "out": 0, "dead": 0, "repeats": 0, "returned": 0, "conflicts": 0}
        self._waiting_since: float | None = None
        self._trouble = ""

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"triax_{name}", text, ["stage"], registry=self.registry).labels(self.stage)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"triax_{name}", text, ["stage"], registry=self.registry).labels(self.stage)

    def took(self, count: int) -> None:
        """`count` frames were read; they are in flight until delivered, dead-lettered, found repeated or returned."""
        self._in.inc(count)
        self._totals["in"] += count
        if self._waiting_since is None and count:
            self._waiting_since = self._now()
        self._flight.set(self.in_flight)

    def settled(self, out: int = 0, repeats: int = 0, returned: int = 0, conflicts: int = 0) -> None:
        """Frames left the flight: delivered, removed as repeats, or given back. Conflicts are counted beside, not instead."""
        for counter, key, count in (
            (self._out, "out", out),
            (self._repeats, "repeats", repeats),
            (self._returned, "returned", returned),
            (self._conflicts, "conflicts", conflicts),
        ):
            if count:
                counter.inc(count)
                self._totals[key] += count
        self._flight.set(self.in_flight)

    def dead(self, cause: str, count: int = 1) -> None:
        """`count` frames went to the dead-letter topic."""
        self._dead.labels(self.stage, cause).inc(count)
        self._totals["dead"] += count
        self._flight.set(self.in_flight)

    def delivered(self) -> None:
        """A delivery succeeded: everything taken so far is settled."""
        self._delivered.set(time.time())
        self._waiting_since = None
        self._trouble = ""

    def failed(self, why: str) -> None:
        """A delivery failed and is tried again."""
        self._failures.inc()
        self._trouble = why
        if self._waiting_since is None:
            self._waiting_since = self._now()

    def lag(self, topic: str, partition: int, records: int) -> None:
        """`records` are in the partition behind the last one delivered."""
        self._lag.labels(self.stage, topic, str(partition)).set(records)

    def lost_partition(self, topic: str, partition: int) -> None:
        """The partition belongs to another instance now: its lag is no longer ours to tell."""
        self._lag.remove(self.stage, topic, str(partition))

    @property
    def totals(self) -> dict[str, int]:
        """What was counted so far, by name."""
        return dict(self._totals)

    @property
    def in_flight(self) -> int:
        """Frames that are neither delivered, dead-lettered, repeated nor returned: the account's closing term."""
        t = self._totals
        return t["in"] - t["out"] - t["dead"] - t["repeats"] - t["returned"]

    def health(self) -> tuple[bool, str]:
        """Whether what waits is being delivered, and a sentence about it."""
        if self._waiting_since is None:
            return True, "delivering"
        waited = self._now() - self._waiting_since
        if waited < STALL_S and not self._trouble:
            return True, "delivering"
        return False, f"nothing delivered for {waited:.0f} s" + (f": {self._trouble}" if self._trouble else "")


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Prometheus asks every few seconds; normal running is silent."""


class MetricsServer:
    """Serves /metrics and /health on a thread of its own until closed. `port` is the real one, also when 0 was asked for."""

    def __init__(self, port: int, registry: CollectorRegistry, health: Callable[[], tuple[bool, str]], host: str) -> None:
        def app(environ: dict[str, str], start: Callable[..., object]) -> list[bytes]:
            path = environ.get("PATH_INFO", "/")
            if path == "/metrics":
                start("200 OK", [("Content-Type", "text/plain; version=0.0.4; charset=utf-8")])
                return [generate_latest(registry)]
            if path == "/health":
                ok, text = health()
                start("200 OK" if ok else "503 Service Unavailable", [("Content-Type", "application/json")])
                return [json.dumps({"healthy": ok, "reason": text}).encode()]
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"/metrics or /health\n"]

        self._server: WSGIServer = make_server(host, port, app, handler_class=_Quiet)
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving; the port is free afterwards."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve(port: int, account: Account, host: str = "127.0.0.1") -> MetricsServer:
    """Serve a stage's account at http://host:port/metrics and its health at /health (200, or 503 with the reason)."""
    return MetricsServer(port, account.registry, account.health, host)
