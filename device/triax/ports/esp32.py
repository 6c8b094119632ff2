"""MicroPython on ESP32, ESP32-S3, ESP32-C3 with Wi-Fi. Not run on a board in this repository: type-checked against the stubs only.

What blocks: see triax.ports.wifi_board. An SPI transfer is at most 4092 bytes; all parts' FIFOs are smaller.
"""

from triax.ports.wifi_board import BoardPort


class Port(BoardPort):
    """An ESP32 of any kind; `board` in the settings says which."""

    BOARD = "esp32"
    WATCHDOG_MS = 30000
