"""What `pip install triax` brings is whole: scenarios, migrations, Kafka's pom and boards are in the wheel."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ASK = """
import json, triax_sim
from triax_backend.servers import kafka
from triax_backend.sinks.schema import MIGRATIONS
from triax_sim.scenario import SCENARIOS, load
from triax_tools.hardware import board, boards, parts
load("ten-thousand"), [board(name) for name in boards()]
print(json.dumps([triax_sim.__file__, sorted(p.name for p in MIGRATIONS.iterdir()), sorted(p.name for p in SCENARIOS.iterdir()),
                  (kafka._DEPLOY / "pom.xml").read_text(), boards(), parts()]))
"""


def told(path, folder):
    """What a program that finds triax in `path` alone can read."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    out = subprocess.run([sys.executable, "-c", ASK], env=environ, cwd=folder, capture_output=True, text=True, check=True).stdout
    where, *found = json.loads(out)
    assert Path(where).parents[1] in path
    return found


@pytest.mark.timeout(180)
def test_a_wheel_has_the_files_that_a_checkout_has(tmp_path):
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "build", "-q", "--wheel", "-o", tmp_path, ROOT], check=True, timeout=150)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    here = [ROOT / name for name in ("device", "proto", "sim", "host_tools")]
    assert told([tmp_path / "site"], tmp_path) == told(here, tmp_path)
