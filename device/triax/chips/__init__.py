"""One module a part, all of one shape, so that capture, node and the contract test need no list of parts.

A part is a class that takes a `triax.bus.SpiDevice` or `I2cDevice`. Nothing is written to the part before `reset` or `configure`.

Class constants

    NAME                "iis3dwb": module name, DeviceInfo.part
    BUSES               ("spi",), ("spi", "i2c") or ("i2c",)
    SPI_MODE, SPI_MAX_HZ, I2C_ADDRESSES   what the port opens the bus with
    FIFO_SETS           most sample sets (x, y, z) that the FIFO holds
    COUNT_BITS          width of a count: 12 to 20
    RANGES_G            legal `range_g`, ascending
    ODRS_HZ             legal `odr_hz`, ascending, nominal
    LOWPASS, HIGHPASS   legal divisors: corner = ODR / divisor; 0: the part's default path, no filter
    ODR_TOLERANCE_PPM   a measured rate further off than this is `rate suspect`
    LOSS_DETECTION      DeviceInfo.LossDetection: LOSS_COUNTED, LOSS_MODULO, LOSS_FLAG or LOSS_NONE (below)
    LOSS_PERIOD         LOSS_MODULO: lost samples are known modulo this number, else 0
    TEMPERATURE_CLASS   DeviceInfo.TemperatureClass

Attributes, valid after `configure`

    range_g, odr_hz     as configured (nominal)
    scale_g             float, g per count (typical, uncalibrated)
    clip_low, clip_high lowest and highest count that the part can put out in this range: equal means saturated
    delay_us            delay of the part's filters, 0 where no source states it
    serial              bytes, the part's own serial number after `check`, b"" where it has none

Methods

    check()             read the identity. Raises WrongPart
    validate(range_g, odr_hz, lowpass, highpass)
                        raise BadSetting where `configure` would, touch nothing
    reset()             soft reset, waits for it, leaves the part in standby. Raises NotTaken
    configure(range_g, odr_hz, lowpass=0, highpass=0)
                        in standby, registers read back. Raises BadSetting, NotTaken
    settings()          what `configure` was called with last; `assume(settings)`: take that for true, `recover` writes it
    start(watermark)    empty FIFO, stream mode (keep newest), watermark in sets (1 to FIFO_SETS - 1), measuring
    stop()              standby, FIFO off
    expect(watermark)   take the part for started; `recover` makes it so
    level()             poll status and FIFO level in the fewest transactions: sets that wait, 0 to FIFO_SETS
    read_fifo(out)      take the sets that the last `level` found into `out`, array("i") of 3 * FIFO_SETS: x, y, z interleaved
                        from index 0. Returns the number of sets, 0: nothing left
    temperature_mc()    thousandths of a degree C, NOT_MEASURED where the part has none. Two registers at most
    self_test()         in standby only. Returns PASS, FAIL or INCONCLUSIVE; response in `self_test_mg` (x, y, z), allowed range in
                        `self_test_low_mg`, `self_test_high_mg` (all 0: no limits are known for this one), cause in
                        `self_test_reason`. Registers as before, read back

What `read_fifo` promises: the sets of one call are consecutive samples. Where samples are missing *before the first set of this
call*, `gap` has the reasons (GAP_OVERRUN, GAP_AXIS), else 0, and `gap_modulo` the number missing modulo LOSS_PERIOD, or -1. A break
in the middle of a burst ends the call; the next call returns what follows it. So the reader's loop is

    part.level()
    while True:
        sets = part.read_fifo(out)
        if part.gap: ...            # before the first of these sets
        if not sets: break

`gap` with 0 sets: the FIFO was cleared to resynchronise, what comes next does not follow on what came before; the next call that
returns sets does not repeat that gap. `level` and `read_fifo` allocate nothing and let the bus's OSError through; after an OSError
the caller calls `recover()`: FIFO cleared, configuration checked, rewritten if the part lost it (a sensor that was reset by a
supply dip); returns True if it had to be rewritten.
"""

try:
    from micropython import const
except ImportError:  # CPython

    def const(value: int) -> int:
        return value


# DeviceInfo.LossDetection
LOSS_COUNTED = const(1)
LOSS_MODULO = const(2)
LOSS_FLAG = const(3)
LOSS_NONE = const(4)

# DeviceInfo.TemperatureClass
TEMPERATURE_ABSOLUTE = const(1)
TEMPERATURE_RELATIVE = const(2)
TEMPERATURE_NONE = const(3)

# Why samples are missing, in the bits of FrameFlag.
GAP_OVERRUN = const(1)
GAP_BUS = const(2)
GAP_AXIS = const(4)

# SelfTest.Result
PASS = const(1)
FAIL = const(2)
INCONCLUSIVE = const(3)

# Below absolute zero, so it is no temperature, and still a small int on 32 bits (Frame says -2^31).
NOT_MEASURED = const(-300000)
