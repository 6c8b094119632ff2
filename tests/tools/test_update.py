"""`triax update` on MicroPython's unix port: a good program is confirmed, a broken one is left."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from triax.ports.disk import Store
from triax.update import Slots
from triax_tools import mpremote
from triax_tools import update as update_module
from triax_tools.mpremote import Mpremote
from triax_tools.program import stage_board
from triax_tools.provision import Site
from typer import Typer
from typer.testing import CliRunner

DEVICE = "0211223344556677"
MICROPYTHON = Path(sys.executable).parent / "micropython"


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("site") / "site")
    site.create(["localhost"], 1)
    folder = site.add_node("esp32", [{"device": DEVICE, "part": "iis3dwb"}], 1_800_000_000)
    settings = json.loads((folder / "node.json").read_text())
    settings["node"]["buses"] = "fake_buses"
    settings["time"] = {}
    (folder / "node.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def board(node, tmp_path):
    root = tmp_path / "board"
    root.mkdir()
    stage_board(root, node, compiled=False, root=str(root))
    (root / "fake_buses.py").write_text("import sys\ndef device(sensor, part):\n    raise SystemExit(9)\n")
    return root


def update(*arguments):
    app = Typer()
    app.command()(update_module.update)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run(root):
    environment = {"MICROPYPATH": f"{root}:.frozen"}
    return subprocess.run(
        [MICROPYTHON, "-X", "heapsize=4m", root / "main.py"], capture_output=True, text=True, env=environment, check=False
    )


def slots(root):
    return Slots(Store(str(root / "data")), str(root))


def test_an_update_goes_to_the_other_slot_and_is_tried(board, node):
    told = update(node, "--unix", board, "--source", "--json")
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["slot"] == "b"
    assert (slots(board).active, slots(board).trial) == (1, True)
    assert run(board).returncode == 9, "it came as far as its sensor"
    assert slots(board).tries == 1


def test_a_program_that_ends_with_an_error_is_left_at_once(board, node):
    update(node, "--unix", board, "--source", "--no-switch")
    main = board / "b/triax/main.py"
    main.write_text("raise ValueError('broken')\n")
    manifest = json.loads((board / "b/manifest.json").read_text())
    import hashlib

    manifest["files"]["triax/main.py"] = hashlib.sha256(main.read_bytes()).hexdigest()
    text = json.dumps(manifest).encode()
    (board / "b/manifest.json").write_bytes(text)
    slots(board).switch(hashlib.sha256(text).digest())
    done = run(board)
    assert done.returncode == 75, done.stdout
    after = slots(board)
    assert (after.active, after.trial) == (0, False)
    assert "broken" in after.reason
    assert run(board).returncode == 9, "the old program runs"


def test_a_program_that_does_not_come_up_three_times_is_left(board, node):
    update(node, "--unix", board, "--source")
    for _ in range(3):
        assert run(board).returncode == 9
    run(board)
    assert slots(board).active == 0
    assert "3 times" in slots(board).reason


def test_a_second_update_goes_back_to_the_first_slot(board, node):
    update(node, "--unix", board, "--source")
    slots(board).confirm()
    told = update(node, "--unix", board, "--source", "--json")
    assert json.loads(told.stdout)["slot"] == "a"


def test_on_trial_there_is_no_further_update(board, node):
    """The slot that an update would go to holds the last good program."""
    update(node, "--unix", board, "--source")
    before = (board / "a/manifest.json").stat().st_mtime_ns
    told = update(node, "--unix", board, "--source")
    assert told.exit_code == 1
    assert "on trial" in told.stderr
    assert (board / "a/manifest.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="on trial"):
        slots(board).switch(b"")
    assert (slots(board).active, slots(board).trial) == (1, True)


def test_a_folder_of_a_board_is_removed_with_all_it_holds(tmp_path):
    (tmp_path / "a/triax/chips").mkdir(parents=True)
    (tmp_path / "a/triax/chips/old.py").write_text("x")
    (tmp_path / "a/manifest.json").write_text("{}")
    for _ in range(2):  # once more, when it is absent
        done = subprocess.run([MICROPYTHON, "-c", mpremote._REMOVE.format(path=str(tmp_path / "a"))], check=False)
        assert done.returncode == 0
        assert list(tmp_path.iterdir()) == []


def test_what_mpremote_says_is_passed_on(tmp_path):
    script = tmp_path / "mpremote.py"
    script.write_text("import sys\nprint(sys.argv[1:])\nsys.exit(1 if 'exec' in sys.argv else 0)\n")
    board = Mpremote("/dev/ttyX", (sys.executable, str(script)))
    (tmp_path / "files").mkdir()
    (tmp_path / "files/main.py").write_text("x")
    board.copy(tmp_path / "files")
    assert board._run(["fs", "ls"]).startswith("['connect', '/dev/ttyX', 'fs', 'ls']")
    with pytest.raises(RuntimeError, match="is the port right"):
        board.execute("print(1)")


def test_an_update_of_a_board_asks_it_which_slot_is_free(node, tmp_path, monkeypatch):
    asked = []

    class Board:
        def __init__(self, port):
            assert port == "/dev/ttyX"

        def execute(self, code):
            asked.append(code)
            return "active 1 0\n" if "active" in code else "switched\n"

        def remove(self, folder):
            asked.append(folder)

        def copy(self, folder):
            asked.append(sorted(path.name for path in folder.iterdir()))

        def reset(self):
            asked.append("reset")

    monkeypatch.setattr(update_module, "Mpremote", Board)
    told = update(node, "--port", "/dev/ttyX", "--source", "--json")
    assert json.loads(told.stdout)["slot"] == "a"
    assert asked[1:3] == ["/a", ["a"]]
    assert json.loads(told.stdout)["manifest"] in asked[3]
    assert asked[4] == "reset"


def test_no_node_to_update(tmp_path):
    told = update(tmp_path)
    assert told.exit_code == 1
    assert "Traceback" not in told.output
