"""Command line of the ingest front.

python -m triax_backend.ingest --port 1883 --processes 2            # Kafka from TRIAX_KAFKA
python -m triax_backend.ingest --port 8883 --identity tls --cert front.pem --key front.key --ca devices.pem
"""

import argparse
import logging
import resource
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path

from triax_backend.bridge import backoff_s
from triax_backend.ingest.downlink import Downlink
from triax_backend.ingest.front import Front
from triax_backend.ingest.hold import Limits
from triax_backend.ingest.identity import Identity, IdentityError
from triax_backend.metrics import Account, serve
from triax_backend.produce import KafkaOut
from triax_backend.settings import Settings
from triax_backend.topics import TopicsUnavailable

__all__ = ["main"]

log = logging.getLogger("triax.ingest")

_BACKLOG = 4_096
_SPARE_DESCRIPTORS = 100  # Kafka's, the metrics', the logs'


def listen(host: str, port: int) -> socket.socket:
    """A listener that shares its port with other processes. Raises OSError."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # Accepted sockets inherit it: a PUBACK must not wait for the acknowledgement of the one before.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(f"port {port} of {host}: {error.strerror}; `ss -ltnp 'sport = :{port}'` shows who has it") from None
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def descriptors() -> int:
    """Raise the limit of open descriptors as far as allowed; how many clients fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard - _SPARE_DESCRIPTORS


def serve_clients(options: argparse.Namespace, identity: Identity) -> int:
    """One process. Listens only when Kafka answers, so that a balancer sees a closed port before that."""
    settings, account = Settings.from_env(), Account("ingest")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    metrics = serve(options.metrics_port, account) if options.metrics_port is not None else None
    attempt = 0
    while not ended.is_set():
        downlink = Downlink(settings)
        try:
            out = KafkaOut(settings, account, stage="ingest")
            downlink.start()
        except TopicsUnavailable as error:
            wait_s = backoff_s(attempt)
            attempt += 1
            account.failed(str(error))
            log.warning("%s; again in %.1f s", error, wait_s)
            downlink.close()
            ended.wait(wait_s)
            continue
        break
    else:
        return 0
    limits = Limits(min(options.clients, descriptors()), options.messages, options.client_messages)
    front = Front(listen(options.host, options.port), out, downlink, account, identity, limits)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: front.stop())
    if ended.is_set():
        front.stop()
    log.info("port %d to %s, identity %s", options.port, settings.kafka.rpartition("@")[2], identity.mode)
    front.run()
    downlink.close()
    log.info("stopped; %s", account.totals)
    if metrics is not None:
        metrics.close()
    return 0


def serve_processes(options: argparse.Namespace, arguments: list[str]) -> int:
    """Several processes on one port, started again when they die."""
    from triax_backend.supervise import Supervisor

    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    directory = options.directory or Path(tempfile.mkdtemp(prefix="triax-ingest-"))
    log.info("%d processes; their logs are in %s/logs", options.processes, directory)
    with Supervisor(Settings.from_env(), directory) as supervisor:
        for shard in range(options.processes):
            more = ["--processes", "1"]
            if options.metrics_port:
                more += ["--metrics-port", str(options.metrics_port + shard)]
            supervisor.run("ingest", *arguments, *more, name=f"ingest-{shard}")
        while not ended.is_set():
            time.sleep(0.2)
        codes = supervisor.stop()
    return 0 if all(code == 0 for code in codes.values()) else 1


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0: ended by SIGTERM, everything delivered; 1: it could not start; 2: wrong options."""
    import sys

    arguments = sys.argv[1:] if arguments is None else arguments
    limits = Limits()
    parser = argparse.ArgumentParser(prog="triax ingest", description="MQTT 3.1.1 straight into Kafka (TRIAX_KAFKA).")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--processes", type=int, default=1, help="that share the port")
    parser.add_argument(
        "--identity", default="none", choices=("none", "tls", "proxy"), help="how a client shows which device it is"
    )
    parser.add_argument("--cert", help="tls: the front's certificate")
    parser.add_argument("--key", help="tls: and its key")
    parser.add_argument("--ca", help="tls: the CA of the devices' certificates, and of nothing else")
    parser.add_argument("--crl", help="tls: its list of revoked certificates")
    parser.add_argument("--clients", type=int, default=limits.clients, help="connections of one process at most")
    parser.add_argument("--messages", type=int, default=limits.messages, help="taken and not yet in Kafka, at most")
    parser.add_argument("--client-messages", type=int, default=limits.client_messages, help="the same of one client")
    parser.add_argument("--metrics-port", type=int, help="Prometheus and /health; each further process takes the next port")
    parser.add_argument("--directory", type=Path, help="logs of several processes")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    identity = Identity(options.identity, options.cert, options.key, options.ca, options.crl)
    try:
        identity.context()
        return serve_processes(options, arguments) if options.processes > 1 else serve_clients(options, identity)
    except (IdentityError, OSError) as error:
        log.error("%s", error)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
