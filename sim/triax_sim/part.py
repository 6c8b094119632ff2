"""What every virtual part has besides registers: an oscillator, samples from a source, a FIFO, and the truth about what was lost.

A part is lazy. Nothing happens between transactions; at each one it *catches up*: it works out from the world's time and its own
oscillator how many samples it has made since, and lets them flow into the FIFO as ranges of numbers. Counts are asked from the
source and packed into FIFO bytes only when read, a block at once. A `source(first_index, count)` gives raw counts (count, 3),
already quantised and clipped; indices run on over the part's whole life. A source that has `begin(first_index, start_us,
rate_hz, lsb_per_g, low, high)` is told when the part starts to measure with what scale and true rate. Runs on MicroPython too.
"""

from triax_sim.epoch import BLOCK, Epoch, Truth
from triax_sim.fifo import Fifo
from triax_sim.pack import shifted
from triax_sim.registers import RegisterFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from triax_sim.world import World

__all__ = ["Part"]


class Part(RegisterFile):
    """Base of all virtual parts. `quirks` switches on, by number, faults of real silicon that QUIRKS names; `truth` is the
    account.
    """

    FIFO_UNITS = 0
    CLIP_LOW = -32768
    CLIP_HIGH = 32767
    QUIRKS: "tuple[str, ...]" = ()
    DIP_US = 5000  # power-up after a supply dip: longer than any part here needs

    def __init__(self, world: "World", source: "Callable[[int, int], Any]", ppm: float = 0.0, temperature_c: float = 25.0) -> None:
        self.source = source
        self.ppm = ppm
        self.temperature_c = temperature_c
        self._account = Truth()
        self.quirks: dict[str, int] = {}
        self.fifo = Fifo(self.FIFO_UNITS)
        self.epoch: Epoch | None = None
        self._epochs: dict[int, Epoch] = {}
        self._epoch_number = 0
        self._made = 0  # samples of this epoch so far
        self._caught_us = -1  # when `catch_up` last looked
        self._fresh = False  # a sample has come since the data registers were read
        self._overrun = False
        self._skip = 0  # samples a quirk swallows next
        self._residue = b""  # of the unit a burst has begun to read
        self.unit_bytes = 1  # of a FIFO unit of the latest epoch
        RegisterFile.__init__(self, world)

    # ---- what a subclass says about itself

    def _rate_hz(self) -> float:
        """Nominal output rate under the present registers."""
        raise NotImplementedError

    def _lsb_per_g(self) -> float:
        """Scale under the present registers."""
        raise NotImplementedError

    def _clip(self) -> "tuple[int, int]":
        """Lowest and highest code under the present registers."""
        return self.CLIP_LOW, self.CLIP_HIGH

    def _pack(self, epoch: Epoch, first: int, counts: "Any") -> bytes:
        """FIFO bytes of a block of counts whose first sample has the number `first` in its epoch."""
        raise NotImplementedError

    def _unit_bytes(self) -> int:
        raise NotImplementedError

    def _units_per_sample(self) -> int:
        return 1

    def _storing(self) -> bool:
        """Whether samples go into the FIFO."""
        raise NotImplementedError

    def _keeps_newest(self) -> bool:
        """Whether a full FIFO overwrites its oldest (else it refuses new ones)."""
        raise NotImplementedError

    def _watermark(self) -> int:
        """Watermark in units; 0 is off."""
        raise NotImplementedError

    def _shift(self) -> "tuple[int, int, int]":
        """Counts added to the source by offset registers and self-test."""
        return 0, 0, 0

    def _layout(self) -> "Any":
        """What `_pack` must know of the registers, kept for samples that are read after the registers change."""
        return None

    # ---- samples and FIFO

    def _units_until(self, samples: int) -> int:
        return samples * self._units_per_sample()

    def _samples_before(self, unit: int) -> int:
        """Whole samples of the stream that end at or before this unit."""
        return unit // self._units_per_sample()

    def _start(self, turn_on_us: int) -> None:
        """Begin an epoch: measure under the present registers. The first sample is due one period after the turn-on time."""
        self._stop()
        for number, first, last in self.fifo.ranges():  # unread samples keep the counts of the configuration that made them
            self._epochs[number].bytes_of(first, last)
        rate_uhz = int(self._rate_hz() * (1_000_000 + self.ppm))
        start_us = self.world.now_us + turn_on_us
        self._epoch_number += 1
        self.epoch = Epoch(self, self._epoch_number, self._account.made, start_us, rate_uhz)
        self._epochs = {n: e for n, e in self._epochs.items() if self.fifo.level}
        self._epochs[self._epoch_number] = self.epoch
        self.unit_bytes = self.epoch.unit_bytes
        self._made = 0
        self._caught_us = -1
        self._begin_source(self.epoch)

    def _begin_source(self, epoch: Epoch) -> None:
        begin = getattr(self.source, "begin", None)
        if begin is not None:
            low, high = epoch.clip
            first_us = epoch.start_us + 1_000_000 * 1_000_000 / epoch.rate_uhz
            begin(epoch.first, first_us, epoch.rate_uhz / 1e6, self._lsb_per_g(), low, high)

    def _stop(self) -> None:
        """Stop measuring; what the FIFO holds stays in it."""
        self.epoch = None

    def _make_block(self, epoch: Epoch, number: int) -> "tuple[Any, bytes]":
        counts = self.source(epoch.first + number * BLOCK, BLOCK)
        low, high = epoch.clip
        counts = shifted(counts, epoch.shift, low, high)
        return counts, self._pack(epoch, number * BLOCK, counts)

    def catch_up(self) -> None:
        """Make the samples that were due since the last call."""
        epoch = self.epoch
        if epoch is None or self.world.now_us == self._caught_us:
            return
        self._caught_us = self.world.now_us
        made = epoch.due(self._caught_us)
        first = self._made
        if made > first:
            self._made = made
            self._account.made += made - first
            self._fresh = True
            self._keep(epoch, first, made)

    def _keep(self, epoch: Epoch, first: int, last: int) -> None:
        """Let samples first..last flow into the FIFO."""
        if not self._storing():
            self._account.unstored += last - first
            return
        if self._skip:
            swallowed = min(self._skip, last - first)
            self._skip -= swallowed
            self._account.dropped += swallowed
            first += swallowed
        start = self._units_until(first)
        if self._keeps_newest():
            self.fifo.push(epoch.number, start, self._units_until(last))
            gone = self.fifo.trim()
            if gone:
                self._overrun = True
                self._account.overwritten += self._samples_in(gone)
            return
        fits = min(last, max(first, self._samples_before(start + self.fifo.capacity - self.fifo.level)))
        self.fifo.push(epoch.number, start, self._units_until(fits))
        if fits < last:
            self._overrun = True
            self._account.refused += last - fits

    def _samples_in(self, ranges: "list[tuple[int, int, int]]") -> int:
        """Samples that lost at least one unit with these ranges, each counted once."""
        lost = 0
        for number, start, end in ranges:
            epoch = self._epochs[number]
            first = max(self._samples_before(start), epoch.counted)
            last = self._samples_before(end)
            if self._units_until(last) < end:
                last += 1
            if last > first:
                lost += last - first
                epoch.counted = last
        return lost

    def _clear_fifo(self) -> None:
        self._account.cleared += self._samples_in(self.fifo.clear())
        self._overrun = False

    def _take(self, units: int) -> bytes:
        """Bytes of up to `units` of the oldest units, removed."""
        data = bytearray()  # MicroPython's bytes.join takes no memoryview
        for number, start, end in self.fifo.pop(units):
            for piece in self._epochs[number].bytes_of(start, end):
                data.extend(piece)
        return bytes(data)

    def latest(self) -> "tuple[int, int, int]":
        """Counts in the data registers: those of the newest sample, zeros before the first."""
        self.catch_up()
        if self.epoch is None or self._made == 0:
            return 0, 0, 0
        return self.epoch.sample(self._made - 1)

    @property
    def truth(self) -> Truth:
        """What has really become of all samples until now."""
        self.catch_up()
        return self._account

    @property
    def level(self) -> int:
        """Units in the FIFO now."""
        self.catch_up()
        return self.fifo.level

    def watermark_us(self) -> "int | None":
        """When the FIFO reaches its watermark if nobody reads it; None if it never does. Lets a test jump there instead of
        polling.
        """
        self.catch_up()
        missing = self._watermark() - self.fifo.level
        if self.epoch is None or not self._storing() or self._watermark() == 0:
            return None
        if missing <= 0:
            return self.world.now_us
        target = self._units_until(self._made) + missing
        samples = self._samples_before(target)
        return self.epoch.time_of(samples + (self._units_until(samples) < target))

    def reset(self, busy_us: int) -> None:
        """Return to reset values and answer nothing for a while; what was in the FIFO is gone."""
        self.catch_up()
        self._clear_fifo()
        self._stop()
        self._load_reset_values()
        self._busy_until_us = self.world.now_us + busy_us

    def power_dip(self) -> None:
        """A dip of the supply: the part comes back with its reset values, and nobody is told."""
        self.reset(self.DIP_US)

    def _measuring(self) -> bool:
        return self.epoch is not None

    def _transaction_over(self) -> None:
        self._residue = b""

    def _read_port(self, view: memoryview) -> int:
        """Fill from a FIFO port whose address holds; returns the bytes taken. An empty FIFO gives zeros."""
        need = len(view)
        units, cut = divmod(need, self.unit_bytes)
        if not (cut or self._residue or units > self.fifo.level):  # whole units, as drivers read them: straight into their buffer
            at = 0
            for number, start, end in self.fifo.pop(units):
                for piece in self._epochs[number].bytes_of(start, end):
                    view[at : at + len(piece)] = piece
                    at += len(piece)
            return need
        data = self._residue
        if len(data) < need:
            data = data + self._take(-(-(need - len(data)) // self.unit_bytes))
            if len(data) < need:
                data = data + bytes(need - len(data))
        view[:need] = data[:need]
        self._residue = data[need:]
        return need

    def _read_window(self, view: memoryview, first: int, width: int) -> int:
        """Fill from a window of `width` registers that shows the oldest unit; the address wraps in it. A unit leaves the FIFO
        when its last byte is read. An empty FIFO gives zeros.
        """
        offset = self._address - first
        whole, left = divmod(offset + len(view), width)
        data = self._take(whole)
        if len(data) < whole * width:
            data = data + bytes(whole * width - len(data))
        if left:
            data = data + self._peek(width)
        view[:] = data[offset : offset + len(view)]
        self._address = first + left
        return len(view)

    def _peek(self, width: int) -> bytes:
        """The oldest unit, left in the FIFO; zeros if there is none."""
        for number, start, _ in self.fifo.head():
            return bytes(self._epochs[number].bytes_of(start, start + 1)[0])
        return bytes(width)
