"""The `triax` command: its words, and where each is. Only the word that was asked for is imported, so that help is quick."""

from importlib import import_module

import typer

__all__ = ["COMMANDS", "build"]

# Word: module, name of its Typer application or function, what it does.
COMMANDS = {
    "demo": ("triax_tools.demo", "demo", "The whole path on this machine, and the proof that it lost nothing."),
    "fleet": ("triax_tools.fleet", "app", "Load tests: thousands of virtual devices, and a verdict."),
    "stack": ("triax_tools.stack", "app", "The backend on this machine: servers, the way into Kafka, sinks."),
    "verify": ("triax_tools.verify", "verify", "Is every frame everywhere it should be?"),
    "deadletter": ("triax_tools.deadletter", "app", "Frames that could not be passed on."),
    "read": ("triax_tools.read", "read", "A device's values in g."),
    "export": ("triax_tools.read", "export", "The same, to a file."),
    "frames": ("triax_tools.frames", "app", "Look at frames."),
    "provision": ("triax_tools.provision", "app", "A site's authority, a node's identity, certificate and settings."),
    "flash": ("triax_tools.flash", "flash", "A provisioned node onto its board."),
    "config": ("triax_tools.config_push", "app", "Settings and commands to a node, and its answer."),
    "update": ("triax_tools.update", "update", "A new program into the slot that is not in use, with the way back."),
    "budget": ("triax_tools.budget", "budget", "What a part on a board can bear, before you buy."),
    "calibrate": ("triax_tools.calibrate.cli", "app", "Calibration that states its own error."),
}


def _help_only() -> None:
    """Stands in the list of words."""


def build(word: str | None) -> typer.Typer:
    """The command line with `word` in full; the other words only have their line in the help."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback(help="16 kHz accelerometers on machines: simulate, calibrate, provision, look, verify.")(_help_only)
    for name, (module, attribute, text) in COMMANDS.items():
        if name != word:
            app.command(name, help=text)(_help_only)
            continue
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name, help=text)
        else:
            app.command(name)(found)
    return app
