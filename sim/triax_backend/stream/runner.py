"""The stream as a process.

python -m triax_backend.stream.runner [--group G] [--instance I] [--metrics-port N] [--commit-s S] [--state-dir DIR] [--no-models]
"""

import argparse
import logging
import signal
import sys
from pathlib import Path

from triax_backend import metrics
from triax_backend.metrics import Account
from triax_backend.settings import Settings
from triax_backend.stream import checkpoint
from triax_backend.stream.loop import COMMIT_S, GROUP, SNAPSHOT_S, Models, Runner, StreamStopped

__all__ = ["main"]

log = logging.getLogger("triax.stream")


def _models(settings: Settings) -> Models | None:
    """Models of triax.models.v1, if what they need is installed."""
    try:
        from triax_backend.models.serving import KafkaModels
    except ImportError as error:
        log.warning("windows are not scored: %s (pip install triax[batch])", error)
        return None
    return KafkaModels(settings)


def main() -> int:
    """Run as a process until SIGTERM. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", default=GROUP, help="Kafka consumer group")
    parser.add_argument("--instance", default="0", help="tells the runners of a group apart, the same after a restart")
    parser.add_argument("--metrics-port", type=int, help="serve Prometheus metrics and /health here")
    parser.add_argument("--commit-s", type=float, default=COMMIT_S, help="seconds between transactions")
    parser.add_argument("--snapshot-s", type=float, default=SNAPSHOT_S, help="seconds between snapshots of a partition")
    parser.add_argument("--no-models", dest="models", action="store_false", help="do not score windows")
    parser.add_argument("--state-dir", type=Path, help="keep snapshots in this directory instead of on S3")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    settings = Settings.from_env()
    place: checkpoint.Snapshots
    place = checkpoint.Directory(options.state_dir) if options.state_dir else checkpoint.Objects(settings, options.group)
    account = Account("stream")
    runner = Runner(
        settings,
        place,
        group=options.group,
        instance=options.instance,
        commit_s=options.commit_s,
        snapshot_s=options.snapshot_s,
        models=_models(settings) if options.models else None,
        account=account,
    )
    server = metrics.serve(options.metrics_port, account) if options.metrics_port is not None else None
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, runner.stop)
    log.info("stream started, group %s", options.group)
    try:
        runner.run()
    except StreamStopped as error:
        log.error("%s", error)
        return 1
    finally:
        if server is not None:
            server.close()
    log.info("stream stopped: %s", account.totals)
    return 0


if __name__ == "__main__":
    sys.exit(main())
