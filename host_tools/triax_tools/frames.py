"""`triax frames`: look at frames, in a file or as they pass through Kafka."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from triax_backend.settings import Settings
from triax_proto import batch
from triax_proto.errors import FrameError
from triax_proto.frame import NO_TEMPERATURE, NO_UTC, parse
from triax_proto.names import FRAMES, device_id, device_text, partition

from triax_tools.options import Json, failed, print_json, with_settings

__all__ = ["app", "describe", "follow"]

app = typer.Typer(help="Look at frames.", no_args_is_help=True)

_ARRAYS = ("x", "y", "z", "minimum", "maximum", "sum_squares")


def describe(frame: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Fields of one frame (an array of one) as plain values: device as text, values in g, absent ones None."""
    out: dict[str, Any] = {n: frame[n][0].item() for n in frame.dtype.names or () if n not in _ARRAYS}
    out["device"] = device_text(out["device"])
    out["checksum"] = f"{out['checksum']:08x}"
    if out["time_error_us"] == NO_UTC:
        out["time_error_us"] = None
    if out["temperature_mc"] == NO_TEMPERATURE:
        out["temperature_mc"] = None
    scale = float(frame["scale_g"][0])
    factor = scale / max(1, int(frame["decimation"][0]))
    for axis in "xyz":
        values = frame[axis][0] if axis in (frame.dtype.names or ()) else np.empty(0)
        out[f"{axis}_g"] = [round(float(v), 6) for v in values * factor]
    out["minimum_g"] = [round(float(v), 6) for v in frame["minimum"][0] * scale]
    out["maximum_g"] = [round(float(v), 6) for v in frame["maximum"][0] * scale]
    samples = max(1, int(frame["samples"][0]))
    out["rms_g"] = [round(float(v), 6) for v in np.sqrt(frame["sum_squares"][0] / samples) * scale]
    return out


def _line(described: dict[str, Any]) -> str:
    values = "  ".join(f"{axis} {np.mean(described[f'{axis}_g'] or [np.nan]):+8.4f}" for axis in "xyz")
    return f"{described['device']}  boot {described['boot']}  {described['sequence']:>8}  {values} g  rms {described['rms_g']}"


def follow(settings: Settings, device: int | None = None, group: str = "triax-look") -> Iterator[tuple[int, bytes]]:
    """Frames from Kafka as they arrive, from now on, with their receive time (ms since 1970). No offsets are committed."""
    config = {"group.id": group, "enable.auto.commit": False, "auto.offset.reset": "latest", "log_level": 0}
    consumer = Consumer(settings.kafka_config() | config)
    try:
        try:
            topic = consumer.list_topics(FRAMES, timeout=10).topics[FRAMES]
        except KafkaException:
            raise failed(f"no Kafka at {settings.kafka}: start the backend with `triax stack up`, or give --kafka") from None
        if topic.error is not None:
            raise failed(f"Kafka has no topic {FRAMES}: start the backend with `triax stack up`")
        count = len(topic.partitions)
        wanted = range(count) if device is None else [partition(device, count)]
        ends = [TopicPartition(FRAMES, p, consumer.get_watermark_offsets(TopicPartition(FRAMES, p), timeout=10)[1]) for p in wanted]
        consumer.assign(ends)
        while True:
            message = consumer.poll(0.5)
            if message is None:
                continue
            if (error := message.error()) is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    continue
                raise failed(f"Kafka: {error.str()}")
            for frame in batch.split(message.value() or b""):
                yield message.timestamp()[1], frame
    finally:
        consumer.close()


@app.command()
@with_settings
def tail(
    settings: Settings,
    device: Annotated[str | None, typer.Option(help="Only this device (16 hex digits).")] = None,
    count: Annotated[int, typer.Option("--count", "-n", help="Stop after so many; 0: never.")] = 0,
    json: Json = False,
) -> None:
    """Print frames as they arrive in Kafka: one line each, or one JSON object each."""
    try:
        wanted = None if device is None else device_id(device)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    shown = 0
    for received_ms, data in follow(settings, wanted):
        try:
            frame = parse(data)
        except FrameError as error:
            typer.echo(f"bad frame: {error}", err=True)
            continue
        if wanted is not None and int(frame["device"][0]) != wanted:
            continue
        described = describe(frame)
        if json:
            print_json(described | {"received_ms": received_ms})
        else:
            typer.echo(f"{time.strftime('%H:%M:%S', time.gmtime(received_ms / 1e3))}  {_line(described)}")
        shown += 1
        if shown == count:
            return


@app.command()
def decode(
    path: Annotated[Path | None, typer.Argument(help="A frame or a FrameBatch; - or nothing: standard input.")] = None,
    hex: Annotated[bool, typer.Option("--hex", help="The input is hexadecimal text.")] = False,
) -> None:
    """Decode a frame, or a Kafka record of frames, to JSON: one object per line. Exit code 1 if any frame is bad."""
    data = sys.stdin.buffer.read() if path is None or str(path) == "-" else path.read_bytes()
    if hex:
        try:
            data = bytes.fromhex(data.decode("ascii", "replace"))
        except ValueError as error:
            raise typer.BadParameter(f"the input is not hexadecimal: {error}") from None
    try:
        frames = [data] if data[:1] == b"\x0d" else batch.split(data)
    except FrameError as error:
        raise typer.BadParameter(f"neither a frame nor a FrameBatch: {error}") from None
    bad = 0
    for index, frame in enumerate(frames):
        try:
            print_json(describe(parse(frame)))
        except FrameError as error:
            bad += 1
            typer.echo(f"frame {index}: {error}", err=True)
    if bad or not frames:
        typer.echo(f"{bad} of {len(frames)} frames are bad" if frames else "no frame in the input", err=True)
        raise typer.Exit(1)
