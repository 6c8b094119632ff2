"""One accelerometer of a node: its capture, what it has to say, and what it is told.

What it says stands in outlets, each a topic with a spool: frames, events, raw frames. What is only worth its last value stands in
documents: info, status, the acknowledgement of a configuration. The node publishes from both and reports what has arrived.
"""

from hashlib import sha256

from triax import about, frame, messages, wire
from triax.capture import Capture
from triax.clock import SampleClock
from triax.config import APPLIED, TRIAL, Configuration
from triax.errors import BadSetting, PartError
from triax.outbox import Document, Outlet
from triax.packets import topic
from triax.spool import Kept, Spool

try:
    from micropython import const
except ImportError:

    def const(value):
        return value


_MAX_CALIBRATION = const(4096)

# Event.Kind
_EVENT_GAP = const(1)
_EVENT_CLOCK_FIX = const(2)
_EVENT_SELF_TEST = const(3)

# Events wait here while the node is offline: a gap event has 70 bytes, a self-test with its reason 160.
_EVENT_SLOTS = const(24)
_EVENT_BYTES = const(176)
# An event is worth more than a frame and there are few: no need to hold them back.
_EVENT_REPLAY_HZ = const(100)


class Channel:
    """`part` on its bus; `spool` for its frames; `settings`: range_g, odr_hz and what else differs from triax.config.DEFAULTS.

    `raw_sets`: samples of a raw frame, 0: no raw captures; `raw_slots` of them wait for the network. `raw_ms`: longest capture.
    """

    def __init__(self, device: int, part, spool: Spool, settings: dict, values=10, raw_sets=0, raw_slots=8, raw_ms=10000) -> None:
        self.device = device
        self.part = part
        self.capture = None
        self.failure = ""  # why there is no capture
        self.storage_errors = 0
        self._values = values
        self._settings = settings
        self.raw = None
        self._event_number = 0
        self._had_utc = False
        self.calibration_hash = b""
        prefix = "triax/v1/%016x/" % device
        self.config_topic = prefix + "config"
        self.calibration_topic = prefix + "calibration"
        self.frames = Outlet(topic(prefix + "frame"), spool)
        events = Spool(Kept(_EVENT_SLOTS, _EVENT_BYTES), True, _EVENT_REPLAY_HZ)
        self.events = Outlet(topic(prefix + "event"), events)
        self.outlets = (self.events, self.frames)
        if raw_sets:
            from triax.raw import Raw  # RAM for those who want it

            self.raw = Raw(topic(prefix + "raw"), part, raw_sets, raw_slots, raw_ms)
            self.outlets = (self.events, self.frames, self.raw)
        self.info = Document(topic(prefix + "info"), about.info, 1)
        self.status = Document(topic(prefix + "status"), about.status, 1)
        self.ack = Document(topic(prefix + "config/ack"), about.ack, 0)
        self.documents = (self.info, self.status, self.ack)
        self.reason = messages.STARTED

    def attach(self, node, link) -> None:
        """Belong to a node: read what the store holds. `link`: the node's link settings, None: another channel has them."""
        self.node = node
        name = "config-%016x" % self.device
        self.configuration = Configuration(node.store, name, self._settings, link, self._check, self._use)
        self.ack.arrived = self.configuration.acked
        self._calibration_name = "calibration-%016x" % self.device
        stored = node.store.read(self._calibration_name)
        if stored:
            self.calibration_hash = sha256(stored).digest()
        if self.configuration.ack() is not None:
            self.ack.touch()
        self._use_spool_settings()

    def begin(self, boot: int) -> bool:
        """Number frames from now on: check the part, configure it, measure. False: `failure` tells what is wrong."""
        node = self.node
        self.configuration.boot = boot
        try:
            self.part.check()
            self.part.reset()
            # 20 ppm: a computer's crystal, whose rate its own time service keeps better than that
            clock = SampleClock(node.clock.ticks_us(), getattr(node.clock, "crystal_ppm", 20))
            capture = Capture(self.part, clock, node.clock.ticks_us, self.device, boot, self._emit, self._on_gap, self._values)
            self._configure(capture, self.configuration.version, self.configuration.values)
            if self.raw is not None:
                self.raw.begin(self.device, boot)
            capture.start()
        except (OSError, PartError, BadSetting) as error:
            self.failure = str(error)
            return False
        self.failure = ""
        self.capture = capture
        self.info.touch()
        self.status.touch()
        return True

    def stop(self) -> None:
        """Close the last frame; say goodbye."""
        if self.capture is not None and self.capture.running:
            try:
                self.capture.stop()
            except OSError:
                pass  # the frame is out, the part is not reachable
        self.reason = messages.STOPPED
        self.status.touch()

    def set_utc(self, ticks: int, utc_us: int, error_us: int) -> None:
        """UTC is known; whoever got frames without it is told how to correct them."""
        if self.capture is None:
            return
        self.capture.clock.set_utc(ticks, utc_us, error_us)
        if not self._had_utc:
            self._had_utc = True
            if int.from_bytes(self.capture.encoder.buffer[frame.SEQUENCE : frame.SEQUENCE + 4], "little"):
                offset, error = self.capture.clock.fix()
                self.put_event(_EVENT_CLOCK_FIX, "clock_fix", {"offset_us": offset, "error_us": error})

    def report(self) -> None:
        """Health is due."""
        self.reason = messages.REPORT
        self.status.touch()

    # --- told by the network ---

    def decided(self, result: int) -> None:
        """The configuration decided something: use it, say it."""
        if result == APPLIED:
            self._use_spool_settings()
            self.info.touch()
        if result and result != TRIAL:
            self.ack.touch()

    def calibrate(self, data) -> None:
        """A calibration has come: keep it as it is, up to 4 KiB. Raises OSError."""
        if len(data) > _MAX_CALIBRATION:
            self.node.oversize += 1
            self.node.log("%016x: a calibration of %d bytes, at most %d are kept" % (self.device, len(data), _MAX_CALIBRATION))
            return
        if data == (self.node.store.read(self._calibration_name) or b""):
            return
        self.node.store.write(self._calibration_name, data)
        self.calibration_hash = sha256(data).digest() if data else b""
        self.info.touch()

    def self_test(self) -> None:
        """Run the part's self-test and say how it went."""
        try:
            result = self.capture.self_test()
        except (OSError, PartError) as error:
            self.node.log("%016x: self-test broke off: %s" % (self.device, error))
            detail = {"result": 3, "reason": str(error)[:60]}
        else:
            part = self.part
            detail = {"result": result, "reason": part.self_test_reason[:60]}
            fields = (("response_g", part.self_test_mg), ("low_g", part.self_test_low_mg), ("high_g", part.self_test_high_mg))
            for name, values in fields:
                detail[name] = [value / 1000 for value in values]
        self.put_event(_EVENT_SELF_TEST, "self_test", detail)

    def put_event(self, kind: int, name: str, detail: dict) -> None:
        """Something happened."""
        clock = self.node.clock
        time_us = clock.utc_us()
        error_us = messages.UNKNOWN if time_us is None else clock.utc_error_us
        if time_us is None:
            time_us = self.capture.clock.since_boot_us(clock.ticks_us())
        event = {
            "device": self.device,
            "boot": self.configuration.boot,
            "kind": kind,
            "time_us": time_us,
            "time_error_us": error_us,
            "number": self._event_number,
            name: detail,
        }
        self._event_number += 1
        try:
            data = wire.encode(messages.EVENT, event)
            self.events.spool.put(data, len(data))
        except (MemoryError, OSError):
            pass  # the number that is missing tells

    # --- said by the capture ---

    def _emit(self, buffer, length: int) -> None:
        try:
            self.frames.spool.put(buffer, length)
        except OSError:
            self.storage_errors += 1  # the spool counts the frame as dropped

    def _on_gap(self, first_sample, length: int, bound: int, cause: int) -> None:
        first = int.from_bytes(first_sample, "little")
        self.put_event(_EVENT_GAP, "gap", {"first_sample": first, "length": length, "bound": bound, "cause": cause})

    # --- settings ---

    def _check(self, values: dict):
        """What the part cannot do: (field, reason) or None."""
        part = self.part
        if _legal(values["odr_hz"], part.ODRS_HZ) is None:
            return "odr_hz", "%s has %s" % (part.NAME, _list(part.ODRS_HZ))
        if _legal(values["range_g"], part.RANGES_G) is None:
            return "range_g", "%s has %s" % (part.NAME, _list(part.RANGES_G))
        longest = (1 << 30 - part.COUNT_BITS) - 1
        if not 0 <= values.get("decimation", 0) <= longest:
            return "decimation", "%d, want 1 to %d, or 0 for 10 ms" % (values["decimation"], longest)
        return self.node.check_window(self, values["window"])

    def _use(self, version: int, values: dict) -> None:
        """Have the part take these. What does not concern it costs no gap: only the version in the next frame is another."""
        capture = self.capture
        if capture is None:
            return
        if _of_part(values) == _of_part(self.configuration.values):
            capture.encoder.configure(version, capture.decimation, self.part.scale_g)
        else:
            self._configure(capture, version, values)

    def _configure(self, capture, version: int, values: dict) -> None:
        odr_hz, range_g, decimation, lowpass, highpass, test_pattern = _of_part(values)
        capture.configure(
            version,
            _legal(range_g, self.part.RANGES_G),
            _legal(odr_hz, self.part.ODRS_HZ),
            decimation,
            lowpass,
            highpass,
            test_pattern,
        )

    def _use_spool_settings(self) -> None:
        values = self.configuration.values
        self.frames.spool.keep_newest = values["keep_newest"]
        self.frames.spool.replay_hz = values["replay_hz"]


def _of_part(values: dict):
    optional = [values.get(name, 0) for name in ("decimation", "lowpass", "highpass")]
    return [values["odr_hz"], values["range_g"]] + optional + [values["test_pattern"]]


def _legal(value: float, values):
    """The one of `values` that a Config, whose floats have 24 bits, means; None: none of them."""
    for legal in values:
        if abs(value - legal) <= legal * 1e-6:
            return legal
    return None


def _list(values) -> str:
    return ", ".join([str(value) for value in values])
