"""Runs a node: `python -m triax.main --config node.toml` on a Raspberry Pi, `main.run("node.json")` on a board.

[node]      folder = "/var/lib/triax"    store and spool      board = "raspberry-pi-4"
[link]      host, port, tls, keepalive_s, username, password
[tls]       ca, certificate, key         files
[wifi]      ssid, password               boards only
[time]      servers = ["pool.ntp.org"]   boards only; Linux has its own
[spool]     frames = 6000, files = false keep_newest = true   of each sensor; files: survives the power
[[sensor]]  device = "0011223344556677", part = "iis3dwb", range_g = 16, odr_hz = 26667
            kind = "spi", bus = 0, select = 0, ready = 25; boards: sck, mosi, miso too; I2C: address, on boards scl, sda
"""

import gc
import sys

from triax import frame
from triax.channel import Channel
from triax.errors import BadSetting
from triax.node import Node
from triax.spool import Memory, Spool

_LINK = {"port": 8883, "tls": True, "keepalive_s": 30}
_VALUES = 10
# An eighth of a FIFO between polls: seven more may fail before a sample is lost.
_POLLS_PER_FIFO = 8
_SETTINGS = ("range_g", "odr_hz", "decimation", "lowpass", "highpass", "qos", "test_pattern", "health_period_s")


def load(path: str) -> dict:
    """Settings of a .toml (CPython) or .json file. Raises BadSetting."""
    try:
        if path.endswith(".toml"):
            import tomllib

            with open(path, "rb") as file:
                return tomllib.load(file)
        import json

        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise BadSetting("%s: %s" % (path, error))


def part_class(name: str):
    """The driver of a part by its name."""
    if not name or not all(c in "abcdefghijklmnopqrstuvwxyz0123456789" for c in name):
        raise BadSetting("%r is no part" % name)
    try:
        module = __import__("triax.chips." + name, None, None, ("x",))
    except ImportError:
        raise BadSetting("there is no driver for %r" % name)
    return getattr(module, name[0].upper() + name[1:])


def build(settings: dict, port, log) -> Node:
    """The node of these settings on this port. Raises BadSetting."""
    if not settings.get("sensor"):
        raise BadSetting("no [[sensor]] in the settings")
    link = dict(_LINK)
    link.update(settings.get("link", {}))
    if "host" not in link:
        raise BadSetting("no host in [link]")
    spool = settings.get("spool", {})
    channels = [_channel(sensor, port, spool) for sensor in settings["sensor"]]
    time_server = port.clock if hasattr(port.clock, "step") else None  # a triax.timeserver.TimeServer
    return Node(
        channels,
        port.clock,
        port.link,
        port.store,
        link,
        port.board,
        _version(),
        port.watchdog,
        time_server,
        window=settings["node"].get("window", 16),
        log=log,
    )


def _channel(sensor: dict, port, spool: dict) -> Channel:
    try:
        device = int(sensor["device"], 16)
        part = part_class(sensor["part"])
        if len(sensor["device"]) != 16:
            raise BadSetting("device %r: want 16 hex digits" % sensor["device"])
        values = {name: sensor[name] for name in _SETTINGS if name in sensor}
        values["range_g"] = sensor["range_g"]
        values["odr_hz"] = sensor["odr_hz"]
        if "keep_newest" in spool:
            values["keep_newest"] = spool["keep_newest"]
        on_bus = port.device(sensor, part)
    except KeyError as error:
        raise BadSetting("a sensor has no %s" % error.args[0])
    size = frame.size(_VALUES)
    frames = spool.get("frames", 600)
    if spool.get("files"):
        from triax.segments import Segments  # 3 KiB of RAM, for those who want them

        per_segment = min(256, frames)
        storage = Segments(port.files(sensor["device"]), frames // per_segment * per_segment, size, per_segment)
    else:
        storage = Memory(frames, size)
    raw = (sensor.get("raw_sets", 0), sensor.get("raw_slots", 8))
    return Channel(device, part(on_bus), Spool(storage), values, _VALUES, *raw)


def wait_us(channels: list) -> int:
    """How long the loop may rest between two rounds."""
    times = [1e6 * c.part.FIFO_SETS / c.configuration.values["odr_hz"] for c in channels]
    return max(200, int(min(times)) // _POLLS_PER_FIFO)


def loop(node: Node, port, pins: list, probation=None) -> None:
    """Steps until the node has stopped. A raised interrupt line shortens the rest; a program on probation may be left."""
    node.start()
    if hasattr(gc, "threshold"):
        gc.threshold(-1)  # a collection would hold up the FIFO: from here on only when memory is full
    rest_us = wait_us(node.channels)
    while not node.stopped:
        node.step()
        if probation is not None and probation.step(node.now_ms, node.connected(), node.acked, node.measures()):
            node.stop()
            probation = None
        raised = False
        for pin in pins:
            if pin():
                raised = True
        if not raised:
            port.wait(rest_us)


def run(path: str, port_class, log=print, slots=None) -> None:
    """Load, build, loop. Returns when the node has said goodbye. `slots`: a triax.update.Slots on a board that has them."""
    settings = load(path)
    port = port_class(settings)
    port.board.slots = slots
    node = build(settings, port, log)
    pins = [port.data_ready(sensor) for sensor in settings["sensor"]]
    probation = None
    if slots is not None:
        from triax.update import Probation

        probation = Probation(slots, 0)
    loop(node, port, [pin for pin in pins if pin is not None], probation)


def _version() -> str:
    try:
        from triax.version import VERSION
    except ImportError:
        return "0.1.0"
    return VERSION


def _burst_bytes(settings: dict) -> int:
    """The longest transfer of any sensor."""
    parts = [part_class(sensor.get("part", "")) for sensor in settings.get("sensor", [])]
    return max([part.FIFO_SETS * part.SET_BYTES + 1 for part in parts] + [0])


def _main_linux(arguments) -> int:
    """`python -m triax.main`: exit 0 after SIGTERM, 2: settings, 75: restart wanted."""
    import argparse
    import signal

    from triax.ports import linux, linux_system

    parser = argparse.ArgumentParser(prog="python -m triax.main", description="Run a triax node on Linux.")
    parser.add_argument("--config", required=True, help="node.toml")
    parser.add_argument("--check", action="store_true", help="say what of this computer would spoil capture, and stop")
    options = parser.parse_args(arguments)
    log = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    try:
        settings = load(options.config)
        for line in linux_system.checks(_burst_bytes(settings)):
            log(line)
        if options.check:
            return 0
        port = linux.Port(settings)
        node = build(settings, port, log)
        pins = [port.data_ready(sensor) for sensor in settings["sensor"]]
    except BadSetting as error:
        log("triax: %s" % error)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: node.stop())
    signal.signal(signal.SIGINT, lambda *_: node.stop())
    for line in linux_system.real_time():
        log(line)
    loop(node, port, [pin for pin in pins if pin is not None])
    return 0


if __name__ == "__main__":
    sys.exit(_main_linux(sys.argv[1:]))
