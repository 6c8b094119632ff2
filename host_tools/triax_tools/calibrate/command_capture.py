"""`capture`: the guided procedure at a terminal and on a page, from a live node or a simulated one."""

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from triax_proto.names import mqtt_topic

from triax_tools.calibrate import guide as guides
from triax_tools.calibrate.broker import Broker, identity_of, parse_device
from triax_tools.calibrate.capfile import CaptureWriter
from triax_tools.calibrate.console import GravityOption, HeightOption, Json, LatOption, MqttOption, Output, command, gravity_of
from triax_tools.calibrate.errors import BadInput, DeviceError
from triax_tools.calibrate.guide import Guide, Prompt
from triax_tools.calibrate.model import STANDARD_G
from triax_tools.calibrate.page import CapturePage
from triax_tools.calibrate.pose import NAMES
from triax_tools.calibrate.raw_capture import record_raw
from triax_tools.calibrate.recording import Identity
from triax_tools.calibrate.session import Session

__all__ = ["capture"]

_SILENT_S = 15.0  # without a frame: the node is off, or publishes elsewhere
_STYLES = {guides.ACCEPTED: "green", guides.DONE: "bold green", guides.REJECTED: "red", guides.REVOKED: "red", guides.GAP: "red"}
_MOST_VIRTUAL_S = 1200.0

Frames = Iterator[tuple[int, bytes] | None]


class _Keys:
    """Lines typed at the terminal: Enter or r redoes the last pose, q ends. Read in a thread; nothing waits for them."""

    def __init__(self) -> None:
        self._typed: deque[str] = deque()
        if sys.stdin is not None and sys.stdin.isatty():
            threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            self._typed.append(line.strip().lower() or "r")

    def pressed(self) -> str:
        """The oldest line not yet asked for, '' if there is none."""
        return self._typed.popleft()[:1] if self._typed else ""


def coverage(guide: Guide | None, device: str, lines: deque[Prompt]) -> Group:
    """What the terminal shows: 18 cells, the present hold, what was said last."""
    head = Text(f"triax calibrate capture  {device}", style="dim")
    if guide is None:
        return Group(head, Text("waiting for the first frame"))
    cells = Table.grid(padding=(0, 2))
    wanted = guide.next_cell
    for low in range(0, 18, 6):
        row = []
        for cell in range(low, low + 6):
            taken = cell in guide.taken
            style = "green" if taken else "bold yellow" if cell == wanted else "dim"
            row.append(Text(f"{'●' if taken else '○'} {NAMES[cell]}", style=style))
        cells.add_row(*row)
    bar = ProgressBar(total=1.0, completed=guide.progress, width=36)
    said = [Text(prompt.text, style=_STYLES.get(prompt.kind, "")) for prompt in list(lines)[-6:]]
    state = Text(
        f"{guides.STATES[guide.state]}, {len(guide.taken)} of {len(guide.cells)}    r: redo the last, q: stop", style="dim"
    )
    line = Table.grid(padding=(0, 2))
    line.add_row(bar, state)
    return Group(head, cells, line, *said)


def _live_frames(broker: Broker, device: int) -> Frames:
    """Frames of a node as they come; None every quarter of a second without one, so that keys and page are served."""
    topic = mqtt_topic(device, "frame")
    broker.subscribe(topic)
    heard_at = time.monotonic()
    while True:
        for arrival_us, heard, payload in broker.messages(0.25):
            if heard == topic:
                heard_at = time.monotonic()
                yield arrival_us, payload
        if time.monotonic() - heard_at > _SILENT_S:
            raise DeviceError(
                f"No frame of {device:016x} for {_SILENT_S:g} s: is the node on? Start again to go on where this ended."
            )
        yield None


class _Simulated:
    """Virtual node and scripted human; the human hears each prompt at its virtual time."""

    def __init__(self, seed: int, mistakes: bool) -> None:
        # Here, not above: a host that only calibrates needs no simulator.
        from triax_tools.calibrate.hand import ScriptedHand
        from triax_tools.calibrate.virtual import VirtualNode, draw_imperfections

        self.hand = ScriptedHand(seed, mistakes)
        self.node = VirtualNode(self.hand, draw_imperfections(seed), seed)

    @property
    def identity(self) -> Identity:
        return self.node.identity

    def frames(self) -> Frames:
        """Frames in virtual time."""
        while self.node.now_s < _MOST_VIRTUAL_S:
            yield from self.node.run(self.node.now_s + 0.1)
        raise DeviceError("The scripted human did not finish: that is a bug of the simulation.")

    def hear(self, prompt: Prompt) -> None:
        self.hand.hear(prompt, self.node.now_s)


@command
def capture(
    out: Annotated[Path, typer.Argument(help="Capture file; one that exists is gone on with.")],
    device: Annotated[str, typer.Option("--device", help="EUI-64 of the accelerometer, on a live node.")] = "",
    simulate: Annotated[bool, typer.Option("--simulate", help="A simulated unit and a scripted human, in virtual time.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of the simulation.")] = 1,
    mistakes: Annotated[bool, typer.Option("--mistakes/--no-mistakes", help="The scripted human makes mistakes.")] = True,
    raw: Annotated[float, typer.Option("--raw", help="No poses: so many seconds of raw samples, for noise and response.")] = 0.0,
    hold: Annotated[float, typer.Option("--hold", help="Seconds to hold each pose.", min=2.0, max=120.0)] = guides.HOLD_S,
    page: Annotated[int, typer.Option("--page", help="Port of the page; 0: any; -1: none.", min=-1, max=65535)] = 0,
    lat: LatOption = None,
    height: HeightOption = 0.0,
    gravity: GravityOption = None,
    mqtt: MqttOption = "mqtt://127.0.0.1:1883",
    json_output: Json = False,
) -> None:
    """Guide through 18 poses in any order; writes what arrived, so that `fit` can be run again and again."""
    output = Output(json_output)
    if simulate == bool(device) or (simulate and raw):
        raise BadInput("Give --device of a live node, or --simulate (which has no --raw).")
    local = STANDARD_G if simulate else 0.0
    if gravity is not None or lat is not None:
        local = gravity_of(gravity, lat, height).m_s2
    started = time.monotonic()
    with ExitStack() as stack:
        simulated = _Simulated(seed, mistakes) if simulate else None
        if simulated is not None:
            identity, frames = simulated.identity, simulated.frames()
        else:
            broker = stack.enter_context(Broker(mqtt))
            number = parse_device(device)
            info = broker.info(number)
            identity = identity_of(info)
            if raw:
                writer = CaptureWriter(out, identity)
                stack.callback(writer.close)
                samples = record_raw(broker, number, raw, writer)
                output.say(f"file: {out}, {samples:,} raw samples")
                output.finish(True, {"file": str(out), "samples": samples})
            frames = _live_frames(broker, number)
        more: dict[str, object] = {"gravity_m_s2": local} if local else {}
        writer = CaptureWriter(out, identity, simulated=simulate, **more)
        stack.callback(writer.close)
        session = Session(writer, hold)
        if writer.resumed and session.guide is not None:
            output.say(f"going on: {len(session.guide.taken)} poses are taken already")
        web = stack.enter_context(CapturePage(page, identity.device)) if page >= 0 else None
        if web is not None:
            output.say(f"page: {web.url}")
        finished = _run(output, session, frames, simulated, web, identity.device)
    taken = sorted(session.guide.taken) if session.guide is not None else []
    facts = {"file": str(out), "poses": [NAMES[cell] for cell in taken], "frames": session.frames, "damaged": session.damaged}
    if simulated is not None:
        output.say(f"{simulated.node.now_s:.0f} s of virtual time in {time.monotonic() - started:.0f} s")
    output.say(f"file: {out}; next: triax calibrate fit {out} -o {out.with_suffix('.cal.json')}")
    output.finish(finished, facts)


def _run(
    output: Output, session: Session, frames: Frames, simulated: "_Simulated | None", web: CapturePage | None, device: str
) -> bool:
    """Until all poses are taken (True) or the human stops (False)."""
    keys, lines = _Keys(), deque[Prompt](maxlen=20)
    show = output.console.is_terminal and not output.as_json
    screen = Live(coverage(session.guide, device, lines), console=output.console, refresh_per_second=8) if show else ExitStack()
    with screen as live:
        for arrived in frames:
            prompts = session.take(*arrived) if arrived is not None else []
            key = keys.pressed()
            if key == "r" or (web is not None and web.wants_redo()):
                prompts = prompts + session.redo(arrived[0] if arrived else 0)
            for prompt in prompts:
                lines.append(prompt)
                if not show:
                    output.say(f"{prompt.kind:10s} {prompt.text}")
                if simulated is not None:
                    simulated.hear(prompt)
            if isinstance(live, Live):
                live.update(coverage(session.guide, device, lines))
            if web is not None and session.guide is not None:
                web.show(session.guide.snapshot(), prompts)
            if session.done:
                return True
            if key == "q":
                output.say("stopped; run the same command to go on")
                return False
    return False
