"""The servers of a stack, one file each: how to configure, start, await and stop it. `triax_backend.stack` puts them together."""

from triax_backend.servers.errors import (
    NoDisk,
    NotInstalled,
    PortTaken,
    ServerFailed,
    StackError,
)
from triax_backend.servers.kafka import Kafka
from triax_backend.servers.mosquitto import Mosquitto
from triax_backend.servers.postgres import Postgres
from triax_backend.servers.process import Server
from triax_backend.servers.seaweedfs import SeaweedFS
from triax_backend.servers.valkey import Valkey

__all__ = [
    "SERVERS",
    "Kafka",
    "Mosquitto",
    "NoDisk",
    "NotInstalled",
    "PortTaken",
    "Postgres",
    "SeaweedFS",
    "Server",
    "ServerFailed",
    "StackError",
    "Valkey",
]

# by the name of the setting whose URL it gives
SERVERS: dict[str, type[Server]] = {
    "mqtt": Mosquitto,
    "kafka": Kafka,
    "postgres": Postgres,
    "s3": SeaweedFS,
    "redis": Valkey,
}
