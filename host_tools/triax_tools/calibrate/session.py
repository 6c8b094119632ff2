"""A guided capture as it runs: frames in, file and guide fed, prompts and marks out. No clock of its own, no terminal, no socket.

session = Session(writer)
for arrival_us, frame in source:
    for prompt in session.take(arrival_us, frame): ...
"""

from typing import Any

import numpy as np
from triax_proto import frame as codec
from triax_proto.errors import FrameError
from triax_proto.v1.frame_pb2 import FRAME_FLAG_TEST_PATTERN

from triax_tools.calibrate import capfile, guide
from triax_tools.calibrate.errors import DeviceError
from triax_tools.calibrate.guide import HOLD_S, Guide, Prompt
from triax_tools.calibrate.pose import NAMES

__all__ = ["Session"]


class Session:
    """Feeds a Guide with frames and keeps the file's marks in step with what the guide decides.

    Frames that come twice or late are written and not fed. A file with records in it is gone through first, so a capture that was
    interrupted goes on.
    """

    def __init__(self, writer: capfile.CaptureWriter, hold_s: float = HOLD_S) -> None:
        self.guide: Guide | None = None
        self.damaged = 0
        self.frames = 0
        self._writer = writer
        self._hold_s = hold_s
        self._next: tuple[int, int] | None = None  # boot, first sample that continues
        self._sample: list[tuple[int, int, int]] = []  # boot, first raw sample, decimation of each value fed
        self._replaying = True
        for kind, arrival_us, payload in writer.resumed:
            if kind == capfile.FRAME:
                self.take(arrival_us, payload)
            elif kind == capfile.MARK and b'"open"' in payload:
                self._reopen(payload)
        self._replaying = False

    def take(self, arrival_us: int, data: bytes) -> list[Prompt]:
        """One frame as it arrived. A damaged one is counted and left out. Raises DeviceError for a test pattern."""
        try:
            frame = codec.parse(data)
        except FrameError:
            self.damaged += 1
            return []
        if int(frame["flags"][0]) & FRAME_FLAG_TEST_PATTERN:
            raise DeviceError("The node sends its test pattern, not its sensor: switch test_pattern off in its configuration.")
        if not self._replaying:
            self._writer.write(capfile.FRAME, arrival_us, data)
        self.frames += 1
        prompts = self._feed(frame)
        for prompt in prompts:
            self._mark(arrival_us, prompt)
        return prompts

    def redo(self, arrival_us: int) -> list[Prompt]:
        """The human wants the last pose back."""
        if self.guide is None:
            return []
        prompts = self.guide.redo()
        for prompt in prompts:
            self._mark(arrival_us, prompt)
        return prompts

    @property
    def done(self) -> bool:
        """All poses are taken."""
        return self.guide is not None and self.guide.done

    def _feed(self, frame: np.ndarray[Any, Any]) -> list[Prompt]:
        boot, first, samples = (int(frame[name][0]) for name in ("boot", "first_sample", "samples"))
        decimation = int(frame["decimation"][0])
        if self._next and (boot, first) < self._next:
            return []
        prompts: list[Prompt] = []
        if self.guide is None:
            self.guide = Guide(float(frame["rate_hz"][0]) / decimation, float(frame["scale_g"][0]), hold_s=self._hold_s)
        elif (boot, first) != self._next:
            prompts = self.guide.gap()
        self._next = (boot, first + samples)
        if "x" not in (frame.dtype.names or ()):
            return prompts
        counts = np.stack([frame[axis][0] for axis in "xyz"], axis=-1) / decimation
        self._sample += [(boot, first + k * decimation, decimation) for k in range(len(counts))]
        return prompts + self.guide.feed(counts)

    def _mark(self, arrival_us: int, prompt: Prompt) -> None:
        if self._replaying or self.guide is None or prompt.cell is None:
            return
        if prompt.kind == guide.ACCEPTED:
            taken = self.guide.taken[prompt.cell]
            boot, start, _ = self._sample[taken.start]
            _, last, decimation = self._sample[taken.stop - 1]
            self._writer.mark(arrival_us, accepted=NAMES[prompt.cell], boot=boot, start=start, stop=last + decimation)
        elif prompt.kind in (guide.REDONE, guide.REVOKED):
            self._writer.mark(arrival_us, open=NAMES[prompt.cell])

    def _reopen(self, payload: bytes) -> None:
        """A cell that was given back in the part of the capture before."""
        if self.guide is None:
            return
        for cell in list(self.guide.taken):
            if f'"{NAMES[cell]}"'.encode() in payload:
                self.guide.forget(cell, guide.REDONE, "")
