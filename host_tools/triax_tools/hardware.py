"""Boards and parts as data: what hardware/ says, and the arithmetic of what fits together."""

import importlib
import tomllib
from dataclasses import dataclass, field
from typing import Any

from triax_backend.shipped import shipped

import triax_tools

__all__ = ["Budget", "Unknown", "board", "boards", "budget", "part_class", "part_pins", "parts"]

FOLDER = shipped(triax_tools.__file__, "../hardware")
FRAME_BYTES = 273
# Fixed header, topic of 31 characters with its length, packet number; then TCP/IP and its acknowledgement.
PUBLISH_BYTES = 38
TCP_BYTES = 2 * 40
FRAMES_HZ = 10
# More of the bus and a burst that was late cannot be caught up with: each second of delay would need another one.
BUS_LIMIT = 0.7
# Chip select, command byte and the level's registers of a poll, in bytes on the wire; and Python's share of a transfer.
POLL_BYTES = 12
# RAM on a board, measured on a 32-bit unix port: modules, one driver and a port as .mpy; the node while it reads a calibration; a
# channel without its buffers while 24 events wait.
CODE_KIB = 85
NODE_KIB = 10
CHANNEL_KIB = 7
_I2C_CLOCKS = 9
_SPI_CLOCKS = 8


class Unknown(ValueError):
    """There is no such board or part; the message lists those that there are."""


def boards() -> list[str]:
    """Names of all boards."""
    return sorted(path.stem for path in (FOLDER / "boards").glob("*.toml"))


def board(name: str) -> dict[str, Any]:
    """A board's data. Raises Unknown."""
    path = FOLDER / "boards" / f"{name}.toml"
    if name not in boards():
        raise Unknown(f"no board {name!r}; there are {', '.join(boards()) or f'none: {FOLDER} is missing'}")
    return tomllib.loads(path.read_text())


def parts() -> list[str]:
    """Names of all parts."""
    return sorted(tomllib.loads((FOLDER / "parts.toml").read_text()))


def part_pins(name: str) -> dict[str, str]:
    """Labels on the part's breakout. Raises Unknown."""
    data = tomllib.loads((FOLDER / "parts.toml").read_text())
    if name not in data:
        raise Unknown(f"no part {name!r}; there are {', '.join(sorted(data))}")
    pins: dict[str, str] = data[name]
    return pins


def part_class(name: str) -> Any:
    """The node's driver of a part. Raises Unknown."""
    part_pins(name)
    module = importlib.import_module(f"triax.chips.{name}")
    return getattr(module, name[0].upper() + name[1:])


@dataclass
class Budget:
    """What a part asks of a board. No `refusals`: it can work; `warnings`: its cost; `unmeasured`: what no measurement says."""

    part: str
    board: str
    odr_hz: float
    bus: str
    bus_hz: int
    fifo_ms: float
    bus_share: float
    drain_ms: float
    link_kbit_s: float
    link_share: float
    spool_s: float
    spool_kib: float
    heap_kib: float
    board_kib: int
    refusals: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unmeasured: list[str] = field(default_factory=list)


def budget(
    part_name: str, board_name: str, odr_hz: float | None = None, bus: str = "", sensors: int = 1, bus_hz: int | None = None
) -> Budget:
    """Does this part on this board lose nothing? Raises Unknown; ValueError for a rate or bus that the part does not have."""
    part, data = part_class(part_name), board(board_name)
    odr_hz = odr_hz or max(part.ODRS_HZ)
    if odr_hz not in part.ODRS_HZ:
        raise ValueError(f"{part_name} has no {odr_hz:g} Hz; it has {', '.join(f'{hz:g}' for hz in part.ODRS_HZ)}")
    bus = bus or part.BUSES[0]
    if bus not in part.BUSES:
        raise ValueError(f"{part_name} is not on {bus}; it is on {' and '.join(part.BUSES)}")
    fastest = min(part.SPI_MAX_HZ, data["spi"]["max_hz"]) if bus == "spi" else data["i2c"]["max_hz"]
    bus_hz = min(bus_hz or fastest, fastest)
    byte_s = (_SPI_CLOCKS if bus == "spi" else _I2C_CLOCKS) / bus_hz
    polls_hz = 8 * odr_hz / part.FIFO_SETS
    busy = sensors * (odr_hz * part.SET_BYTES + polls_hz * POLL_BYTES) * byte_s
    link_kbit_s = sensors * FRAMES_HZ * (FRAME_BYTES + PUBLISH_BYTES + TCP_BYTES) * 8 / 1000
    spool_frames = data["memory"]["spool_frames"] // sensors
    result = Budget(
        part=part_name,
        board=board_name,
        odr_hz=odr_hz,
        bus=bus,
        bus_hz=bus_hz,
        fifo_ms=1000 * part.FIFO_SETS / odr_hz,
        bus_share=busy,
        drain_ms=1000 * part.FIFO_SETS * part.SET_BYTES * byte_s,
        link_kbit_s=link_kbit_s,
        link_share=link_kbit_s / data["link"]["kbit_s"] if data["link"]["kbit_s"] else float("inf"),
        spool_s=spool_frames / FRAMES_HZ,
        spool_kib=spool_frames * sensors * FRAME_BYTES / 1024,
        heap_kib=NODE_KIB + sensors * (CHANNEL_KIB + _buffers_kib(part, bus) + spool_frames * FRAME_BYTES / 1024),
        board_kib=data["memory"]["heap_kib"],
    )
    _judge(result, part, data, sensors)
    return result


def _buffers_kib(part: Any, bus: str) -> float:
    """What a FIFO is read into, and as much to clock out on SPI; four bytes for each count."""
    return float(part.FIFO_SETS * (12 + (2 if bus == "spi" else 1) * part.SET_BYTES) / 1024)


def _judge(result: Budget, part: Any, data: dict[str, Any], sensors: int) -> None:
    stall = data["stall"]
    if not data["link"]["kbit_s"]:
        result.refusals.append(f"{result.board} has no network: {data['link']['source']}")
    elif result.link_share > 0.5:
        result.refusals.append(
            f"the link carries {data['link']['kbit_s']} kbit/s, frames need {result.link_kbit_s:.0f} before any replay"
        )
    if sensors > len(data["spi"]["select"]):
        result.refusals.append(f"{result.board} has {len(data['spi']['select'])} chip selects, not {sensors}")
    if result.bus_share > BUS_LIMIT:
        way_out = "a lower rate or SPI" if result.bus == "i2c" and "spi" in part.BUSES else "a lower rate"
        result.refusals.append(
            f"{result.bus} at {result.bus_hz / 1e6:g} MHz would be busy for {result.bus_share:.0%} of the time, at most"
            f" {BUS_LIMIT:.0%} leaves room to catch up: choose {way_out}"
        )
    if result.heap_kib > result.board_kib:
        result.refusals.append(f"buffers and spool need {result.heap_kib:.0f} KiB, {result.board} has {result.board_kib}")
    elif result.heap_kib + CODE_KIB > result.board_kib:
        result.warnings.append(
            f"loaded as .mpy the code takes {CODE_KIB} KiB more, {result.heap_kib + CODE_KIB:.0f} in all, and {result.board} has"
            f" {result.board_kib}: freeze it into the firmware (device/manifest.py) or spool fewer frames"
        )
    if stall["scheduling_ms"] >= result.fifo_ms:
        result.refusals.append(
            f"the FIFO lasts {result.fifo_ms:.1f} ms, {result.board} may be away for {stall['scheduling_ms']} ms"
        )
    elif 2 * stall["scheduling_ms"] > result.fifo_ms:
        result.warnings.append(
            f"the FIFO lasts {result.fifo_ms:.1f} ms, a pause of {stall['scheduling_ms']} ms takes more than half of it"
        )
    for what, ms in (
        ("a write to internal flash (calibration, configuration)", stall["erase_typical_ms"]),
        ("a TLS handshake", stall["tls_ms"]),
        ("a collection of garbage", stall["collect_ms"]),
    ):
        if ms > result.fifo_ms:
            result.warnings.append(
                f"{what} takes about {ms} ms, the FIFO lasts {result.fifo_ms:.1f}: a gap of cause BLOCKED each time"
            )
    if stall["erase_worst_ms"] > result.fifo_ms:
        result.warnings.append("a file spool on internal flash would lose samples at each erase: use an SD card, or RAM only")
    result.unmeasured += [f"{name}: {stall[f'{name}_source']}" for name in ("erase", "tls", "collect", "scheduling")]
    result.unmeasured.append(f"link: {data['link']['source']}")
    result.unmeasured.append("heap: what the node takes was measured on a PC of 32 bits; what frozen code leaves in RAM was not")
    result.unmeasured.append("time that the node's code takes on this board: measured on a PC only")
