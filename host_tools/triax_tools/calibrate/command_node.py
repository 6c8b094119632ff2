"""`push` and `pull`: a calibration to the node and back."""

from pathlib import Path
from typing import Annotated

import typer

from triax_tools.calibrate import broker as brokers
from triax_tools.calibrate import push as pushing
from triax_tools.calibrate.console import Json, MqttOption, Output, command, load_document, now
from triax_tools.calibrate.document import dump
from triax_tools.calibrate.errors import BadInput

__all__ = ["pull", "push"]


@command
def push(
    calibration: Annotated[Path, typer.Argument(help="Calibration file.")],
    device: Annotated[str, typer.Option("--device", help="EUI-64 of the accelerometer; default: the one in the file.")] = "",
    mqtt: MqttOption = "mqtt://127.0.0.1:1883",
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for the node's confirmation.")] = brokers.ANSWER_S,
    json_output: Json = False,
) -> None:
    """Store a calibration on the node and wait until it confirms the hash."""
    output = Output(json_output)
    document = load_document(calibration)
    target = device or document.identity.device
    if not target:
        raise BadInput("The file names no device: give --device.")
    with brokers.Broker(mqtt) as link:
        digest = pushing.push(link, brokers.parse_device(target), document, now(), wait)
    if not document.identity.sensor_serial:
        output.say("note: this part has no serial number: a changed sensor of the same kind will not be noticed.", "yellow")
    output.say(f"the node {target} confirmed {digest.hex()}")
    output.finish(True, {"device": target, "sha256": digest.hex()})


@command
def pull(
    device: Annotated[str, typer.Argument(help="EUI-64 of the accelerometer.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
    mqtt: MqttOption = "mqtt://127.0.0.1:1883",
    json_output: Json = False,
) -> None:
    """Fetch the calibration that the node holds. A changed sensor, an expired or a damaged one is said and not written."""
    output = Output(json_output)
    with brokers.Broker(mqtt) as link:
        document, digest = pushing.pull(link, brokers.parse_device(device), now())
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(dump(document))
    output.say(f"file: {out}, made {document.content['created'][:10]}, valid until {document.content['expires'][:10]}")
    output.finish(True, {"file": str(out), "sha256": digest.hex(), "expires": document.content["expires"]})
