"""The `triax` command."""

import typer

from triax_tools import deadletter, fleet, frames, stack
from triax_tools.demo import demo
from triax_tools.read import export, read
from triax_tools.verify import verify

__all__ = ["app"]

app = typer.Typer(
    name="triax",
    help="16 kHz accelerometers on machines: simulate, calibrate, provision, look, verify.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(demo)
app.command()(read)
app.command()(export)
app.command()(verify)
app.add_typer(fleet.app, name="fleet")
app.add_typer(frames.app, name="frames")
app.add_typer(stack.app, name="stack")
app.add_typer(deadletter.app, name="deadletter")
