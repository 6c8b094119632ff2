"""`triax verify`: is every frame everywhere it should be?"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import psycopg
import redis
import typer
from confluent_kafka import KafkaException
from rich.console import Console
from rich.table import Table
from triax_backend.settings import Settings
from triax_sim import audit, evidence
from triax_sim.ledger import BadLedger

from triax_tools.options import Json, failed, print_json, with_settings
from triax_tools.read import moment

__all__ = ["verify"]

_SHOWN = 40


@with_settings
def verify(
    settings: Settings,
    directory: Annotated[Path | None, typer.Argument(help="Of a finished run; nothing: a time range of whatever came in.")] = None,
    offline: Annotated[bool, typer.Option(help="Check the run's evidence alone: hashes, ledger, counts, verdict.")] = False,
    start: Annotated[str, typer.Option("--from", help="ISO 8601 with zone, or seconds back from now; without a run.")] = "-3600",
    end: Annotated[str, typer.Option("--to", help="The same.")] = "-10",
    json: Json = False,
) -> None:
    """Compare what was sent with what each hop holds now, frame by frame, and name what is missing, repeated or altered.

    Exit code: 0 PASS, 1 FAIL, 2 INVALID (the evidence is not what the run wrote) or wrong usage.
    """
    if offline:
        if directory is None:
            raise typer.BadParameter("--offline checks a run's evidence: give its directory")
        _offline(directory, json)
        return
    now = datetime.now(UTC)
    try:
        if directory is not None:
            found = audit.of_run(directory, settings)
        else:
            found = audit.of_range(settings, *(int(moment(t, now).timestamp() * 1e6) for t in (start, end)))
    except (OSError, BadLedger, RuntimeError, KafkaException, psycopg.Error, redis.RedisError) as error:
        raise failed(f"a hop cannot be read: {error}") from None
    if json:
        print_json(found.to_json())
    else:
        _show(found)
    raise typer.Exit(found.exit_code)


def _offline(directory: Path, json: bool) -> None:
    try:
        result = evidence.recheck(directory)
    except (OSError, ValueError, KeyError) as error:
        raise failed(f"{directory} holds no evidence of a run: {error}") from None
    if json:
        print_json(result)
    else:
        for problem in result["problems"]:
            typer.echo(problem)
        typer.echo(result["verdict"])
    raise typer.Exit({"PASS": 0, "FAIL": 1}.get(result["verdict"], 2))


def _show(found: audit.Audit) -> None:
    console = Console()
    table = Table("hop", "frames", "missing", "repeated", "altered", "unproved")
    for name, hop in found.hops.items():
        if name == "redis":
            table.add_row(name, f"{hop['devices']:,} devices", f"{hop['behind']} behind")
        else:
            table.add_row(name, *(_count(hop.get(key)) for key in ("frames", "missing", "repeated", "altered", "unproved")))
    console.print(table)
    wrong = [finding for finding in found.findings if not finding["planted"]]
    for finding in wrong[:_SHOWN]:
        lost = f", lost at {finding['lost_at']}" if "lost_at" in finding else ""
        console.print(
            f"  {finding['hop']}: {finding['what']} {finding['device']} boot {finding['boot']} frame {finding['sequence']}{lost}"
        )
    if len(wrong) > _SHOWN:
        console.print(f"  and {len(wrong) - _SHOWN} more: --json names them all")
    if len(wrong) < len(found.findings):
        console.print(f"  {len(found.findings) - len(wrong)} more were planted by the run itself, on devices of their own")
    console.print(found.verdict)


def _count(value: Any) -> str:
    return "" if value is None else f"{value:,}"
