"""`triax budget`: can this part on this board lose nothing? Exit code 1: it cannot."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from triax_tools import hardware, wiring
from triax_tools.options import Json, failed, print_json

__all__ = ["budget"]

LARGE_KIB = 10_000  # of a computer, whose memory is no question


def budget(
    part: Annotated[str, typer.Option(help="Such as iis3dwb.")],
    board: Annotated[str, typer.Option(help="Such as esp32; all are in hardware/boards.")],
    odr_hz: Annotated[float | None, typer.Option("--odr", help="Hz; the part's highest if left out.")] = None,
    bus: Annotated[str, typer.Option(help="spi or i2c; the part's first if left out.")] = "",
    bus_hz: Annotated[int | None, typer.Option(help="Clock; the fastest that both take if left out.")] = None,
    sensors: Annotated[int, typer.Option(min=1, max=4, help="Sensors on this board.")] = 1,
    wiring_file: Annotated[Path | None, typer.Option("--wiring", help="Write the wiring diagram here, as SVG.")] = None,
    json: Json = False,
) -> None:
    """Stall tolerance, bus share, link rate and heap of a part on a board; refuses what cannot work, says what is unmeasured."""
    try:
        result = hardware.budget(part, board, odr_hz, bus, sensors, bus_hz)
    except ValueError as error:
        raise failed(str(error)) from None
    if wiring_file is not None:
        wiring_file.write_text(wiring.svg(board, part, result.bus))
    if json:
        print_json(asdict(result) | {"works": not result.refusals})
    else:
        _show(result)
    if result.refusals:
        raise typer.Exit(1)


def _show(result: hardware.Budget) -> None:
    console = Console()
    table = Table(title=f"{result.part} at {result.odr_hz:g} Hz on {result.board}", show_header=False)
    table.add_row("FIFO lasts", f"{result.fifo_ms:.1f} ms", "longest pause between two polls without a loss")
    table.add_row(
        "bus",
        f"{result.bus_share:.0%}",
        f"of {result.bus} at {result.bus_hz / 1e6:g} MHz; a full FIFO takes {result.drain_ms:.2f} ms",
    )
    table.add_row("link", f"{result.link_kbit_s:.0f} kbit/s", f"{result.link_share:.1%} of what the board carries, TCP included")
    table.add_row("outage", f"{result.spool_s:.0f} s", f"without a network fit into {result.spool_kib:.0f} KiB of RAM")
    if result.board_kib < LARGE_KIB:
        table.add_row(
            "heap",
            f"{result.heap_kib:.0f} KiB",
            f"of {result.board_kib}, spool included; {hardware.CODE_KIB} more where not frozen",
        )
    console.print(table)
    for colour, name, lines in (
        ("red", "cannot work", result.refusals),
        ("yellow", "cost", result.warnings),
        ("dim", "unmeasured", result.unmeasured),
    ):
        for line in lines:
            console.print(f"[{colour}]{name}:[/{colour}] {line}", soft_wrap=True, highlight=False)
    if not result.refusals:
        console.print("[green]It can work.[/green]")
