"""`triax read` and `triax export`: what is in force is applied and named, what does not belong is refused."""

import json
from datetime import UTC, datetime, timedelta

import psycopg
import pyarrow.feather
import pyarrow.parquet
import pytest
from triax_backend.read import read
from triax_tools.calibrate import apply, compact, document, table
from triax_tools.cli import build
from typer.testing import CliRunner

from ..backend.calibrated import START, START_US, Database, digest, made, seconds
from ..backend.sinks import Place

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


@pytest.fixture
def database(stack, tmp_path):
    place = Place(stack.settings, tmp_path)
    found = Database(place)
    yield found
    found.close()
    place.close()


def triax(*arguments):
    result = CliRunner().invoke(build(arguments[0]), list(map(str, arguments)), env={"COLUMNS": "200"})
    return result.exit_code, result.stdout, result.stderr


def test_triax_read_applies_what_is_in_force_and_says_so(database, tmp_path):
    frames = database.place.frames(1, 20, start_us=START_US)
    frames["temperature_mc"][3] = 80_000
    database.store(frames)
    good = made(database.device, created=seconds(1))
    where = ["--from", START.isoformat(), "--to", seconds(9).isoformat(), "--postgres", database.place.settings.postgres]
    asked = ["read", f"{database.device:016x}", *where]
    code, out, said = triax(*asked)
    assert (code, len(out.splitlines())) == (0, 200)
    assert said == "200 values: uncalibrated, count x scale: no calibration is in force. triax calibrate push stores one\n"
    database.push(compact.encode(good), seconds(2))
    given, _ = database.values()
    code, out, said = triax(*asked, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["x_g"] for row in rows] == given["x_g"].to_pylist()
    assert [row["calibration"] for row in rows] == [None] * 100 + [digest(good)] * 100
    assert said.splitlines()[0] == f"calibration {digest(good)}"
    assert said.splitlines()[1].startswith("100 values: uncalibrated")
    plain = read(database.place.settings, database.device, seconds(0), seconds(9))
    rows = [json.loads(line) for line in triax(*asked, "--json", "--uncalibrated")[1].splitlines()]
    assert [row["x_g"] for row in rows] == plain["x_g"].to_pylist()
    file = tmp_path / "other.cal.json"
    file.write_text(document.dump(made(database.device, seed=2, created=datetime.now(UTC))))
    code, out, said = triax(*asked, "--json", "--calibration", file)
    exact = apply.calibrate_frames(document.parse(file.read_text()), frames).values_g
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["x_g"] for row in rows] == pytest.approx(exact[:, :, 0].ravel(), abs=1e-9)
    assert "10 values: warmer or colder than was calibrated" in said
    assert triax(*asked, "--uncalibrated", "--calibration", file)[0] == 2


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"scale_g": 0.004}, "is of full scale"),
        ({"serial": "ffff"}, "of the sensor with serial ffff; the one here is 0102"),
        ({"created": START - timedelta(days=4000)}, "expired on"),
    ],
)
def test_a_file_that_does_not_belong_is_refused(database, tmp_path, changes, text):
    database.store(database.place.frames(1, 3, start_us=START_US))
    database.info(part="adxl382", boot=7, sensor_serial=b"\1\2")
    file = tmp_path / "wrong.cal.json"
    file.write_text(document.dump(made(database.device, **{"created": datetime.now(UTC)} | changes)))
    postgres = database.place.settings.postgres
    found = triax("read", f"{database.device:016x}", "--from", START.isoformat(), "--calibration", file, "--postgres", postgres)
    assert found[0] == 1
    assert text in found[2]


def test_a_database_without_the_tables_is_told_how_to_get_them(database):
    with psycopg.connect(database.place.settings.postgres) as connection:
        connection.execute("ALTER TABLE sensors RENAME TO elsewhere")
    code, _, said = triax("read", f"{database.device:016x}", "--postgres", database.place.settings.postgres)
    assert code == 1
    assert "older than this tool: `python -m triax_backend.sinks.schema`" in said


@pytest.mark.parametrize("ending", ["csv", "parquet", "arrow"])
def test_an_export_carries_the_hash(database, tmp_path, ending):
    database.store(database.place.frames(1, 3, start_us=START_US))
    database.push(compact.encode(made(database.device)))
    path = tmp_path / f"values.{ending}"
    postgres = database.place.settings.postgres
    found = triax("export", f"{database.device:016x}", path, "--from", START.isoformat(), "--postgres", postgres)
    assert found == (0, f"30 values in {path}\n", f"calibration {digest(made(database.device))}\n")
    if ending == "csv":
        assert path.read_text().count(digest(made(database.device))) == 30
        return
    held = pyarrow.parquet.read_table(path) if ending == "parquet" else pyarrow.feather.read_table(path)
    assert held.schema.metadata[table.HASH].decode() == digest(made(database.device))
    assert held["calibration"].to_pylist() == [digest(made(database.device))] * 30
