"""A client's socket to an MQTT broker, by URL: mqtt://user:password@host:1883, mqtts://host:8883?ca=ca.pem&cert=c.pem&key=c.key"""

import contextlib
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from triax_backend.settings import BadUrl

__all__ = ["Address", "open_link"]

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_CONNECT_S = 5.0


@dataclass(frozen=True)
class Address:
    """Where the broker is and who we are to it."""

    host: str
    port: int
    tls: bool
    user: str | None
    password: str | None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def __repr__(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.host}:{self.port}"

    @classmethod
    def of(cls, url: str) -> "Address":
        """Raises BadUrl."""
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise BadUrl(f"TRIAX_MQTT has scheme {parts.scheme!r}; want mqtt://host:1883 or mqtts://host:8883?ca=ca.pem")
        query = dict(parse_qsl(parts.query))
        unknown = set(query) - {"ca", "cert", "key"}
        if unknown:
            raise BadUrl(f"TRIAX_MQTT has {', '.join(sorted(unknown))}; want ca, cert, key")
        user, password = (unquote(part) if part is not None else None for part in (parts.username, parts.password))
        return cls(parts.hostname, parts.port or _PORTS[parts.scheme], parts.scheme == "mqtts", user, password, **query)


def open_link(address: Address) -> socket.socket:
    """A connected, non-blocking socket without Nagle's delay. Raises OSError (ssl.SSLError is one)."""
    link = socket.create_connection((address.host, address.port), timeout=_CONNECT_S)
    try:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address.tls:
            context = ssl.create_default_context(cafile=address.ca)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if address.cert:
                context.load_cert_chain(address.cert, address.key)
            link = context.wrap_socket(link, server_hostname=address.host)
        link.setblocking(False)
    except BaseException:
        with contextlib.suppress(OSError):
            link.close()
        raise
    return link
