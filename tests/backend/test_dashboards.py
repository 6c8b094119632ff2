"""Dashboards as code: the files are what the list says, and every panel's and alert's query runs on a seeded database."""

import importlib.util
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psycopg
import pytest
from triax_backend.batch import results
from triax_backend.metrics import Account

GRAFANA = Path(__file__).parents[2] / "sim/deploy/grafana"
START = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=30)
DEVICES = [0x0200_0000_0000_0000 + n for n in range(5)]


def load():
    spec = importlib.util.spec_from_file_location("grafana_build", GRAFANA / "build.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["grafana_build"] = module
    spec.loader.exec_module(module)
    return module


build = load()
PANELS = [(uid, one) for uid, (_, panels) in build.DASHBOARDS.items() for one in panels]


def test_files_are_what_the_list_says():
    for path, text in build.files().items():
        assert (GRAFANA / path).read_text() == text, f"{path}: run sim/deploy/grafana/build.py"


def test_panels_have_their_place():
    for uid in build.DASHBOARDS:
        board = json.loads((GRAFANA / f"dashboards/{uid}.json").read_text())
        taken = set()
        for one in board["panels"]:
            at = one["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert at["x"] + at["w"] <= 24
            assert not cells & taken
            taken |= cells
        assert len({one["id"] for one in board["panels"]}) == len(board["panels"])


def test_sources_are_provisioned():
    text = (GRAFANA / "provisioning/datasources/triax.yaml").read_text()
    for source in (build.SQL, build.PROMETHEUS, build.REDIS):
        assert f"uid: {source['uid']}" in text
        assert f"type: {source['type']}" in text


def expand(sql):
    """What Grafana's plugin makes of its macros."""
    begin, end = (f"'{moment.isoformat()}'::timestamptz" for moment in (START, START + timedelta(hours=1)))
    sql = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 BETWEEN {begin} AND {end}", sql)
    sql = sql.replace("$__timeFrom()", begin).replace("$__timeTo()", end).replace("$__interval", "60s")
    return sql.replace("$device", f"{DEVICES[1]:016x}")


@pytest.fixture(scope="module")
def database(stack):
    """The migrations, and rows of every table that a panel reads, in a database of its own."""
    from triax_backend.sinks import schema

    server = stack.settings.postgres
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS dashboards")
        connection.execute("CREATE DATABASE dashboards")
    url = server.rpartition("/")[0] + "/dashboards"
    with psycopg.connect(url, autocommit=True) as connection:
        schema.migrate(connection)
        seed(connection)
        yield connection
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP DATABASE dashboards WITH (FORCE)")


def columns_of(connection, table):
    rows = connection.execute(
        "SELECT column_name, data_type, is_nullable, is_generated FROM information_schema.columns WHERE table_name = %s", [table]
    )
    return [(name, kind) for name, kind, _, generated in rows if generated == "NEVER"]


def insert(connection, table, rows):
    """Rows with the given fields; every other column gets a value of its type."""
    blank = {"boolean": True, "text": "", "bytea": b"", "jsonb": "{}", "ARRAY": [1.0, 2.0, 3.0, 4.0, 5.0]}
    for row in rows:
        whole = {}
        for name, kind in columns_of(connection, table):
            if name in row:
                whole[name] = row[name]
            elif kind.startswith("timestamp"):
                whole[name] = START
            else:
                whole[name] = blank.get(kind, 1)
        names, marks = ", ".join(whole), ", ".join(["%s"] * len(whole))
        connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(whole.values()))


def seed(connection):
    rng = np.random.default_rng(1)
    now = datetime.now(UTC)
    for table in ("features", "events", "frames"):
        connection.execute("SELECT triax_make_room(%s, ARRAY[%s, %s]::timestamptz[])", [table, START, now])
    rows = []
    for number, device in enumerate(DEVICES):
        for minute in range(30):
            for windows in (1, 60):
                row = {"device": device, "time": START + timedelta(minutes=minute), "received": now - timedelta(seconds=10)}
                row |= {"windows": windows, "number": minute * 60, "frames": 9 if minute == 7 else 10 * windows, "samples": 16_000}
                row |= {f"rms_{axis}": float(rng.uniform(0.01, 0.1) * (number + 1)) for axis in "xyz"}
                rows.append(row)
    insert(connection, "features", rows)
    kinds = ("SPIKE", "BEARING", "DEAD_AXIS", "IDENTITY_CONFLICT", "MODEL_REJECTED")
    insert(
        connection,
        "events",
        [
            {"device": d, "kind": k, "time": now, "received": now, "digest": n, "axis": 1}
            for n, (d, k) in enumerate(zip(DEVICES, kinds, strict=True))
        ],
    )
    insert(connection, "devices", [{"device": d, "online": n != 2, "status_time": now} for n, d in enumerate(DEVICES)])
    insert(
        connection, "sink_partitions", [{"sink": "timescale", "topic": "t", "partition": 3, "updated": now - timedelta(minutes=5)}]
    )
    results.create(connection)
    for table in results.TABLES:
        insert(
            connection,
            table,
            [{"device": d, "place": n, "kind": "amplitude", "axis": "x", "time": now} for n, d in enumerate(DEVICES)],
        )


@pytest.mark.servers
@pytest.mark.parametrize(
    ("uid", "one"), [p for p in PANELS if "rawSql" in p[1]["targets"][0]], ids=lambda v: v if isinstance(v, str) else v["title"]
)
def test_every_query_runs_and_says_something(database, uid, one):
    sql = one["targets"][0]["rawSql"]
    cursor = database.execute(expand(sql))
    rows = cursor.fetchall()
    assert rows, sql
    names = [column.name for column in cursor.description]
    if one["targets"][0]["format"] == "time_series":
        assert names[0] == "time"
        times = [row[0] for row in rows]
        assert times == sorted(times)
        assert any(isinstance(value, int | float) for row in rows for value in row[1:]) or any(
            str(value).replace(".", "").isdigit() for row in rows for value in row[1:]
        )
    if one["type"] == "stat":
        assert len(rows) == 1
        assert rows[0][0] is not None


@pytest.mark.servers
@pytest.mark.parametrize("alert", build.ALERTS, ids=lambda alert: alert[0])
def test_every_alert_fires_on_the_seeded_trouble(database, alert):
    _, _, sql, above, _, advice = alert
    rows = database.execute(sql).fetchall()
    assert len(rows) == 1
    assert float(rows[0][0]) > above
    assert advice.endswith(".")


def test_every_expression_names_metrics_that_stages_have():
    from prometheus_client import generate_latest

    account = Account("one")
    account.dead("cause", 1)
    account.lag("topic", 0, 5)
    text = generate_latest(account.registry).decode()
    known = set(re.findall(r"^(triax_\w+?)(?:\{| )", text, re.MULTILINE))
    for _, one in PANELS:
        expression = one["targets"][0].get("expr", "")
        for name in re.findall(r"triax_\w+", expression):
            assert name in known, f"{one['title']}: no stage has {name}"


@pytest.mark.servers
def test_the_redis_panel_asks_what_redis_answers(stack):
    import redis

    client = redis.Redis.from_url(stack.settings.redis)
    for _, one in PANELS:
        target = one["targets"][0]
        if target["datasource"] == build.REDIS:
            assert client.execute_command(target["command"], target["section"])
    client.close()
