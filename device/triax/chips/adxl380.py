"""ADXL380: the ADXL382's register map at 4, 8 and 16 g and half its rates (sensors.md 1.5, 1.7, 1.10)."""

from triax.chips.adxl382 import Adxl382


class Adxl380(Adxl382):
    """See triax.chips."""

    NAME = "adxl380"
    RANGES_G = (4, 8, 16)
    ODRS_HZ = (1000, 8000, 16000, 32000)
    FAMILY = 0x00
    G_PER_COUNT = (1 / 7500, 1 / 3750, 1 / 1875)
    TEMPERATURE_25C = 470
    SELF_TEST_LOW_MG = (2900, 2900, 2700)
    SELF_TEST_HIGH_MG = (5000, 5000, 3200)
