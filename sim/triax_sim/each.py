"""One nonblocking call for each of many sockets, without a line of Python between two of them."""

import ssl
from collections.abc import Iterator
from typing import Any, TypeVar

__all__ = ["NOTHING", "READ", "each", "tls_read", "tls_write"]

READ = 4096  # more than a window of PUBACKs
NOTHING = b"\0"  # a socket that had nothing to read; no MQTT packet begins with it

T = TypeVar("T")


def each(calls: Iterator[T], blocked: T, broken: T) -> list[T]:
    """Results of `calls`, a `map`, with `blocked` and `broken` in place of those that raised.

    `extend` keeps what it had taken when a call raises, and `map` goes on behind it: the loop is in C.
    """
    done: list[T] = []
    while True:
        try:
            done.extend(calls)
            return done
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            done.append(blocked)
        except OSError:
            done.append(broken)


def tls_write(link: Any, packet: bytes) -> int:
    """Bytes taken."""
    return int(link.send(packet))


def tls_read(link: Any) -> bytes:
    """What has come, with what TLS holds decrypted already."""
    data: bytes = link.recv(READ)
    while data and link.pending():
        data += link.recv(READ)
    return data
