"""MicroPython's link, UDP, store and spool folder: the same on every port that has sockets and a file system.

What blocks: looking a name up (once a host: until the DNS server answers, 10 s at worst), each cryptographic step of a TLS
handshake (a second in all on an ESP32; the bytes between are waited for without blocking), a write to internal flash (its erase
stall).
"""

import errno
import select
import socket

from triax.errors import LinkError

_IN_PROGRESS = (errno.EINPROGRESS, errno.EAGAIN, 119)  # 119: lwIP's EINPROGRESS where errno has another


def _look_up(cache: dict, host: str, port: int):
    if (host, port) not in cache:
        try:
            cache[(host, port)] = socket.getaddrinfo(host, port)[0][-1]
        except (OSError, IndexError) as error:
            raise LinkError("%s: no such host (%s); check the name and the DNS server" % (host, error))
    return cache[(host, port)]


class Link:
    """`ca`, `certificate`, `key`: DER, as bytes. TLS without `ca` is refused: it would trust anybody."""

    blocks = True

    def __init__(self, ca=None, certificate=None, key=None) -> None:
        self._files = (ca, certificate, key)
        self._addresses: dict = {}
        self._plain: "socket.socket" = None
        self._stream: "socket.socket" = None
        self._tls: str = None
        self._poll: "select.poll" = None
        # mbedTLS wants a write that did not go through to be tried again with the same length: it has that many bytes encrypted.
        self._again = 0

    def connect(self, host: str, port: int, tls: bool) -> bool:
        """Begin. Ask `connected` for the outcome."""
        self.close()
        self._where = "%s:%d" % (host, port)
        address = _look_up(self._addresses, host, port)
        self._plain = socket.socket()
        self._plain.setblocking(False)
        self._tls = host if tls else None
        try:
            self._plain.connect(address)
        except OSError as error:
            if error.errno not in _IN_PROGRESS:
                raise LinkError("%s: %s" % (self._where, error))
        self._poll = select.poll()
        self._poll.register(self._plain, select.POLLOUT)
        return True

    def connected(self) -> bool:
        """False: under way. Raises LinkError."""
        for _, event in self._poll.ipoll(0):
            if event & (select.POLLERR | select.POLLHUP):
                raise LinkError("%s: refused or unreachable: does the broker listen on that port?" % self._where)
            self._stream = self._wrapped() if self._tls else self._plain
            return True
        return False

    def send(self, buffer, count: int) -> int:
        """Bytes taken of buffer[:count]."""
        count = self._again or count
        try:
            taken = self._stream.write(buffer, count)  # type: ignore[call-arg]  # MicroPython's streams take a length
        except (OSError, ValueError) as error:
            raise LinkError("%s: %s" % (self._where, _tls_text(error)))
        self._again = 0 if taken else count
        return taken or 0

    def readinto(self, buffer):
        """Bytes read, 0: closed by the peer, None: nothing now."""
        try:
            return self._stream.readinto(buffer)
        except (OSError, ValueError) as error:
            raise LinkError("%s: %s" % (self._where, _tls_text(error)))

    def close(self) -> None:
        """Close whatever is open."""
        self._again = 0
        for stream in (self._stream, self._plain):
            if stream is not None:
                stream.close()
        self._stream = None
        self._plain = None

    def _wrapped(self):
        import ssl

        ca, certificate, key = self._files
        if ca is None:
            raise LinkError("%s: TLS needs the certificate of our CA: set `ca`" % self._where)
        context: "ssl.SSLContext" = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.verify_mode = ssl.CERT_REQUIRED  # type: ignore[attr-defined]
        try:
            context.load_verify_locations(cadata=ca)
            if certificate:
                context.load_cert_chain(certificate, key)
            return context.wrap_socket(self._plain, server_hostname=self._tls, do_handshake_on_connect=False)
        except (OSError, ValueError) as error:
            raise LinkError("%s: %s" % (self._where, error))


def _tls_text(error) -> str:
    """mbedTLS tells of certificates by ValueError, with its own words."""
    if isinstance(error, ValueError):
        return "%s: check `ca`, the broker's name and this node's clock" % str(error).strip()
    return "connection lost: %s" % error


class Udp:
    """Datagrams for triax.timeserver."""

    def __init__(self) -> None:
        self._addresses: dict = {}
        self._socket: "socket.socket" = None

    def send(self, data: bytes, host: str, port: int) -> None:
        """Send one. Raises LinkError, OSError."""
        if self._socket is not None:
            self._socket.close()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.sendto(data, _look_up(self._addresses, host, port))

    def receive(self):
        """One, or None."""
        try:
            return self._socket.recv(128)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return None
            raise
