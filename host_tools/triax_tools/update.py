"""`triax update`: the next program into the slot that is not in use, tried by the node, and left again if it fails."""

import json as json_module
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from triax.ports.disk import Store
from triax.update import NAMES, Slots

from triax_tools import hardware
from triax_tools.flash import Node, Port, Source, Unix
from triax_tools.mpremote import Mpremote
from triax_tools.options import Json, failed, print_json
from triax_tools.program import stage_program

__all__ = ["update"]

_SWITCH = "import flash, slots; slots.Slots(flash.Store('/data')).switch(bytes.fromhex('{digest}')); print('switched')"
_ACTIVE = "import flash, slots; s = slots.Slots(flash.Store('/data')); print('active', s.active, int(s.trial))"
# The other slot holds the way back: the last program that is known to work.
_ON_TRIAL = "the node's program is on trial: wait until it is confirmed (20 acknowledged messages) or left"


def update(
    node: Node,
    port: Port = "auto",
    unix: Unix = None,
    source: Source = False,
    switch: Annotated[bool, typer.Option(help="Try the new program at once; else on `triax config push --update`.")] = True,
    json: Json = False,
) -> None:
    """Put this version of the program into the slot that is not in use, and have the node try it.

    The node goes back by itself: if the program does not start three times, ends with an error, measures nothing for a minute,
    or gets no acknowledgement in 30 minutes of being connected.
    """
    try:
        settings = json_module.loads((node / "node.json").read_text())
        mpy = "" if source else ("x64" if unix else str(hardware.board(settings["node"]["board"])["mpy"]))
        told = _update_folder(unix, mpy, switch) if unix else _update_board(port, mpy, switch)
    except (ValueError, OSError, RuntimeError) as error:
        raise failed(str(error)) from None
    if json:
        print_json(told)
    else:
        typer.echo("\n".join(f"{name}: {value}" for name, value in told.items()))


def _update_folder(root: Path, mpy: str, switch: bool) -> dict[str, str]:
    slots = Slots(Store(str(root / "data")), str(root))
    if slots.trial:
        raise ValueError(_ON_TRIAL)
    slot = NAMES[1 - slots.active]
    shutil.rmtree(root / slot, ignore_errors=True)
    digest = stage_program(root / slot, mpy)
    if switch:
        slots.switch(digest)
    return {"slot": slot, "manifest": digest.hex()}


def _update_board(port: str, mpy: str, switch: bool) -> dict[str, str]:
    board = Mpremote(port)
    answer = board.execute(_ACTIVE).split()
    if len(answer) != 3 or answer[0] != "active" or not {*answer[1:]} <= {"0", "1"}:
        raise RuntimeError(f"the board has no slots ({' '.join(answer)}): triax flash it first")
    if answer[2] == "1":
        raise ValueError(_ON_TRIAL)
    slot = NAMES[1 - int(answer[1])]
    with tempfile.TemporaryDirectory() as temporary:
        digest = stage_program(Path(temporary) / slot, mpy)
        board.remove("/" + slot)
        board.copy(Path(temporary))
    if switch:
        if "switched" not in board.execute(_SWITCH.format(digest=digest.hex())):
            raise RuntimeError("the board did not switch: its copy of the program differs; try again")
        board.reset()
    return {"slot": slot, "manifest": digest.hex()}
