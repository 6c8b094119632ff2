"""`triax deadletter`: what could not be passed on, by cause; and back to where it was going, once the cause is mended."""

import time
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from triax_backend import deadletter, scan
from triax_backend.settings import Settings

from triax_tools.options import Json, failed, print_json, with_settings

__all__ = ["app"]

app = typer.Typer(help="Frames that could not be passed on.", no_args_is_help=True)

Cause = Annotated[str | None, typer.Option(help="Only letters of this cause.")]
Stage = Annotated[str | None, typer.Option(help="Only letters of this stage.")]


@app.command("list")
@with_settings
def list_(settings: Settings, cause: Cause = None, stage: Stage = None, each: bool = False, json: Json = False) -> None:
    """Letters by cause and stage; with --each, one by one with their source."""
    try:
        found = list(deadletter.letters(settings, cause=cause, stage=stage))
    except scan.KafkaSilent as error:
        raise failed(str(error)) from None
    if each:
        rows = [
            {
                "where": x.where,
                "cause": x.cause,
                "stage": x.stage,
                "source": x.source,
                "time_us": x.time_us,
                "bytes": len(x.data),
                "detail": x.detail,
            }
            for x in found
        ]
    else:
        rows = [{s: getattr(heap, s) for s in heap.__slots__} for heap in deadletter.group(found)]
    if json:
        print_json(rows)
        return
    if not rows:
        typer.echo("no dead letters")
        return
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(_clock(v) if k.endswith("_us") else str(v) for k, v in row.items()))
    Console().print(table)


def _clock(time_us: object) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(int(str(time_us)) / 1e6)) + " UTC"


@app.command()
@with_settings
def replay(settings: Settings, cause: Cause = None, stage: Stage = None, json: Json = False) -> None:
    """Send letters to the topic and partition that they were going to, with their original bytes.

    The sinks remove repeats, so replaying twice does no harm. Exit code 1 if any letter was refused (it would come straight back).
    """
    try:
        done = deadletter.replay(settings, deadletter.letters(settings, cause=cause, stage=stage))
    except (scan.KafkaSilent, deadletter.NotDelivered) as error:
        raise failed(str(error)) from None
    if json:
        print_json({"sent": done.sent, "refused": done.refused})
    else:
        typer.echo(f"{done.sent} sent")
        for reason, count in done.refused.items():
            typer.echo(f"{count} refused: {reason}", err=True)
    if done.refused:
        raise typer.Exit(1)
