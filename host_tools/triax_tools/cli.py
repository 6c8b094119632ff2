"""The `triax` command."""

import typer

from triax_tools import frames

__all__ = ["app"]

app = typer.Typer(
    name="triax",
    help="16 kHz accelerometers on machines: simulate, calibrate, provision, look, verify.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(frames.app, name="frames")
