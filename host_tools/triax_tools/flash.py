"""`triax flash`: a provisioned node's program, settings and certificates onto its board, by mpremote; `triax update`: the next
program."""

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from triax_tools.mpremote import Mpremote
from triax_tools.options import Json, failed, print_json
from triax_tools.program import stage_board, stage_linux

__all__ = ["Node", "Port", "Source", "Unix", "flash"]

Node = Annotated[Path, typer.Argument(help="The node's folder, as triax provision made it.")]
Port = Annotated[str, typer.Option(help="Serial port of the board; auto finds the only one.")]
Unix = Annotated[Path | None, typer.Option(help="Instead of a board: a folder for MicroPython's unix port.")]
Source = Annotated[bool, typer.Option(help="Sources instead of .mpy.")]


def flash(
    node: Node,
    port: Port = "auto",
    unix: Unix = None,
    root: Annotated[Path | None, typer.Option(help="A Raspberry Pi: where its file system is (/ on the Pi itself).")] = None,
    source: Source = False,
    json: Json = False,
) -> None:
    """Put a provisioned node onto its board. The boot counter is seeded, so that every frame after it is new."""
    try:
        if (node / "node.toml").exists():
            if root is None:
                raise ValueError("a Raspberry Pi: run this on it with --root /, after pip install 'triax[node]'")
            stage_linux(root, node)
            told = {"root": str(root), "next": "systemctl daemon-reload && systemctl enable --now triax"}
        elif (node / "node.json").exists():
            told = _flash_board(node, port, unix, source)
        else:
            raise ValueError(f"{node} is no provisioned node: triax provision node SITE")
    except (ValueError, OSError, RuntimeError) as error:
        raise failed(str(error)) from None
    if json:
        print_json(told)
    else:
        typer.echo("\n".join(f"{name}: {value}" for name, value in told.items()))


def _flash_board(node: Path, port: str, unix: Path | None, source: bool) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary)
        digest = stage_board(staged, node, not source, str(unix.resolve()) if unix else "")
        if unix is not None:
            shutil.rmtree(unix / "a", ignore_errors=True)
            shutil.copytree(staged, unix, dirs_exist_ok=True)
            return {"manifest": digest.hex(), "next": f"micropython {unix}/main.py"}
        board = Mpremote(port)
        board.remove("/a")
        board.copy(staged)
        board.reset()
    return {"manifest": digest.hex(), "next": "triax frames tail"}
