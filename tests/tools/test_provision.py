"""A site and its nodes: what the broker lets in, what a node starts with, on real mosquitto and MicroPython's unix port."""

import importlib.util
import json
import os
import ssl
import stat
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from triax import boot
from triax.main import build, load
from triax.ports.disk import Store
from triax.update import Slots
from triax_proto.v1.device_pb2 import Config, ConfigAck, DeviceInfo
from triax_proto.v1.frame_pb2 import Frame
from triax_tools import flash as flash_module
from triax_tools import hardware
from triax_tools.provision import BACKEND, Site, app, device_of, random_device
from typer import Typer
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
DEVICE = "0211223344556677"


def load_module(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


brokers = load_module("device_brokers", ROOT / "tests/device/brokers.py")


def command(function):
    one = Typer()
    one.command()(function)
    return one


def invoke(application, *arguments):
    return CliRunner().invoke(application, [str(argument) for argument in arguments])


@pytest.fixture
def site(tmp_path):
    port = brokers.free_port()
    one = Site(tmp_path / "site")
    one.create(["localhost"], port)
    return one


def test_the_words_of_the_command(tmp_path):
    folder = tmp_path / "site"
    made = invoke(app, "site", folder, "--broker", "broker.example", "--broker", "10.0.0.9", "--json")
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["user"] == BACKEND
    node = invoke(app, "node", folder, "--board", "esp32", "--part", "iis3dwb", "--mac", "24:0A:C4:00:01:10", "--json")
    assert json.loads(node.stdout)["node"] == "240ac4fffe000110"
    twice = invoke(app, "node", folder, "--board", "esp32", "--part", "iis3dwb", "--mac", "24:0A:C4:00:01:10")
    assert twice.exit_code == 1
    assert "provisioned already" in twice.stderr
    again = invoke(app, "site", folder, "--broker", "x")
    assert (again.exit_code, "site already" in again.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--board", "arduino", "--part", "iis3dwb"], "no board 'arduino'; there are"),
        (["--board", "esp32", "--part", "bmi270"], "no part 'bmi270'; there are"),
        (["--board", "esp32", "--part", "iis3dwb", "--device", "12"], "16 lower-case hex digits"),
        (["--board", "esp32", "--part", "iis3dwb", "--mac", "12"], "no MAC address"),
        (["--board", "esp32", *(["--part", "iis3dwb"] * 3)], "chip selects"),
        (["--board", "esp32", *(["--part", "mpu6050"] * 3)], "mpu6050 has 2 addresses"),
        (["--board", "esp32", *(["--part", "iis3dwb", "--device", DEVICE] * 2)], "provisioned already"),
    ],
)
def test_what_cannot_be_provisioned(site, arguments, what):
    told = invoke(app, "node", site.folder, *arguments)
    assert told.exit_code == 1
    assert what in told.stderr
    assert "Traceback" not in told.output
    assert not (site.folder / "nodes").exists(), "nothing was issued"
    assert (site.folder / "broker/users").read_text().count(":$7$") == 1, "the backend's"


@pytest.mark.parametrize("gone", [["ca.key"], ["ca.key", "ca.pem"]])
def test_an_authority_that_is_away_is_not_replaced(site, gone):
    before = (site.folder / "authority/ca.pem").read_bytes()
    kept = {name: (site.folder / "authority" / name).read_bytes() for name in gone}
    for name in gone:
        (site.folder / "authority" / name).unlink()
    told = invoke(app, "node", site.folder, "--board", "esp32", "--part", "iis3dwb")
    assert told.exit_code == 1
    assert gone[-1] in told.stderr
    for name, data in kept.items():
        (site.folder / "authority" / name).write_bytes(data)
    assert invoke(app, "node", site.folder, "--board", "esp32", "--part", "iis3dwb").exit_code == 0
    assert (site.folder / "authority/ca.pem").read_bytes() == before


def test_no_site(tmp_path):
    told = invoke(app, "node", tmp_path, "--board", "esp32", "--part", "iis3dwb")
    assert "is no site: triax provision site" in told.stderr


def test_identities():
    assert device_of("24-0a-c4-00-01-10") == "240ac4fffe000110"
    assert all(int(random_device()[:2], 16) & 3 == 2 for _ in range(50))
    assert len({random_device() for _ in range(50)}) == 50


def test_secrets_are_the_owners_only(site):
    node = site.add_node("raspberry-pi-4", [{"device": DEVICE, "part": "iis3dwb"}], 1_800_000_000)
    secret = [*site.folder.rglob("*.key"), *site.folder.rglob("key.*"), site.folder / "broker/users", node / "node.toml"]
    assert len(secret) >= 5
    for path in [*secret, site.folder / "backend.password"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


class Sensors:
    """A port that has what the settings ask for."""

    def __init__(self):
        self.asked = []
        self.clock = self.link = self.watchdog = self.board = self
        self.store = self
        self.name = "test"

    def ticks_us(self):
        return 0

    def read(self, name):
        return None

    def device(self, sensor, part):
        self.asked.append((sensor, part.NAME))
        return load_module("tape", ROOT / "tests/device/tape.py") and _virtual(part.NAME)

    def files(self, name):
        return brokers


def _virtual(name):
    from triax_sim import chips
    from triax_sim.wiring import connect
    from triax_sim.world import World

    world = World()
    return connect(world, chips.load(name)(world, lambda first, count: None))[1]


@pytest.mark.parametrize("board", [name for name in hardware.boards() if name != "pico"])
def test_the_settings_of_every_board_build_a_node(site, board):
    sensors = [{"device": DEVICE, "part": "iis3dwb"}, {"device": "0211223344556678", "part": "adxl382"}]
    node = site.add_node(board, sensors, 1_800_000_000)
    path = next(node.glob("node.*"))
    settings = load(str(path))
    settings["spool"]["files"] = False
    settings["spool"]["frames"] = 50
    port = Sensors()
    built = build(settings, port, print)
    assert [channel.device for channel in built.channels] == [int(DEVICE, 16), int(DEVICE, 16) + 1]
    assert [name for _, name in port.asked] == ["iis3dwb", "adxl382"]
    selects = [sensor["select"] for sensor, _ in port.asked]
    assert selects == hardware.board(board)["spi"]["select"]
    for name in boot.SLOTS:
        assert boot.read((node / "store" / name).read_bytes()) == 1_800_000_000


class Client:
    def __init__(self, site, user, password, certificate):
        authority = site.folder / "authority"
        self.code = None
        self.heard = []
        self.granted = None
        self.done = threading.Event()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self.client.username_pw_set(user, password)
        self.client.tls_set(
            authority / "ca.pem",
            authority / f"{certificate}.pem",
            authority / f"{certificate}.key",
            tls_version=ssl.PROTOCOL_TLS_CLIENT,
        )
        self.client.on_connect = self._connected
        self.client.on_message = lambda _client, _data, message: self.heard.append((message.topic, message.payload))
        self.client.on_subscribe = lambda *_: self.done.set()
        self.client.connect("localhost", site.data["port"])
        self.client.loop_start()

    def _connected(self, _client, _data, _flags, reason, _properties):
        self.code = reason.value

    def subscribe(self, topic):
        self.done.clear()
        self.client.subscribe(topic, 1)
        assert self.done.wait(10)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def broker(site, tmp_path):
    """mosquitto on the site's own files."""
    made = []

    def start():
        conf = site.folder / "broker/mosquitto.conf"
        if os.geteuid() == 0:
            conf.write_text(conf.read_text() + "user root\n")
        process = subprocess.Popen(["mosquitto", "-c", conf], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        made.append(process)
        brokers.wait_for(lambda: _listens(site.data["port"]), "mosquitto")

    yield start
    for process in made:
        process.terminate()
        process.wait(10)


def _listens(port):
    import socket

    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.servers
def test_the_brokers_files_let_each_do_its_own_and_no_more(site, broker):
    node = site.add_node("raspberry-pi-4", [{"device": DEVICE, "part": "iis3dwb"}], 1_800_000_000)
    other = site.add_node("raspberry-pi-4", [{"device": "0211223344556600", "part": "iis3dwb"}], 1_800_000_000)
    password = tomllib.loads((node / "node.toml").read_text())["link"]["password"]
    assert password != tomllib.loads((other / "node.toml").read_text())["link"]["password"]
    broker()
    backend = Client(site, BACKEND, (site.folder / "backend.password").read_text().strip(), DEVICE)
    one = Client(site, DEVICE, password, DEVICE)
    wrong = Client(site, DEVICE, "wrong", DEVICE)
    brokers.wait_for(lambda: None not in (backend.code, one.code, wrong.code), "three answers")
    assert (backend.code, one.code) == (0, 0)
    assert wrong.code != 0
    backend.subscribe("triax/v1/+/frame")
    one.subscribe("triax/v1/+/config")
    for topic in ("triax/v1/0211223344556600/frame", "elsewhere"):
        intruder = Client(site, DEVICE, password, DEVICE)  # one for each: this broker ends a connection that does what it may not
        brokers.wait_for(lambda intruder=intruder: intruder.code == 0, "the intruder")
        intruder.client.publish(topic, b"x", 1)
        time.sleep(0.3)
        intruder.close()
    one.client.publish(f"triax/v1/{DEVICE}/frame", b"x", 1).wait_for_publish(10)
    backend.client.publish("triax/v1/0211223344556600/config", b"not mine", 1).wait_for_publish(10)
    backend.client.publish(f"triax/v1/{DEVICE}/config", b"mine", 1).wait_for_publish(10)
    brokers.wait_for(lambda: backend.heard and one.heard, "messages")
    assert backend.heard == [(f"triax/v1/{DEVICE}/frame", b"x")]
    assert one.heard == [(f"triax/v1/{DEVICE}/config", b"mine")]
    for client in (backend, one, wrong):
        client.close()


BUSES = """
import sys
import time

sys.path.insert(0, {here!r})
source = open({here!r} + "/upy_node.py").read()
head = "_ODR_HZ = 16000\\nfrom triax.chips import LOSS_FLAG, TEMPERATURE_NONE\\nclass Part:"
exec(head + source.split("class Part:")[1].split("class Clock:")[0])
import triax.chips.iis3dwb as module


class Wall:
    def ticks_us(self):
        return time.ticks_us() & 0x3FFFFFFF


class Fake(Part):
    NAME = "iis3dwb"
    ODRS_HZ = (26667,)
    RANGES_G = (2, 4, 8, 16)

    def __init__(self, device):
        Part.__init__(self, Wall())


module.Iis3dwb = Fake


def device(sensor, part):
    return None
"""


def flashed(site, tmp_path, *options):
    node = site.add_node("esp32", [{"device": DEVICE, "part": "iis3dwb"}], 1_800_000_000, ("wifi", "secret"))
    settings = json.loads((node / "node.json").read_text())
    settings["node"]["buses"] = "fake_buses"
    settings["time"] = {}
    (node / "node.json").write_text(json.dumps(settings))
    root = tmp_path / "board"
    told = invoke(command(flash_module.flash), node, "--unix", root, "--json", *options)
    assert told.exit_code == 0, told.output
    (root / "fake_buses.py").write_text(BUSES.format(here=str(ROOT / "tests/device")))
    return node, root


def run_board(root):
    program = Path(sys.executable).parent / "micropython"
    environment = os.environ | {"MICROPYPATH": f"{root}:.frozen"}
    return subprocess.Popen(
        [program, "-X", "heapsize=4m", root / "main.py"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.servers
@pytest.mark.parametrize("options", [[], ["--source"]])
def test_provision_flash_and_run_on_the_unix_port(site, broker, tmp_path, options):
    _, root = flashed(site, tmp_path, *options)
    broker()
    backend = Client(site, BACKEND, (site.folder / "backend.password").read_text().strip(), DEVICE)
    brokers.wait_for(lambda: backend.code == 0, "the backend")
    backend.subscribe("triax/v1/#")
    board = run_board(root)

    def of(kind):
        return [payload for topic, payload in backend.heard if topic == f"triax/v1/{DEVICE}/{kind}"]

    try:
        brokers.wait_for(lambda: len(of("frame")) >= 10, "frames")
        assert [Frame.FromString(data).sequence for data in of("frame")][:10] == list(range(10))
        assert Frame.FromString(of("frame")[0]).boot == 1_800_000_002
        assert DeviceInfo.FromString(of("info")[0]).node == int(DEVICE, 16)
        config = Config(version=1, replay_hz=99)
        config.command.id, config.command.kind = 5, 3
        backend.client.publish(f"triax/v1/{DEVICE}/config", config.SerializeToString(), 1, True)
        assert board.wait(20) == 75, "restarted on command"
        assert ConfigAck.FromString(of("config/ack")[0]).result == ConfigAck.RESULT_APPLIED
    finally:
        board.kill()
        print(board.communicate()[0])
        backend.close()


def test_flash_of_a_raspberry_pi(site, tmp_path):
    node = site.add_node("raspberry-pi-5", [{"device": DEVICE, "part": "iis3dwb"}], 1_800_000_000)
    told = invoke(command(flash_module.flash), node)
    assert "--root /" in told.stderr
    told = invoke(command(flash_module.flash), node, "--root", tmp_path / "pi")
    assert told.exit_code == 0, told.output
    unit = (tmp_path / "pi/etc/systemd/system/triax.service").read_text()
    assert "Type=notify" in unit
    assert "WatchdogSec=" in unit
    settings = tomllib.loads((tmp_path / "pi/etc/triax/node.toml").read_text())
    assert (tmp_path / "pi" / settings["tls"]["key"].lstrip("/")).exists()
    store = tmp_path / "pi/var/lib/triax/store"
    assert boot.read((store / "boot0").read_bytes()) == 1_800_000_001
    (store / "boot1").write_bytes(boot.slot(1_800_000_500))  # it has been started since
    assert invoke(command(flash_module.flash), node, "--root", tmp_path / "pi").exit_code == 0
    assert [boot.read((store / name).read_bytes()) for name in boot.SLOTS] == [1_800_000_501] * 2, "no boot number comes again"


def test_a_reflash_runs_what_was_flashed(site, tmp_path):
    """Whatever updates and earlier flashes left."""
    node, root = flashed(site, tmp_path, "--source")
    slots = Slots(Store(str(root / "data")), str(root))
    slots.rollback("now in b")
    assert Slots(Store(str(root / "data")), str(root)).active == 1
    told = invoke(command(flash_module.flash), node, "--unix", root)
    assert told.exit_code == 0, told.output
    assert Slots(Store(str(root / "data")), str(root)).active == 0
    assert not (root / "a/triax/frame.py").exists(), "it would be found before frame.mpy"
    assert (root / "a/triax/frame.mpy").exists()
    assert boot.read((root / "data/boot0").read_bytes()) == 1_800_000_002


def test_what_cannot_be_flashed(site, tmp_path):
    assert "no provisioned node" in invoke(command(flash_module.flash), tmp_path).stderr
    node = site.add_node("esp32", [{"device": DEVICE, "part": "iis3dwb"}], 1_800_000_000)
    told = invoke(command(flash_module.flash), node, "--port", "/dev/does-not-exist", "--source")
    assert told.exit_code == 1
    assert "mpremote" in told.stderr
    assert "Traceback" not in told.output
