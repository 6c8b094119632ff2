"""`triax provision`: who a node is, how the broker knows it, and what the node starts with.

A folder is a site: its own certificate authority, the broker's certificate and files, a folder for each node. A node's user name
is the EUI-64 of its first sensor; it may publish below its devices and read their configuration and calibration, nothing else.
"""

import base64
import hashlib
import json
import secrets
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from triax import boot

from triax_tools import hardware
from triax_tools.authority import Authority, to_der
from triax_tools.options import Json, failed, print_json

__all__ = ["Site", "app", "password_line"]

app = typer.Typer(no_args_is_help=True)

BACKEND = "triax-backend"
_UPLINK = ("frame", "raw", "info", "status", "config/ack", "event")
_DOWNLINK = ("config", "calibration")
# mosquitto 2's own figures for its $7$ hashes; a larger count only makes its log-ins slower.
_ITERATIONS, _SALT_BYTES = 101, 12
# Samples of a raw frame and raw frames that wait: 7 KiB on a board, 1 MiB on Linux.
_RAW = {False: (100, 6), True: (1600, 64)}


def password_line(user: str, password: str) -> str:
    """A line of mosquitto's password file: PBKDF2 of SHA-512."""
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return f"{user}:$7${_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def device_of(mac: str) -> str:
    """EUI-64 of a 48-bit MAC address, as 16 hex digits. Raises ValueError."""
    digits = mac.replace(":", "").replace("-", "").lower()
    if len(digits) != 12 or any(c not in "0123456789abcdef" for c in digits):
        raise ValueError(f"{mac!r} is no MAC address")
    return digits[:6] + "fffe" + digits[6:]


def random_device() -> str:
    """An EUI-64 of our own: random, marked as locally administered, so that it meets nobody else's."""
    value = bytearray(secrets.token_bytes(8))
    value[0] = value[0] & 0xFC | 2
    return value.hex()


@dataclass
class Site:
    """The folder of a site. `site.json` keeps the broker's names and each node's devices."""

    folder: Path

    def create(self, hosts: list[str], port: int) -> None:
        """Authority, broker certificate, broker files. Raises ValueError if there is a site already."""
        if self.path.exists():
            raise ValueError(f"{self.folder} is a site already")
        self.folder.mkdir(parents=True, exist_ok=True)
        Authority(self.folder / "authority").issue_server(hosts)
        self._write({"hosts": hosts, "port": port, "nodes": {}})
        self.set_password(BACKEND, secrets.token_urlsafe(18))
        self.write_broker_files()

    @property
    def path(self) -> Path:
        """site.json"""
        return self.folder / "site.json"

    @property
    def data(self) -> dict[str, Any]:
        """What is known of the site. Raises ValueError."""
        if not self.path.exists():
            raise ValueError(f"{self.folder} is no site: triax provision site {self.folder} --broker HOST")
        data: dict[str, Any] = json.loads(self.path.read_text())
        return data

    def add_node(self, board: str, sensors: list[dict[str, Any]], now_s: int, wifi: tuple[str, str] | None = None) -> Path:
        """A node with these sensors ({"device", "part", ...}): its folder with settings, certificate and boot seed."""
        data = self.data
        user: str = sensors[0]["device"]
        taken = {device for devices in data["nodes"].values() for device in devices}
        for sensor in sensors:
            if sensor["device"] in taken:
                raise ValueError(f"{sensor['device']} is provisioned already")
            taken.add(sensor["device"])
        on_linux = hardware.board(board)["port"] == "linux"
        tables = [_sensor(sensor, board, index) for index, sensor in enumerate(sensors)]
        if not (self.folder / "authority" / "ca.pem").exists():
            raise ValueError(f"{self.folder / 'authority'} holds no ca.pem: a new authority would know none of the site's nodes")
        authority = Authority(self.folder / "authority")
        certificate, key = authority.issue_client(user)
        password = secrets.token_urlsafe(18)
        self.set_password(user, password)
        folder = self.folder / "nodes" / user
        (folder / "store").mkdir(parents=True, exist_ok=True)
        for name in boot.SLOTS:
            (folder / "store" / name).write_bytes(boot.slot(now_s))
        files = {"ca": authority.certificate_path, "certificate": certificate, "key": key}
        for name, source in files.items():
            target = folder / f"{name}.{'pem' if on_linux else 'der'}"
            target.write_bytes(source.read_bytes() if on_linux else to_der(source))
            target.chmod(0o600)
        link = {
            "host": data["hosts"][0],
            "port": data["port"],
            "tls": True,
            "keepalive_s": 30,
            "username": user,
            "password": password,
        }
        settings: dict[str, Any] = {"node": {"board": board, "folder": "/var/lib/triax" if on_linux else "/data"}, "link": link}
        where = "/etc/triax/" if on_linux else "/data/"
        settings["tls"] = {name: f"{where}{name}.{'pem' if on_linux else 'der'}" for name in files}
        settings["spool"] = {"frames": hardware.board(board)["memory"]["spool_frames"] // len(sensors), "files": on_linux}
        if not on_linux:
            settings["time"] = {"servers": [data["hosts"][0], "pool.ntp.org"]}
            settings["wifi"] = dict(zip(("ssid", "password"), wifi or ("", ""), strict=True))
        settings["sensor"] = tables
        name = "node.toml" if on_linux else "node.json"
        text = _toml(settings) if on_linux else json.dumps(settings, indent=1)
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
        data["nodes"][user] = [sensor["device"] for sensor in sensors]
        self._write(data)
        self.write_broker_files()
        return folder

    def set_password(self, user: str, password: str) -> None:
        """Put a user into the broker's password file, and the password beside it where it is the backend's."""
        path = self.folder / "broker" / "users"
        path.parent.mkdir(exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        lines = [line for line in lines if not line.startswith(user + ":")]
        path.write_text("\n".join([*lines, password_line(user, password)]) + "\n")
        path.chmod(0o600)
        if user == BACKEND:
            secret = self.folder / "backend.password"
            secret.write_text(password + "\n")
            secret.chmod(0o600)

    def write_broker_files(self) -> None:
        """mosquitto.conf and acl, from what is provisioned."""
        data = self.data
        folder = (self.folder / "broker").resolve()
        authority = (self.folder / "authority").resolve()
        acl = [f"user {BACKEND}", *(f"topic read triax/v1/+/{kind}" for kind in _UPLINK)]
        acl += [f"topic readwrite triax/v1/+/{kind}" for kind in _DOWNLINK]
        for user, devices in data["nodes"].items():
            acl += ["", f"user {user}"]
            for device in devices:
                acl += [f"topic write triax/v1/{device}/{kind}" for kind in _UPLINK]
                acl += [f"topic read triax/v1/{device}/{kind}" for kind in _DOWNLINK]
        (folder / "acl").write_text("\n".join(acl) + "\n")
        (folder / "mosquitto.conf").write_text(
            "\n".join(
                [
                    "# Nodes and backend come by TLS with user name and password; a certificate of ours is asked for as well.",
                    f"listener {data['port']}",
                    f"cafile {authority / 'ca.pem'}",
                    f"certfile {authority / 'broker.pem'}",
                    f"keyfile {authority / 'broker.key'}",
                    "require_certificate true",
                    "allow_anonymous false",
                    f"password_file {folder / 'users'}",
                    f"acl_file {folder / 'acl'}",
                    "# Every frame that was acknowledged is passed on, none is dropped for a subscriber that is slow.",
                    "max_queued_messages 0",
                    "max_inflight_messages 0",
                    "",
                ]
            )
        )

    def _write(self, data: dict[str, Any]) -> None:
        self.path.write_text(json.dumps(data, indent=1) + "\n")


def _sensor(sensor: dict[str, Any], board_name: str, index: int) -> dict[str, Any]:
    """A sensor's settings with the pins of its board."""
    board = hardware.board(board_name)
    part = hardware.part_class(sensor["part"])
    bus = sensor.pop("bus_kind", None) or part.BUSES[0]
    raw_sets, raw_slots = _RAW[board["port"] == "linux"]
    result = {"range_g": part.RANGES_G[-1], "odr_hz": part.ODRS_HZ[-1], "raw_sets": raw_sets, "raw_slots": raw_slots}
    result |= {**sensor, "kind": bus}
    if bus == "spi":
        if index >= len(board["spi"]["select"]):
            raise ValueError(f"{board_name} has {len(board['spi']['select'])} chip selects")
        pins = {"bus": board["spi"]["bus"], "select": board["spi"]["select"][index]}
        if board["port"] != "linux":
            pins |= {name: board["spi"][name] for name in ("sck", "mosi", "miso")}
        return result | pins | {"ready": board["spi"]["ready"][index]}
    if index >= len(part.I2C_ADDRESSES):
        raise ValueError(f"{sensor['part']} has {len(part.I2C_ADDRESSES)} addresses on a bus")
    pins = {"bus": board["i2c"]["bus"], "address": part.I2C_ADDRESSES[index]}
    if board["port"] != "linux":
        pins |= {name: board["i2c"][name] for name in ("scl", "sda")}
    return result | pins


def _toml(settings: dict[str, Any]) -> str:
    """Tables of plain values, and one list of tables."""
    lines: list[str] = []
    for name, table in settings.items():
        for one in table if isinstance(table, list) else [table]:
            lines.append(f"[[{name}]]" if isinstance(table, list) else f"[{name}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in one.items()]
            lines.append("")
    text = "\n".join(lines)
    tomllib.loads(text)
    return text


Folder = Annotated[Path, typer.Argument(help="The site's folder.")]


@app.command("site")
def make_site(
    folder: Folder,
    broker: Annotated[list[str], typer.Option(help="Name or address that nodes call the broker by; may be given again.")],
    port: Annotated[int, typer.Option(help="The broker's TLS port.")] = 8883,
    json: Json = False,
) -> None:
    """Make a site: certificate authority, the broker's certificate, mosquitto.conf, users, acl."""
    try:
        Site(folder).create(broker, port)
    except (ValueError, OSError) as error:
        raise failed(str(error)) from None
    if json:
        print_json({"site": str(folder), "conf": str(folder / "broker/mosquitto.conf"), "user": BACKEND})
        return
    typer.echo(f"Site in {folder}. Keep authority/ca.key at home.")
    typer.echo(f"Broker: mosquitto -c {folder}/broker/mosquitto.conf   Backend's user: {BACKEND}, password in backend.password")
    typer.echo(f"Next: triax provision node {folder} --board esp32 --part iis3dwb")


@app.command("node")
def make_node(
    folder: Folder,
    board: Annotated[str, typer.Option(help="A name of hardware/boards.")],
    part: Annotated[list[str], typer.Option(help="A sensor's part; again for the second sensor.")],
    device: Annotated[list[str] | None, typer.Option(help="EUI-64 of each sensor, 16 hex digits; random if left out.")] = None,
    mac: Annotated[str, typer.Option(help="MAC address of the board: the first sensor's EUI-64 is made of it.")] = "",
    wifi: Annotated[tuple[str, str], typer.Option(help="Name and password of the Wi-Fi.")] = ("", ""),
    json: Json = False,
) -> None:
    """Make a node: identity, certificate, password, boot seed, settings with the board's pins; the broker's files follow."""
    import time

    try:
        first = [device_of(mac)] if mac else []
        devices = [*(device or first), *(random_device() for _ in part)][: len(part)]
        for one in devices:
            if len(one) != 16 or any(c not in "0123456789abcdef" for c in one):
                raise ValueError(f"{one!r} is no device: want 16 lower-case hex digits")
        sensors = [{"device": one, "part": name} for one, name in zip(devices, part, strict=True)]
        made = Site(folder).add_node(board, sensors, int(time.time()), wifi)
    except (ValueError, OSError) as error:
        raise failed(str(error)) from None
    if json:
        print_json({"node": devices[0], "devices": devices, "folder": str(made)})
        return
    typer.echo(f"Node {devices[0]} in {made}")
    typer.echo("Reload the broker (kill -HUP), then: triax flash " + str(made))
