"""`triax config`: what a device is told, and what it says to that.

A Config is retained, so only the last one reaches a node that was away. Each push therefore carries what was set before as well,
under the next version. A command goes with one version only and is carried out once.
"""

import secrets
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from triax_backend.settings import Settings
from triax_proto.names import mqtt_topic
from triax_proto.v1.device_pb2 import Command, Config, ConfigAck, DeviceInfo

from triax_tools.calibrate.broker import Broker, parse_device
from triax_tools.calibrate.errors import BadInput, DeviceError
from triax_tools.options import Json, failed, print_json, with_settings

__all__ = ["app", "assign", "next_version", "send"]

app = typer.Typer(no_args_is_help=True)

# A trial of link settings lasts 120 s on the node (triax.config), then it has to come back.
_TRIAL_S = 180.0
_ANSWER_S = 15.0
_RETAINED_S = 1.0  # after the broker has accepted the subscription
_NO_SETTINGS = ("version", "command", "link")
_RESULTS = {1: "APPLIED", 2: "REJECTED", 3: "REVERTED"}


def assign(config: Config, text: str) -> None:
    """`odr_hz=32000`, `link.host=broker`: set a field. Raises BadInput naming the fields that there are."""
    name, separator, value = text.partition("=")
    message, field = (config.link, name[5:]) if name.startswith("link.") else (config, name)
    fields = message.DESCRIPTOR.fields_by_name
    if not separator or field not in fields or (message is config and field in _NO_SETTINGS):
        known = [f for f in Config.DESCRIPTOR.fields_by_name if f not in _NO_SETTINGS]
        known += [f"link.{f}" for f in Config.Link.DESCRIPTOR.fields_by_name]
        raise BadInput(f"{text!r} sets nothing; say NAME=VALUE with one of {', '.join(known)}")
    kind: Any = type(getattr(message, field))
    try:
        if kind is bool:
            if value not in ("true", "false"):
                raise ValueError("want true or false")
            setattr(message, field, value == "true")
        else:
            setattr(message, field, kind(value))
    except ValueError as error:
        raise BadInput(f"{text!r}: {error}") from None


def next_version(retained: bytes, changes: list[str], command: Command | None) -> Config:
    """The Config after the retained one: the same settings with these changes. Raises BadInput."""
    config = Config()
    config.ParseFromString(retained)
    config.version += 1
    config.ClearField("command")
    for change in changes:
        assign(config, change)
    if command is not None:
        config.command.CopyFrom(command)
    return config


def _retained(broker: Broker, device: int) -> tuple[bytes, int]:
    """The Config that is retained for a device, and the version that it ran when it last connected."""
    topic, birth = mqtt_topic(device, "config"), mqtt_topic(device, "info")
    broker.subscribe(topic, birth)
    held = {heard: payload for _, heard, payload in broker.messages(_RETAINED_S)}
    return held.get(topic, b""), DeviceInfo.FromString(held.get(birth, b"")).config


def send(broker: Broker, device: int, changes: list[str], command: Command | None) -> tuple[Config, bytes]:
    """Retain the next version with these changes; it, and what was retained before. Raises BadInput, DeviceError.

    Every configuration and every command goes this way: a version is used once.
    """
    before, running = _retained(broker, device)
    config = next_version(before, changes, command)
    if running >= config.version:
        config.version = running + 1
        if not before:
            typer.echo(
                f"the broker holds no settings of {device:016x}, which runs version {running}: they are not in this one", err=True
            )
    broker.subscribe(mqtt_topic(device, "config/ack"))
    broker.publish(mqtt_topic(device, "config"), config.SerializeToString(), retain=True)
    return config, before


def _restore(broker: Broker, device: int, before: bytes, failed_version: int) -> int:
    """Retain what was set before a version that the device did not take: each later push would carry the failure."""
    config = next_version(before, [], None)
    config.version = failed_version + 1
    broker.publish(mqtt_topic(device, "config"), config.SerializeToString(), retain=True)
    return config.version


def _answer(broker: Broker, device: int, version: int, seconds: float) -> ConfigAck:
    topic = mqtt_topic(device, "config/ack")
    for _, heard, payload in broker.messages(seconds):
        if heard == topic:
            ack = ConfigAck()
            ack.ParseFromString(payload)
            if ack.version == version:
                return ack
    raise DeviceError(
        f"{device:016x} did not answer within {seconds:g} s. Version {version} is retained and will be taken when it is back."
    )


def _command(raw_ms: int, self_test: bool, restart: bool, manifest: str) -> Command | None:
    wanted = [raw_ms > 0, self_test, restart, bool(manifest)]
    if sum(wanted) > 1:
        raise BadInput("one command at a time")
    if not any(wanted):
        return None
    kind = (Command.KIND_RAW_CAPTURE, Command.KIND_SELF_TEST, Command.KIND_RESTART, Command.KIND_UPDATE)[wanted.index(True)]
    try:
        digest = bytes.fromhex(manifest)
    except ValueError:
        raise BadInput(f"{manifest!r} is no hash of a manifest: want 64 hex digits") from None
    return Command(id=secrets.randbits(32), kind=kind, duration_ms=raw_ms, manifest=digest)


@app.command()
@with_settings
def push(
    settings: Settings,
    device: Annotated[str, typer.Argument(help="EUI-64, 16 hex digits.")],
    change: Annotated[list[str] | None, typer.Argument(help="Such as odr_hz=32000 or link.host=broker2.")] = None,
    raw: Annotated[int, typer.Option(help="Have it capture raw for so many milliseconds.")] = 0,
    self_test: Annotated[bool, typer.Option(help="Have it run the part's self-test.")] = False,
    restart: Annotated[bool, typer.Option(help="Have it start again.")] = False,
    update: Annotated[str, typer.Option(help="Have it try the program of this manifest (its SHA-256).")] = "",
    json: Json = False,
) -> None:
    """Set something on a device and wait for its answer. Exit code 1: not applied, or no answer."""
    try:
        number, command = parse_device(device), _command(raw, self_test, restart, update)
        with Broker(settings.mqtt) as broker:
            config, before = send(broker, number, change or [], command)
            linked = any(one.startswith("link.") for one in change or [])
            ack = _answer(broker, number, config.version, _TRIAL_S if linked else _ANSWER_S)
            applied = ack.result == ConfigAck.RESULT_APPLIED
            restored = 0 if applied else _restore(broker, number, before, config.version)
    except (BadInput, DeviceError) as error:
        raise failed(str(error)) from None
    result = _RESULTS.get(ack.result, str(ack.result))
    if json:
        told = {"device": f"{number:016x}", "version": ack.version, "result": result, "field": ack.field, "reason": ack.reason}
        print_json(told if applied else told | {"restored": restored})
    else:
        why = f": {ack.field + ': ' if ack.field else ''}{ack.reason}" if ack.reason else ""
        typer.echo(f"version {ack.version} {result}{why}" + (f"; version {restored} holds what was set before" if restored else ""))
    if not applied:
        raise typer.Exit(1)


@app.command()
@with_settings
def show(settings: Settings, device: Annotated[str, typer.Argument(help="EUI-64, 16 hex digits.")], json: Json = False) -> None:
    """What is retained for a device."""
    try:
        number = parse_device(device)
        with Broker(settings.mqtt) as broker:
            data, _ = _retained(broker, number)
    except (BadInput, DeviceError) as error:
        raise failed(str(error)) from None
    config = MessageToDict(Config.FromString(data), preserving_proto_field_name=True)
    if "password" in config.get("link", {}):
        config["link"]["password"] = "***"
    if json:
        print_json(config)
    else:
        typer.echo("\n".join(f"{name} = {value}" for name, value in config.items()) or "nothing")
