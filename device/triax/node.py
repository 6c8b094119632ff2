"""A node: accelerometers, one MQTT connection, and what ties them together. `step()` is called by the port's loop, for ever.

    node = Node([Channel(device, part, spool, settings)], clock, link, store, {"host": "broker", ...}, board)
    node.start()
    while not node.stopped:
        node.step()

A step drains every FIFO first, then does a bounded piece of network work: it never waits. What can block is the port's business
(`link.blocks`, the store); a gap that falls into such a call says so.

The last will speaks for the node: it stands at the status topic of the first channel, whose device is `node` in every DeviceInfo.
Link settings and the window belong to the first channel's configuration.
"""

import os
import sys

import triax
from triax import config, messages, mqtt, wire
from triax.config import TRIAL_MS
from triax.connection import LOST, Connection
from triax.errors import LinkError
from triax.mqtt import MS_MASK, Publisher, elapsed
from triax.outbox import Outbox

try:
    from micropython import const
except ImportError:

    def const(value):
        return value


_TICKS = const(0x3FFFFFFF)
# Events of one step: more would keep the FIFO waiting.
_EVENTS = const(16)

# Command.Kind
_RAW_CAPTURE = const(1)
_RUN_SELF_TEST = const(2)
_RESTART = const(3)
_UPDATE = const(4)

_UTC_S = const(64)  # between two looks at UTC; a crystal of 20 ppm drifts by 1.3 ms meanwhile
_RETRY_S = const(60)  # between attempts to start a part or to write the boot counter
_GOODBYE_MS = const(3000)  # to get the last status out before the power goes
# While link settings are on trial, tries follow quickly: the node is away.
_TRIAL_REST_MS = const(4000)


def _random_below(limit: int) -> int:
    return int.from_bytes(os.urandom(4), "little") % limit


def _boot_number(store) -> int:
    """See triax.boot.start. On a board its code is forgotten at once: it is not needed again, and all that follows wants memory."""
    from triax import boot

    number = boot.start(store)
    if sys.implementation.name == "micropython":
        del sys.modules["triax.boot"]
        del triax.boot
    return number


def _silent(text: str) -> None:
    pass


class Node:
    """`link_settings`: host, port, tls, keepalive_s, username, password. `window`: most messages in flight, `out_bytes`: most that
    wait for the socket. `time_server`: a triax.timeserver.TimeServer where the system has no UTC of its own."""

    def __init__(
        self,
        channels: list,
        clock,
        link,
        store,
        link_settings: dict,
        board,
        firmware: str = "",
        watchdog=None,
        time_server=None,
        window: int = 16,
        out_bytes: int = 2048,
        random_below=_random_below,
        log=_silent,
    ) -> None:
        self.channels = channels
        self.clock = clock
        self.store = store
        self.board = board
        self.firmware = firmware
        self.node_id = channels[0].device
        self.window_size = window
        self.log = log
        self.boot = 0  # 0: none yet
        self.oversize = 0  # messages from the broker that were too large to read
        self.acked = 0  # messages that arrived, modulo 2^29
        self.stopped = False
        self._link = link
        self._watchdog = watchdog
        self._time_server = time_server
        largest = max([outlet.spool.slot_bytes for channel in channels for outlet in channel.outlets])
        self.core = Publisher("triax-%016x" % self.node_id, window=window, out_bytes=max(out_bytes, largest + 256))
        self.connection = Connection(link, self.core, random_below)
        self._outbox = Outbox(channels, self.core)
        self.now_ms = 0
        self._ticks = clock.ticks_us()
        self._us = 0
        self._second_ms = 0
        self._seconds = 0
        self._utc_due = 0
        self._retry_due = 0
        self._trial_ms = 0
        self._stopping_ms = 0
        self._stop_wanted = False
        self._stopping = False
        self._after_stop = None
        self._seen = [bytearray(8) for _ in channels]
        for channel in channels:
            channel.attach(self, link_settings if channel is channels[0] else None)
        self._use_link()

    @property
    def reconnects(self) -> int:
        """Connections after the first one."""
        return max(0, self.connection.opened - 1)

    def start(self) -> None:
        """Count this start and begin to measure. Without a boot number (erased storage) measuring begins once there is UTC."""
        try:
            number = _boot_number(self.store)
        except OSError as error:
            self.log("no boot number: %s" % error)
            return
        if number >= 0:
            self._begin(number)
            self._look_at_utc()  # at once, so that the first frames have it
        else:
            self.log("the boot counter is gone: waiting for UTC to seed it")

    def stop(self, then=None) -> None:
        """Have the next step close the last frames and say goodbye; `stopped` within 3 s, then `then`. Fit for signal handlers."""
        self._after_stop = then
        self._stop_wanted = True

    def step(self) -> None:
        """One round. Allocates nothing while all is well."""
        self._advance()
        for channel in self.channels:
            if channel.capture is not None and channel.capture.running:
                channel.capture.poll(self.clock.ticks_us())
        self._network()
        if self._time_server is not None:
            if self._time_server.due():
                self._expect_block()
            exchanges = self._time_server.exchanges
            self._time_server.step()
            if self._time_server.exchanges != exchanges:
                self._utc_due = self._seconds  # each one narrows what is known
        if elapsed(self.now_ms, self._second_ms) >= 1000:
            self._second_ms = self.now_ms
            self._seconds += 1
            self._each_second()
        if self._stopping:
            self._finish()
        elif self._stop_wanted:
            self._stopping = True
            self._stopping_ms = self.now_ms
            for channel in self.channels:
                channel.stop()

    def connected(self) -> bool:
        """Has the broker accepted us?"""
        return self.core.state == mqtt.UP

    def measures(self) -> bool:
        """Is every sensor measured?"""
        for channel in self.channels:
            if channel.capture is None:
                return False
        return True

    def check_window(self, channel, window: int):
        """(field, reason) if this channel cannot have this window, else None."""
        if channel is not self.channels[0] and window != config.DEFAULTS["window"]:
            return "window", "the window belongs to the node's first device"
        if not 1 <= window <= self.window_size:
            return "window", "%d, want 1 to %d" % (window, self.window_size)
        return None

    # --- time ---

    def _advance(self) -> None:
        ticks = self.clock.ticks_us()
        self._us += (ticks - self._ticks) & _TICKS
        self._ticks = ticks
        self.now_ms = (self.now_ms + self._us // 1000) & MS_MASK
        self._us %= 1000

    def _each_second(self) -> None:
        if self._seconds >= self._utc_due:
            self._look_at_utc()
        if self._seconds >= self._retry_due:
            self._retry_due = self._seconds + _RETRY_S
            self._retry()
        for channel in self.channels:
            if channel.capture is not None and not self._seconds % channel.configuration.values["health_period_s"]:
                channel.report()
        self._feed()

    def _look_at_utc(self) -> None:
        before = self.clock.ticks_us()
        utc_us = self.clock.utc_us()
        if utc_us is None:
            return
        error_us = self.clock.utc_error_us + ((self.clock.ticks_us() - before) & _TICKS)
        if not self.boot:
            from triax import boot

            try:
                self._begin(boot.seed(self.store, utc_us // 1000000))
            except (OSError, ValueError) as error:
                self.log("no boot number: %s" % error)
                self._utc_due = self._seconds + _RETRY_S
                return
        for channel in self.channels:
            channel.set_utc(before, utc_us, error_us)
        self._utc_due = self._seconds + _UTC_S

    def _feed(self) -> None:
        """The watchdog lives on samples: a loop that turns but reads nothing is as dead as one that hangs."""
        alive = True
        for i in range(len(self.channels)):
            capture = self.channels[i].capture
            if capture is not None and capture.running:
                alive = False
                if self._seen[i] != capture.samples:
                    self._seen[i][:] = capture.samples
                    alive = True
                    break
        if alive and self._watchdog is not None:
            self._watchdog.feed()

    # --- the life of the node ---

    def _begin(self, number: int) -> None:
        self.boot = number
        self.log("boot %d" % number)
        for channel in self.channels:
            self._begin_channel(channel)
        self._utc_due = self._seconds
        self._use_link()

    def _begin_channel(self, channel) -> None:
        if not channel.begin(self.boot):
            self.log("%016x: no capture: %s" % (channel.device, channel.failure))
            channel.status.touch()

    def _retry(self) -> None:
        if self.boot and not self._stopping:
            for channel in self.channels:
                if channel.capture is None:
                    self._begin_channel(channel)

    def _finish(self) -> None:
        waiting = self.core.state == mqtt.UP and (self.core.window.count or any([c.status.waits() for c in self.channels]))
        if waiting and elapsed(self.now_ms, self._stopping_ms) < _GOODBYE_MS:
            return
        try:
            self.core.disconnect()
            self.connection.flush()
        except (OSError, LinkError):
            pass  # the last will says it instead
        self._link.close()
        self.stopped = True
        if self._after_stop is not None:
            self._after_stop()

    # --- network ---

    def _network(self) -> None:
        if getattr(self._link, "blocks", False) and self.connection.about_to_block(self.now_ms):
            self._expect_block()
        if self.core.state == mqtt.UP:
            self._outbox.publish(self.now_ms)
        for _ in range(_EVENTS):
            event = self.connection.step(self.now_ms)
            if event == mqtt.NOTHING:
                break
            self._on_event(event)
        configuration = self.channels[0].configuration
        if configuration.on_trial and elapsed(self.now_ms, self._trial_ms) >= TRIAL_MS:
            self._revert()

    def _on_event(self, event: int) -> None:
        if event == mqtt.RELEASED:
            self._on_released(self.core.window.owner, self.core.window.token)
        elif event == mqtt.MESSAGE:
            self._on_message(self.core.topic, self.core.payload())
        elif event == mqtt.OVERSIZE:
            self.oversize += 1
            self.log("%s: a message of %d bytes is too large, ignored" % (self.core.topic, self.core.reader.length))
            self.core.acknowledge()
        elif event == mqtt.CONNECTED:
            self._on_connected()
        elif event == mqtt.DENIED:
            self.log("the broker denies a subscription: no configuration will come; check its ACL")
        elif event == LOST:
            self.log(self.connection.reason)
            if self.channels[0].configuration.on_trial and self.connection.refused:
                self._revert()

    def _on_connected(self) -> None:
        self.log("connected to %s" % self.channels[0].configuration.link["host"])
        self._outbox.reconnected()
        self._subscribe()

    def _subscribe(self) -> None:
        topics = []
        for channel in self.channels:
            topics += [channel.config_topic, channel.calibration_topic]
        self.core.subscribe(topics, self.now_ms)

    def _on_released(self, owner: int, token: int) -> None:
        self.acked = (self.acked + 1) & MS_MASK
        self.connection.settled()
        document = self._outbox.released(owner, token)
        first = self.channels[0]
        # Status, a document, is always QoS 1: its PUBACK is a proof, where a frame of QoS 0 was only sent.
        if first.configuration.on_trial and document:
            self.connection.longest_ms = 60000
            result = first.configuration.through()
            self._decided(first, result)
            if result == config.APPLIED:
                self._subscribe()  # what this broker retains was ignored during the trial
            else:
                self._reconnect("old link settings")

    def _on_message(self, topic: str, payload) -> None:
        self._expect_block()  # the store may be slow
        decided = None
        result = config.IGNORED
        for channel in self.channels:
            if topic == channel.config_topic:
                decided = channel
                result = channel.configuration.offer(payload)
            elif topic == channel.calibration_topic:
                try:
                    channel.calibrate(payload)
                except OSError as error:
                    self.log("%s: not stored: %s" % (topic, error))
        self.core.acknowledge()
        self._decided(decided, result)

    def _expect_block(self) -> None:
        for channel in self.channels:
            if channel.capture is not None:
                channel.capture.blocked = True

    # --- configuration ---

    def _decided(self, channel, result: int) -> None:
        if result == config.TRIAL:
            self.log("trying new link settings")
            self._trial_ms = self.now_ms
            self.connection.longest_ms = _TRIAL_REST_MS
            self._reconnect("new link settings")
        elif result != config.IGNORED:
            channel.decided(result)
            self.core.window.limit = self.channels[0].configuration.values["window"]
            command = channel.configuration.command()
            if command is not None:
                self._carry_out(channel, command)

    def _revert(self) -> None:
        first = self.channels[0]
        result = first.configuration.failed(self.connection.reason)
        self.log("back to the old link settings: %s" % self.connection.reason)
        self.connection.longest_ms = 60000
        self._decided(first, result)
        self._reconnect("old link settings")

    def _reconnect(self, reason: str) -> None:
        self._use_link()
        self.connection.close(reason, self.now_ms)
        self.connection.hurry()

    def _use_link(self) -> None:
        """Settings of the next connection, the last will included."""
        first = self.channels[0]
        settings = first.configuration.link
        will = wire.encode(messages.STATUS, {"online": False, "boot": self.boot, "reason": messages.LOST})
        self.core.login(
            "triax-%016x" % self.node_id,
            settings.get("username") or None,
            settings.get("password") or None,
            settings.get("keepalive_s", 30),
            (first.status.topic, will, 1, True),
        )
        self.core.window.limit = first.configuration.values["window"]
        self.connection.use(settings)

    def _carry_out(self, channel, command: dict) -> None:
        kind = command["kind"]
        if kind == _RESTART:
            self.log("restart on command")
            self.stop(self.board.restart)
        elif kind == _UPDATE:
            self.log("update on command")
            self.stop(lambda: self.board.update(command["manifest"]))
        elif channel.capture is None:
            self.log("command %d ignored: nothing is measured" % command["id"])
        elif kind == _RUN_SELF_TEST:
            channel.self_test()
        elif kind == _RAW_CAPTURE:
            if channel.raw is None or not channel.raw.start(channel.capture, command["id"], command["duration_ms"]):
                self.log("command %d ignored: no room for a raw capture" % command["id"])
