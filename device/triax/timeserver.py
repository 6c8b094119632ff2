"""UTC from the network, for nodes whose system keeps none: a clock that asks a time server and never sets anything.

`step()` is called every round of the loop, so that an answer is stamped when it comes; the time that a round takes is part of the
round trip, and so of the error that is told. Servers are asked in turn until one answers what can be believed. What is known is
the last exchange; triax.utc joins it with those before.
"""

from triax import sntp
from triax.errors import LinkError, TimeReplyError

try:
    from micropython import const
except ImportError:

    def const(value):
        return value


_TICKS = const(0x3FFFFFFF)
_PORT = const(123)
_FIRST = const(8)  # so many exchanges follow quickly: where delays vary, the least of each way makes the bound
_FIRST_PERIOD_US = const(16000000)  # RFC 4330, 10: never less than 15 s
_PERIOD_US = const(64000000)
_REBASE_US = const(256000000)  # ticks wrap after 17.9 minutes
_FIRST_RETRY_US = const(4000000)
_LONGEST_RETRY_US = const(128000000)
_PATIENCE_US = const(2000000)
_PPM = const(50)  # of a board's crystal, over temperature: 30 ppm at 25 C are sold


class TimeServer:
    """A clock with `ticks_us()`, `utc_us()`, `utc_error_us` and `crystal_ppm`, as triax.node wants it.

    `udp`: send(data, host, port), receive() -> bytes or None. `random_bytes(n)`: os.urandom.
    """

    def __init__(self, udp, servers: list, ticks_us, random_bytes) -> None:
        if not servers:
            raise ValueError("no time server is named")
        self.ticks_us = ticks_us
        self.crystal_ppm = _PPM
        self.exchanges = 0
        self.reason = "never asked"
        self._udp = udp
        self._servers = servers
        self._random_bytes = random_bytes
        self._turn = 0
        self._nonce = b""
        self._asked = ticks_us()
        self._wait_us = 0  # until the next question
        self._retry_us = _FIRST_RETRY_US
        self._base = 0  # ticks at which UTC was _utc_us
        self._utc_us = -1
        self._error_us = 0

    def due(self) -> bool:
        """Will this step ask, which may look a name up and so block?"""
        return not self._nonce and self._since(self._asked) >= self._wait_us

    def step(self) -> None:
        """Ask, or see whether an answer has come."""
        if self._nonce:
            self._listen()
        elif self._since(self._asked) >= self._wait_us:
            self._ask()
        if self._utc_us >= 0 and self._since(self._base) > _REBASE_US:
            self._rebase()

    def utc_us(self):
        """UTC, None while it is unknown."""
        return self._utc_us + self._since(self._base) if self._utc_us >= 0 else None

    @property
    def utc_error_us(self) -> int:
        """Bound on the error of utc_us, the drift since the last answer included."""
        return self._error_us + self._since(self._base) * _PPM // 1000000 + 1

    def _since(self, ticks: int) -> int:
        return (self.ticks_us() - ticks) & _TICKS

    def _ask(self) -> None:
        self._nonce = self._random_bytes(8)
        self._asked = self.ticks_us()
        try:
            self._udp.send(sntp.request(self._nonce), self._servers[self._turn], _PORT)
        except (OSError, LinkError) as error:
            self._failed(str(error))

    def _listen(self) -> None:
        try:
            data = self._udp.receive()
        except OSError as error:
            self._failed(str(error))
            return
        took_us = self._since(self._asked)
        if data is None:
            if took_us > _PATIENCE_US:
                self._failed("no answer")
            return
        try:
            utc_us, error_us = sntp.reply(data, self._nonce, 0, took_us)
        except TimeReplyError as error:
            if "another request" not in str(error):  # a late answer to the last question is no failure of this one
                self._failed(str(error))
            return
        self._base = self._asked
        self._utc_us = utc_us
        self._error_us = error_us
        self.exchanges += 1
        self.reason = ""
        self._nonce = b""
        self._wait_us = _PERIOD_US if self.exchanges >= _FIRST else _FIRST_PERIOD_US
        self._retry_us = _FIRST_RETRY_US

    def _failed(self, reason: str) -> None:
        self.reason = "%s: %s" % (self._servers[self._turn], reason)
        self._turn = (self._turn + 1) % len(self._servers)
        self._nonce = b""
        self._wait_us = self._retry_us
        self._retry_us = min(2 * self._retry_us, _LONGEST_RETRY_US)

    def _rebase(self) -> None:
        """Before ticks wrap."""
        self._error_us = self.utc_error_us
        passed = self._since(self._base)
        self._utc_us += passed
        self._base = (self._base + passed) & _TICKS
