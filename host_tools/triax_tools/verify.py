"""`triax verify`: is every frame everywhere it should be?"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import psycopg
import redis
import typer
from confluent_kafka import KafkaException
from rich.console import Console
from triax_backend.settings import Settings
from triax_sim import audit, evidence
from triax_sim.ledger import BadLedger
from triax_sim.pipeline import System
from triax_sim.plan import BadPlan
from triax_sim.run import verify as verify_run

from triax_tools.options import Json, failed, print_json, with_settings
from triax_tools.read import moment
from triax_tools.show import conclude, table

__all__ = ["run_again", "verify"]

_SHOWN = 40
_UNREADABLE = (OSError, BadLedger, BadPlan, RuntimeError, KafkaException, psycopg.Error, redis.RedisError)


@with_settings
def verify(
    settings: Settings,
    directories: Annotated[list[Path] | None, typer.Argument(help="Of a run, or of its shards; none: a time range.")] = None,
    offline: Annotated[bool, typer.Option(help="Check a run's evidence alone: hashes, ledger, counts, verdict.")] = False,
    start: Annotated[str, typer.Option("--from", help="ISO 8601 with zone, or seconds back from now; without a run.")] = "-3600",
    end: Annotated[str, typer.Option("--to", help="The same.")] = "-10",
    json: Json = False,
) -> None:
    """Compare what was sent with what each hop holds now, frame by frame, and name what is missing, repeated or altered.

    Without a run, what Kafka holds of the time range takes the place of the ledger. Exit code: 0 PASS, 1 FAIL, 2 INVALID or wrong
    usage.
    """
    if offline:
        if not directories:
            raise typer.BadParameter("--offline checks a run's evidence: give its directory")
        _offline(directories[0], json)
    if directories:
        run_again(settings, directories, json)
    now = datetime.now(UTC)
    try:
        found = audit.of_range(settings, *(int(moment(t, now).timestamp() * 1e6) for t in (start, end)))
    except _UNREADABLE as error:
        raise failed(f"this cannot be verified: {error}") from None
    if json:
        print_json(found.to_json())
    else:
        _show(found)
    raise typer.Exit(found.exit_code)


def run_again(settings: Settings, directories: list[Path], json: bool) -> None:
    """Read every hop again, against the ledgers of a run or of all its shards; ends the command with the verdict's exit code."""
    try:
        report = verify_run(directories, System(settings))
    except _UNREADABLE as error:
        raise failed(f"this cannot be verified: {error}") from None
    conclude(report, json)


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
    console.print(table(found.hops))
    for finding in found.findings[:_SHOWN]:
        lost = f", lost at {finding['lost_at']}" if "lost_at" in finding else ""
        until = f" to {finding['last_sequence']}" if "last_sequence" in finding else ""
        frame = f"{finding['device']} boot {finding['boot']} frame {finding['sequence']}{until}"
        console.print(f"  {finding['hop']}: {finding['what']} {frame}{lost}")
    if len(found.findings) > _SHOWN:
        console.print(f"  and {len(found.findings) - _SHOWN} more: --json names them all")
    console.print(found.verdict)
