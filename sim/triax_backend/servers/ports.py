"""Ports for servers that start and restart beside thousands of outgoing connections."""

import random
import socket
import sys
from pathlib import Path

from triax_backend.servers.errors import PortTaken

__all__ = ["free_port", "require_free"]

# Below the range that the kernel gives to outgoing connections (32768 by default): 10,000 devices on one machine would otherwise
# take a server's port while it restarts. 12000 leaves the well-known ports alone.
_FIRST, _LAST = 12_000, 32_767
_TRIES = 1_000


def _last_port() -> int:
    try:
        return min(_LAST, int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]) - 1)
    except OSError:
        return _LAST


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _claim(port: int) -> bool:
    """Have a port for as long as this process lives, whether its server has bound it yet or not; False if another process has it.

    An address in Linux's abstract namespace is the mark: the kernel gives it to one process, and takes it back at its end.
    """
    if sys.platform != "linux":
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as mark:
        try:
            mark.bind(f"\0triax-port-{port}")
        except OSError:
            return False
        mark.detach()
    return True


def free_port(*also: int) -> int:
    """A port P of 127.0.0.1 on which nothing listens, nor on P + each of `also`, and that no other process of ours was given.

    Raises PortTaken.
    """
    last = max(_last_port() - max(also, default=0), _FIRST)
    for _ in range(_TRIES):
        port = random.SystemRandom().randint(_FIRST, last)
        if all(_is_free(port + offset) and _claim(port + offset) for offset in (0, *also)):
            return port
    raise PortTaken(f"no free port between {_FIRST} and {last}; `ss -ltn` shows who listens")


def require_free(port: int, server: str) -> None:
    """Raise PortTaken if something listens on `port` of 127.0.0.1."""
    if not _is_free(port):
        raise PortTaken(f"{server}: port {port} is taken; `ss -ltnp 'sport = :{port}'` shows by whom. Give another port or none")
