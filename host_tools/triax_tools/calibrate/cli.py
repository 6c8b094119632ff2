"""`triax calibrate`: one Typer app; each command lives in the module of its concern."""

import typer

from triax_tools.calibrate import (
    command_capture,
    command_check,
    command_fit,
    command_fleet,
    command_node,
    command_noise,
    command_response,
)

__all__ = ["app"]

app = typer.Typer(
    help="Calibrate an accelerometer and state the error of it. Exit codes: 0 pass, 1 a gate failed, 2 usage, 3 device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(command_capture.capture)
app.command()(command_fit.fit)
app.command()(command_check.check)
app.command()(command_check.diff)
app.command()(command_fleet.temp)
app.command()(command_noise.noise)
app.command()(command_noise.clock)
app.command()(command_response.response)
app.command()(command_fleet.fleet)
app.command()(command_node.push)
app.command()(command_node.pull)
