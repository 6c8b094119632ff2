"""Options that many commands share: the servers' addresses, and output for scripts."""

import inspect
import json
import os
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from triax_backend.settings import Settings
from triax_backend.stack import Stack

__all__ = ["Json", "failed", "home", "print_json", "with_external", "with_settings"]

Command = Callable[..., Any]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, nothing else.")]


def failed(message: str) -> typer.Exit:
    """`raise failed(...)`: one line on standard error, exit code 1."""
    typer.secho(f"triax: {message}", fg="red", err=True)
    return typer.Exit(1)


def home() -> Path:
    """Where stacks keep their data and runs their evidence: TRIAX_HOME, else ~/.local/state/triax."""
    return Path(os.environ.get("TRIAX_HOME") or Path.home() / ".local/state/triax")


def print_json(value: Any) -> None:
    """One line of JSON on standard output."""
    typer.echo(json.dumps(value, separators=(",", ":"), default=str))


def with_settings(command: Command) -> Command:
    """Give a command's parameter `settings: Settings` an option for each server.

    An address comes from its option, else from its TRIAX_* variable, else from the stack that `triax stack up` left running, else
    from Settings' defaults.
    """

    def settings(given: dict[str, str]) -> Settings:
        stack = Stack.load(home() / "stack", missing_ok=True)
        base = stack.settings.environ() if stack is not None else {}
        return Settings.from_env(base | {f"TRIAX_{name.upper()}": url for name, url in given.items()})

    return _with_servers(command, "settings", settings)


def with_external(command: Command) -> Command:
    """Give a command's parameter `external` (URL by server, those given) an option for each server; the rest is started here."""
    return _with_servers(command, "external", lambda given: given)


def _with_servers(command: Command, name: str, value: Callable[[dict[str, str]], Any]) -> Command:
    signature = inspect.signature(command)
    options = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_server_option(f.name, str(f.default)))
        for f in fields(Settings)
    ]

    @wraps(command)
    def run(**values: Any) -> Any:
        given = {f.name: values.pop(f.name) for f in fields(Settings)}
        return command(**{name: value({server: url for server, url in given.items() if url is not None})}, **values)

    kept = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in signature.parameters.values() if p.name != name]
    run.__signature__ = signature.replace(parameters=kept + options)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in kept + options}
    return run


def _server_option(name: str, example: str) -> Any:
    text = f"An address of yours, such as {example}"
    return Annotated[str | None, typer.Option(f"--{name}", envvar=f"TRIAX_{name.upper()}", help=text, rich_help_panel="Servers")]
