"""Virtual ADXL380: the ADXL382's register map with smaller ranges and half its rates (MISC0 bit 7 tells them apart, the part id
does not).
"""

from triax_sim.chips import adxl382

__all__ = ["Twin"]


class Twin(adxl382.Twin):
    """The part; quirks as in the ADXL382."""

    NAME = "adxl380"
    IDENTITY = {0x00: 0xAD, 0x01: 0x1D, 0x02: 0x17, 0x03: 0xC1, 0x20: 0x00}
    LSB_PER_G = (7500.0, 3750.0, 1875.0)
    HIGH_RATES_HZ = (8_000.0, 16_000.0, 32_000.0)
    SELF_TEST_G = (2.0, 2.0, 1.5)  # half of forward minus reverse, typically 4, 4, 3 g: data sheet Rev. A, Table 1
    TEMPERATURE_25C = 550.0
    I2C_ADDRESSES = (0x54, 0x1D, 0x53, 0x55)
