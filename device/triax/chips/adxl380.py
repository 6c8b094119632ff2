"""ADXL380: the ADXL382's register map at 4, 8 and 16 g and half its rates (sensors.md 1.5, 1.7, 1.10; data sheet [DS380])."""

from triax.chips.adxl382 import Adxl382


class Adxl380(Adxl382):
    """See triax.chips."""

    NAME = "adxl380"
    I2C_ADDRESSES = (0x54, 0x1D, 0x53, 0x55)  # Table 20 [DS380]
    RANGES_G = (4, 8, 16)
    ODRS_HZ = (1000, 8000, 16000, 32000)
    FAMILY = 0x00
    G_PER_COUNT = (1 / 7500, 1 / 3750, 1 / 1875)
    TEMPERATURE_25C = 550  # Table 1 [DS380], [N38x]
    # At 8 kHz by low-pass: x and y of Table 1, then without the equaliser and with the filter of Table 25 [DS380]. z: 40 us more.
    # The other rates are in no table.
    DELAY_US = (710, 695, 790, 1025)
    SELF_TEST_RANGE = 1  # "Self Test" [DS380]
    SELF_TEST_LOW_MG = (2500, 2500, 2000)  # Table 1 [DS380]
    SELF_TEST_HIGH_MG = (5500, 5500, 3800)

    def _derive(self) -> None:
        Adxl382._derive(self)
        self.delay_us = self.DELAY_US[self.LOWPASS.index(self._lowpass)] if self.odr_hz == 8000 else 0
