"""Who a client is: nobody in particular, the name in its certificate, or the name that a TLS balancer has verified.

A name is a device: 16 lower-case hex digits. A node that carries several accelerometers lists the others as DNS names in its
certificate's subjectAltName. A client may then publish and subscribe under `triax/v1/<its devices>/` only.
"""

import re
import ssl
from dataclasses import dataclass
from typing import Any

__all__ = ["Identity", "IdentityError", "TlsLink", "names_of"]

_DEVICE = re.compile("[0-9a-f]{16}")
_RECORD = 16_384  # bytes of a TLS record at most


class IdentityError(ValueError):
    """Settings of identity that cannot work, or a client whose name is no device."""


@dataclass(frozen=True)
class Identity:
    """`mode`: "none", "tls" (own, with client certificates of `ca`), or "proxy" (PROXY v2 header with the certificate's name)."""

    mode: str = "none"
    cert: str | None = None
    key: str | None = None
    ca: str | None = None
    crl: str | None = None

    def context(self) -> ssl.SSLContext | None:
        """The server's TLS context, None without own TLS. Raises IdentityError."""
        if self.mode not in ("none", "tls", "proxy"):
            raise IdentityError(f"no identity {self.mode!r}: want none, tls or proxy")
        if self.mode != "tls":
            return None
        if not (self.cert and self.ca):
            raise IdentityError("identity tls needs --cert, --key and --ca (the CA of the devices, not a public one)")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        # A session resumed after its certificate was revoked would still get in.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        try:
            context.load_cert_chain(self.cert, self.key)
            context.load_verify_locations(self.ca)
            if self.crl:
                context.load_verify_locations(self.crl)
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        except OSError as error:
            raise IdentityError(f"the certificates cannot be read: {error}") from None
        return context


def names_of(names: list[str]) -> frozenset[str]:
    """Devices among a certificate's names, the common name first. Raises IdentityError if that is no device."""
    if not names or not _DEVICE.fullmatch(names[0]):
        raise IdentityError(f"the certificate is for {names[0] if names else 'nobody'}, and no device is called that")
    return frozenset(name for name in names if _DEVICE.fullmatch(name))


def _certificate_names(certificate: dict[str, Any] | None) -> list[str]:
    names = [value for part in (certificate or {}).get("subject", ()) for key, value in part if key == "commonName"]
    return names + [value for kind, value in (certificate or {}).get("subjectAltName", ()) if kind == "DNS"]


class TlsLink:
    """A TLS socket that behaves like a plain non-blocking one."""

    def __init__(self, link: ssl.SSLSocket) -> None:
        self._link = link
        self.fileno = link.fileno
        self.close = link.close
        self.ready = False
        self._broken: OSError | None = None

    def handshake(self) -> tuple[frozenset[str], str] | None:
        """Go on with it: the client's devices and its own when it is done, None before. Raises OSError, IdentityError."""
        try:
            self._link.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        self.ready = True
        names = _certificate_names(self._link.getpeercert())
        return names_of(names), names[0]

    def recv(self, size: int) -> bytes:
        """All that has come, up to about `size`: a record of each message, so one read a round would be one message a round.

        What came before the connection broke is returned; the error comes with the next call.
        """
        if self._broken is not None:
            raise self._broken
        data = b""
        try:
            while len(data) < size and (more := self._link.recv(_RECORD)):
                data += more
        except ssl.SSLWantReadError:
            if not data:
                raise BlockingIOError from None
        except OSError as error:
            if not data:
                raise
            self._broken = error  # OpenSSL tells it once
        return data

    def send(self, data: bytes | bytearray) -> int:
        """As a socket's."""
        try:
            return self._link.send(data)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            raise BlockingIOError from None
