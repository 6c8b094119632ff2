"""A device's configuration: which version is in force, what happens to a new one, and what is said about it.

A Config message is retained at its topic, so a node is offered the same one after every reconnect. `offer` decides once for each
version, remembers the decision in the store *before* it acts, and ignores what is not larger than the last version decided on:

    offer --any field wrong--> REJECTED(field, reason)                       nothing of it is applied
          --no link settings--> APPLIED                                      at once
          --link settings--> TRIAL --through()--> APPLIED                    the node got through with them: one frame acknowledged
                                   --failed(reason)--> REVERTED(reason)      back to the old ones, nothing of this version applied

So a version is in force as a whole or not at all, a bad one is tried exactly once however often the node reconnects or restarts,
and an outage after a version came into force reverts nothing. A restart in the middle of a trial counts as failed. Fields that a
version leaves out keep their value. A command is carried out once for each id: the id is stored first.

The acknowledgement stays pending, in the store too, until it has arrived: `ack()`, then `acked()`.
"""

from binascii import crc32

from triax import messages, wire
from triax.errors import TriaxError, WireError

try:
    from micropython import const
except ImportError:

    def const(value):
        return value


# What `offer` did.
IGNORED = const(0)
APPLIED = const(1)  # as ConfigAck.Result
REJECTED = const(2)
REVERTED = const(3)
TRIAL = const(4)

# How long a node tries new link settings: a broker restart behind the new address must fit (10 s), and a Wi-Fi join and a
# TLS handshake (5 s each); a node in the field must not be away for much longer because of a typing error.
TRIAL_MS = const(120000)

_MAGIC = const(b"TXC1")
_STATE = wire.table(
    (1, "version", wire.UINT32),
    (2, "decided", wire.UINT32),
    (3, "trial", wire.UINT32),
    (4, "command_id", wire.FIXED32),
    (5, "applied", messages.CONFIG),
    (6, "ack", messages.CONFIG_ACK),
)
# (field, smallest, largest)
_LIMITS = (
    ("qos", 0, 1),
    ("replay_hz", 1, 1000),
    ("health_period_s", 1, 86400),
)
_LINK_LIMITS = (
    ("port", 1, 65535),
    # 0 would switch the half-open check off, less than 5 s costs more than it finds.
    ("keepalive_s", 5, 3600),
)
DEFAULTS = {
    "qos": 1,
    "window": 8,
    "test_pattern": False,
    "keep_newest": True,
    "replay_hz": 20,
    "health_period_s": 60,
}


def _nothing(version: int, values: dict) -> None:
    pass


class Configuration:
    """`values` and `link` are what holds now. `check(values)` returns None or (field, reason): what this node and its part can do.

    `use(version, values)` has the part take them, or raises OSError or TriaxError and leaves it as it was. `link` None: this
    device has no link settings of its own.

    config = Configuration(store, "config-0011223344556677", {"odr_hz": 26667.0, ...}, {"host": "broker", ...}, check)
    """

    def __init__(self, store, name: str, defaults: dict, link, check, use=_nothing) -> None:
        self._store = store
        self._name = name
        self._defaults = defaults
        self._default_link = link
        self._check = check
        self._use = use
        self._command = None
        self._trial = None
        self._garbage = 0
        self.boot = 0
        self.corrupt = False  # the store held something that is no state of ours
        self._state = self._load()
        self._derive()

    @property
    def version(self) -> int:
        """The version in force."""
        return self._state["version"]

    @property
    def on_trial(self) -> bool:
        """Are link settings being tried?"""
        return self._trial is not None

    def offer(self, data) -> int:
        """A Config message has come. Returns IGNORED, APPLIED, REJECTED or TRIAL."""
        if not data or self._trial is not None:
            return IGNORED  # deleted; or retained, so it comes again on the connection that ends the trial
        try:
            new = wire.decode(messages.CONFIG, data)
        except WireError as error:
            checksum = crc32(data)
            if checksum == self._garbage:
                return IGNORED
            self._garbage = checksum
            return self._decide(0, REJECTED, "", str(error))
        version = new["version"]
        if version <= self._state["decided"]:
            return IGNORED
        merged = _merge(self._state["applied"], new)
        if new.get("link") and self._default_link is None:
            return self._decide(version, REJECTED, "link", "link settings belong to the node's first device")
        wrong = _wrong_link(new.get("link", {})) or _wrong_value(new) or self._check(self._with_defaults(merged))
        if wrong:
            return self._decide(version, REJECTED, wrong[0], wrong[1])
        if new.get("link") and self._linked(merged) != self.link:
            return self._begin(version, new)
        return self._apply(version, new)

    def through(self) -> int:
        """The node got through with the settings on trial: they are in force."""
        new, self._trial = self._trial, None
        return self._apply(new["version"], new)

    def failed(self, reason: str) -> int:
        """The node did not get through: back to the old settings."""
        new, self._trial = self._trial, None
        self._derive()
        return self._decide(new["version"], REVERTED, "link", reason)

    def command(self):
        """The command to carry out now, a dict as of messages.COMMAND, or None; each is given once."""
        command, self._command = self._command, None
        return command

    def ack(self):
        """The ConfigAck to publish, as bytes, or None."""
        if "ack" not in self._state:
            return None
        return wire.encode(messages.CONFIG_ACK, _joined(self._state["ack"], {"boot": self.boot}))

    def acked(self) -> None:
        """That acknowledgement has arrived."""
        self._state.pop("ack", None)
        self._save()

    # --- decisions ---

    def _begin(self, version: int, new: dict) -> int:
        self._state["trial"] = version
        if not self._save():
            self._state["trial"] = 0
            return self._decide(version, REJECTED, "link", "the store cannot be written")
        self._trial = new
        self._derive()
        return TRIAL

    def _apply(self, version: int, new: dict) -> int:
        old = dict(self._state)
        merged = _merge(old["applied"], new)
        try:
            self._use(version, self._with_defaults(merged))
        except (OSError, TriaxError) as error:
            self._derive()
            return self._decide(version, REJECTED, "", "the part did not take it: %s" % error)
        command = new.get("command")
        fresh = command is not None and command["id"] != old["command_id"]
        if fresh:
            self._state["command_id"] = command["id"]
        self._state["applied"] = merged
        self._state["version"] = version
        if self._decide(version, APPLIED, "", "") != APPLIED:
            self._state = old
            self._derive()
            self._use(old["version"], self.values)
            return self._decide(version, REJECTED, "", "the store cannot be written")
        self._derive()
        if fresh:
            self._command = command
        return APPLIED

    def _decide(self, version: int, result: int, field: str, reason: str) -> int:
        self._state["trial"] = 0
        self._state["decided"] = max(self._state["decided"], version)
        self._state["ack"] = {"version": version, "result": result, "field": field, "reason": reason[:200]}
        # A decision that cannot be stored holds until the next restart; only an applied one must be safe before it is acted on.
        return result if self._save() or result != APPLIED else REJECTED

    # --- state ---

    def _derive(self) -> None:
        applied = self._state["applied"]
        self.link = self._linked(_merge(applied, self._trial) if self._trial else applied)
        self.values = self._with_defaults(applied)

    def _with_defaults(self, applied: dict) -> dict:
        return _joined(
            _joined(DEFAULTS, self._defaults), {name: value for name, value in applied.items() if name not in ("version", "link")}
        )

    def _linked(self, applied: dict) -> dict:
        return _joined(self._default_link or {}, applied.get("link", {}))

    def _load(self) -> dict:
        data = self._store.read(self._name)
        state = {"version": 0, "decided": 0, "trial": 0, "command_id": 0, "applied": {}}
        if data is None:
            return state
        try:
            if bytes(data[:4]) != _MAGIC or crc32(data[8:]).to_bytes(4, "little") != bytes(data[4:8]):
                raise WireError("checksum of the stored configuration")
            state.update(wire.decode(_STATE, data[8:], 8192))
        except WireError:
            # Retained at its topic, the configuration comes again and is decided on again.
            self.corrupt = True
            return state
        if state["trial"]:
            trial = state["trial"]
            reason = "restarted before it got through"
            state["trial"] = 0
            state["decided"] = max(state["decided"], trial)
            state["ack"] = {"version": trial, "result": REVERTED, "field": "link", "reason": reason}
        return state

    def _save(self) -> bool:
        body = wire.encode(_STATE, self._state)
        try:
            self._store.write(self._name, _MAGIC + crc32(body).to_bytes(4, "little") + body)
        except OSError:
            return False
        return True


def _merge(old: dict, new: dict) -> dict:
    """`old` with the fields that `new` has. Commands are not kept."""
    merged = _joined(old, {name: value for name, value in new.items() if name != "command"})
    if "link" in old or "link" in new:
        merged["link"] = _joined(old.get("link", {}), new.get("link", {}))
    return merged


def _joined(first: dict, second: dict) -> dict:
    joined = dict(first)
    joined.update(second)
    return joined


def _wrong_value(new: dict):
    for field, least, most in _LIMITS:
        if field in new and not least <= new[field] <= most:
            return field, "%d, want %d to %d" % (new[field], least, most)
    return None


def _wrong_link(link: dict):
    for field, least, most in _LINK_LIMITS:
        if field in link and not least <= link[field] <= most:
            return "link." + field, "%d, want %d to %d" % (link[field], least, most)
    host = link.get("host", "x")
    if not 0 < len(host) < 254 or any(c <= " " for c in host):
        return "link.host", "%r is no name of a host" % host
    for field in ("username", "password"):
        if len(link.get(field, "")) > 256:
            return "link." + field, "%d characters, at most 256" % len(link[field])
    return None
