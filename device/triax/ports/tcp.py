"""CPython's link: TCP, with TLS if wanted. Connecting runs in a thread, so capture never waits for it."""

import socket
import ssl
import threading

from triax.errors import LinkError

# One try; the node's backoff decides about the next. Longer than a TLS handshake over a slow radio (5 s).
_TIMEOUT_S = 15.0


class Link:
    """`ca`, `certificate`, `key`: PEM files. Without `ca` the system's authorities are trusted. The server is always checked."""

    def __init__(self, ca=None, certificate=None, key=None, timeout_s: float = _TIMEOUT_S) -> None:
        self._files = (ca, certificate, key)
        self._timeout_s = timeout_s
        self._socket = None
        self._attempt = None

    def connect(self, host: str, port: int, tls: bool) -> bool:
        """Begin. Ask `connected` for the outcome."""
        self.close()
        self._attempt = _Attempt(host, port, tls, self._files, self._timeout_s)
        return True

    def connected(self) -> bool:
        """False: under way. Raises LinkError with what to check."""
        if self._attempt is None or self._attempt.thread.is_alive():
            return False
        attempt, self._attempt = self._attempt, None
        if attempt.error is not None:
            raise attempt.error
        self._socket = attempt.socket
        return True

    def send(self, buffer, count: int) -> int:
        """Bytes taken of buffer[:count]."""
        try:
            return self._socket.send(memoryview(buffer)[:count])
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0
        except ssl.SSLError as error:
            raise LinkError("the broker ended TLS: %s; does it know this node's certificate?" % error) from error

    def readinto(self, buffer):
        """Bytes read, 0: closed by the peer, None: nothing now."""
        try:
            return self._socket.recv_into(buffer)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except ssl.SSLError as error:
            raise LinkError("the broker ended TLS: %s; does it know this node's certificate?" % error) from error

    def close(self) -> None:
        """Close whatever is open or under way."""
        if self._attempt is not None:
            self._attempt.abandon()
            self._attempt = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class _Attempt:
    def __init__(self, host, port, tls, files, timeout_s) -> None:
        self.socket = None
        self.error = None
        self._given_up = False
        self._lock = threading.Lock()
        self.thread = threading.Thread(target=self._run, args=(host, port, tls, files, timeout_s), daemon=True)
        self.thread.start()

    def abandon(self) -> None:
        """Nobody waits for it any more."""
        with self._lock:
            self._given_up = True
            if self.socket is not None:
                self.socket.close()

    def _run(self, host, port, tls, files, timeout_s) -> None:
        where = "%s:%d" % (host, port)
        plain = None
        try:
            plain = socket.create_connection((host, port), timeout_s)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            done = _context(files).wrap_socket(plain, server_hostname=host) if tls else plain
            done.setblocking(False)
        except Exception as error:
            if plain is not None:
                plain.close()
            self.error = LinkError(explain(where, error))
            return
        with self._lock:
            if self._given_up:
                done.close()
            else:
                self.socket = done


def _context(files):
    ca, certificate, key = files
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate:
        context.load_cert_chain(certificate, key)
    return context


def explain(where: str, error: Exception) -> str:
    """What went wrong, and what to check."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code == 10:
            return "%s: its certificate has expired (or this node's clock is wrong): renew it" % where
        if error.verify_code == 62:
            return "%s: its certificate is for another name: %s" % (where, error.verify_message)
        return "%s: its certificate is not signed by our CA (%s): check `ca`" % (where, error.verify_message)
    if isinstance(error, ssl.SSLError):
        return "%s: no TLS there: %s" % (where, error)
    if isinstance(error, socket.gaierror):
        return "%s: no such host: %s; check the name and the DNS server" % (where, error.strerror)
    if isinstance(error, TimeoutError):
        return "%s: no answer: is the broker on, is a firewall between?" % where
    if isinstance(error, ConnectionRefusedError):
        return "%s: refused: does the broker listen on that port?" % where
    if isinstance(error, FileNotFoundError):
        return "%s: a certificate or key file is missing: %s" % (where, error)
    return "%s: %s" % (where, error)
