"""mosquitto as the broker between nodes and bridge: nothing that was acknowledged may wait in a queue that drops."""

import os
import pwd
import shutil
import socket

from triax_backend.servers.errors import NotInstalled
from triax_backend.servers.process import Server

__all__ = ["Mosquitto", "installed"]

# The bridge's window; mosquitto's default of 20 holds a bridge to window / Kafka latency = 20 / 10 ms = 2,000 frames/s.
INFLIGHT = 20_000
# Frames that wait while the bridge is away: 10 s at 100,000 frames/s, some 600 MB. The default is 1,000, and what comes
# after it is acknowledged to the node and silently dropped.
QUEUED = 1_000_000
# Seconds between snapshots of sessions and queues: what a SIGKILL of the broker may lose. `autosave_on_changes` would lose
# less and costs a snapshot per message.
AUTOSAVE_S = 5

_CONNECT = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x0a\x00\x05ready"
_CONNACK = b"\x20\x02\x00\x00"


def installed() -> str | None:
    """Path of the broker, None: it is not there."""
    return shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


class Mosquitto(Server):
    """mosquitto 2 on 127.0.0.1, open, persistent."""

    name = "mosquitto"

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def check(self) -> None:
        self._binary()

    def _binary(self) -> str:
        path = installed()
        if path is None:
            raise NotInstalled(
                "mosquitto is not installed: `apt-get install mosquitto`, or give a broker's address (mqtt://host:1883)"
            )
        return path

    def prepare(self) -> None:
        super().prepare()
        (self.data / "mosquitto.conf").write_text(f"""\
listener {self.port} 127.0.0.1
allow_anonymous true
user {pwd.getpwuid(os.geteuid()).pw_name}
persistence true
persistence_location {self.data}/
autosave_interval {AUTOSAVE_S}
max_inflight_messages {INFLIGHT}
max_queued_messages {QUEUED}
max_queued_bytes 0
max_connections -1
max_packet_size 1048576
set_tcp_nodelay true
sys_interval 5
connection_messages false
log_dest stdout
log_type error
log_type warning
log_type notice
log_timestamp_format %Y-%m-%dT%H:%M:%S
""")

    def command(self) -> list[str]:
        return [self._binary(), "-c", str(self.data / "mosquitto.conf")]

    def answers(self) -> bool:
        """True when CONNECT gets its CONNACK."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as client:
                client.sendall(_CONNECT)
                return client.recv(4) == _CONNACK
        except OSError:
            return False
