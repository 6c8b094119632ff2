"""One accelerometer: configured, started, stopped, tested; its frames, raw frames and gaps go to callbacks.

capture = Capture(part, SampleClock(ticks_us()), ticks_us, device, boot, emit, on_gap)
capture.configure(1, range_g=15, odr_hz=16000)
capture.start()
while True:
    capture.poll(ticks_us())
"""

from triax.average import Average
from triax.errors import BadSetting, PartError
from triax.loop import CONFIG, LIMIT, SELF_TEST, SILENCE_US, TEMPERATURE_US, Loop


class Capture(Loop):
    """One accelerometer from FIFO to frames.

    `clock`: a SampleClock. `ticks_us()`: the monotonic microseconds that the clock runs on. `emit(buffer, length)` is called once
    for each finished frame, encoded in Capture's own buffer: copy it. `on_gap(first_sample, length, bound, cause)`: samples that do
    not exist, `first_sample` as eight bytes valid during the call, `length` +- `bound`, `cause` as in Gap. `decimation` 0: 10 ms.
    """

    def configure(
        self,
        version: int,
        range_g: int,
        odr_hz: float,
        decimation: int = 0,
        lowpass: int = 0,
        highpass: int = 0,
        test_pattern: bool = False,
    ) -> None:
        """Apply a configuration; while running, the frame is closed and the samples missed meanwhile are a gap.

        Raises BadSetting before anything has changed, OSError or NotTaken if the part does not take it: what was in force stays in
        force, and a running capture goes on with it.
        """
        part = self.part
        if decimation == 0:
            decimation = max(1, int(odr_hz / 100 + 0.5))
        average = Average(decimation, self._values, part.COUNT_BITS)
        part.validate(range_g, odr_hz, lowpass, highpass)
        running = self.running
        before = part.settings()
        try:
            if running:
                self._interrupt(CONFIG)
                part.stop()
            part.configure(range_g, odr_hz, lowpass, highpass)
        except (OSError, PartError):
            if before is not None:
                part.assume(before)
            self._leave(running)
            raise
        self.clock.configure(odr_hz, part.ODR_TOLERANCE_PPM, part.delay_us, self._unseen)
        self._unseen = 0
        self.average = average
        self.decimation = decimation
        self.test_pattern = test_pattern
        self.encoder.configure(version, decimation, part.scale_g)
        self._silence_us = SILENCE_US + int(20e6 / odr_hz)
        if running:
            self._restart()

    def start(self, watermark: int = 0) -> None:
        """Begin to measure; `watermark` in sets for the interrupt pin, 0: half the FIFO. Needs `configure`."""
        if self.average is None:
            raise BadSetting("configure before start")
        self._watermark = watermark or self.part.FIFO_SETS // 2
        self.part.start(self._watermark)
        self.running = True
        self._last_poll = self._last_sample = self._ticks_us()
        self._temperature_at = self._last_poll - TEMPERATURE_US

    def stop(self) -> None:
        """Close the frame and put the part into standby."""
        if self.running:
            self._interrupt(CONFIG)  # should it start again, what was missed is a gap
        self.running = False
        self.part.stop()

    def self_test(self) -> int:
        """Run the part's self-test: frame closed first, gap SELF_TEST after it. Returns its result.

        Raises OSError or NotTaken if the part does not answer; a running capture goes on once it does.
        """
        running = self.running
        try:
            if running:
                self._interrupt(SELF_TEST)
                self.part.stop()
            result = self.part.self_test()
        except (OSError, PartError):
            self._leave(running)
            raise
        if running:
            self._restart()
        return result

    def _restart(self) -> None:
        """After we stopped the part ourselves."""
        try:
            self.part.start(self._watermark)
        except (OSError, PartError):
            self._leave(True)
        self._last_sample = self._ticks_us()

    def _leave(self, running: bool) -> None:
        """The part does not answer while we change it: the next polls try to revive it."""
        if running:
            self.part.expect(self._watermark)
            self._broken = True

    def _interrupt(self, cause: int) -> None:
        """We stop the samples ourselves."""
        self._finish()
        self._begin_gap(cause, -1)
        self._guess = 0
        self._guess_bound = LIMIT

    def start_raw(self, encoder, capture: int, duration_ms: int, emit) -> None:
        """Send all samples of the next `duration_ms` as RawFrames too, through `emit(buffer, length)`; `encoder`: a RawEncoder.

        `capture`: the id of the command. A gap ends a raw frame; the capture goes on after it.
        """
        samples = min(LIMIT, int(duration_ms * self.part.odr_hz / 1000) + 1)
        encoder.begin(capture, self.part.scale_g, samples, emit)
        self._raw = encoder

    def raw_running(self) -> bool:
        return self._raw is not None and self._raw.left > 0
