"""HAProxy in front of several ingest fronts: stands for a cloud's network load balancer in the "local" profile.

Plain TCP by default, like a balancer that passes TLS through. With `certificate` and `ca` it ends TLS itself, asks for the device's
certificate and tells its name to the front in a PROXY v2 header (`--identity proxy`).
"""

import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from triax_backend.servers.errors import NotInstalled
from triax_backend.servers.process import Server

__all__ = ["HAProxy"]

# Below a cloud balancer's idle timeout (AWS NLB: 350 s), so that a keepalive that works here works there.
_IDLE_S = 340
_CONNECTIONS = 9_900  # of one process, two descriptors each, at 20,000 descriptors


class HAProxy(Server):
    """Balances connections on 127.0.0.1 over `targets`, ports of 127.0.0.1. `tls`: (PEM of certificate and key, CA of devices)."""

    name = "haproxy"
    disk_mib = 1

    def __init__(
        self, directory: Path, targets: Sequence[int], ports: Sequence[int] = (), tls: tuple[Path, Path] | None = None
    ) -> None:
        super().__init__(directory, ports=ports)
        self.targets, self.tls = list(targets), tls

    @property
    def url(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}://127.0.0.1:{self.port}"

    def check(self) -> None:
        self._binary()

    def _binary(self) -> str:
        path = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
        if path is None:
            raise NotInstalled("haproxy is not installed: `apt-get install haproxy`, or connect to the fronts directly")
        return path

    def prepare(self) -> None:
        super().prepare()
        secure = f" ssl crt {self.tls[0]} ca-file {self.tls[1]} verify required" if self.tls else ""
        header = " send-proxy-v2-ssl-cn" if self.tls else ""
        fronts = "".join(f"    server front{n} 127.0.0.1:{port}{header} check inter 1s\n" for n, port in enumerate(self.targets))
        (self.data / "haproxy.cfg").write_text(f"""\
global
    maxconn {_CONNECTIONS}
    log stdout format raw daemon notice
defaults
    mode tcp
    log global
    balance leastconn
    timeout connect 5s
    timeout client {_IDLE_S}s
    timeout server {_IDLE_S}s
listen mqtt
    bind 127.0.0.1:{self.port}{secure}
{fronts}""")

    def command(self) -> list[str]:
        return [self._binary(), "-db", "-f", str(self.data / "haproxy.cfg")]

    def answers(self) -> bool:
        """True when it accepts connections; whether a front is behind is the client's to see."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True
