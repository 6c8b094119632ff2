"""MicroPython on Raspberry Pi Pico W and Pico 2 W. Not run on a board in this repository: type-checked against the stubs only.

What blocks: see triax.ports.wifi_board. SPI uses DMA from 32 bytes on; an overrun of it raises OSError and becomes a bus error.
"""

from triax.ports.wifi_board import BoardPort


class Port(BoardPort):
    """A Pico W or Pico 2 W."""

    BOARD = "pico-w"
    WATCHDOG_MS = 8388  # the longest that the RP2040 has
