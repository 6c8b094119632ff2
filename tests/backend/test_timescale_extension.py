"""The migrations on TimescaleDB itself: the extension in WebAssembly, behind a PostgreSQL socket."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psycopg
import pytest
from triax_backend.frames import Record
from triax_backend.sinks import calibration_rows, schema
from triax_proto.names import CONFIG
from triax_tools.calibrate import apply, compact

from .calibrated import digest, made
from .npm import installed

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]
HERE = Path(__file__).parent / "timescale"
START_S = 60


@pytest.fixture(scope="module")
def timescale():
    """A connection to an empty database with the extension available; it takes one connection at a time."""
    process = subprocess.Popen(
        ["node", "server.mjs"], cwd=installed(HERE), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        port = json.loads(process.stdout.readline())["port"]
        url = f"host=127.0.0.1 port={port} user=postgres password=postgres dbname=postgres sslmode=disable"
        with psycopg.connect(url, autocommit=True) as connection:
            assert schema.migrate(connection) == [f.name for f in sorted(schema.MIGRATIONS.glob("*.sql"))]
            yield connection
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def rows(connection, query, *values):
    return connection.execute(query, values or None).fetchall()


def test_what_the_migrations_make(timescale):
    hypertables = rows(timescale, "SELECT hypertable_name, compression_enabled FROM timescaledb_information.hypertables")
    assert dict(hypertables) | {"frames": True, "features": True, "events": False} == dict(hypertables)
    jobs = rows(timescale, "SELECT proc_name, hypertable_name, config->>'drop_after' FROM timescaledb_information.jobs")
    assert {(p, t) for p, t, _ in jobs} >= {
        ("policy_retention", "frames"),
        ("policy_retention", "features"),
        ("policy_retention", "events"),
        ("policy_compression", "frames"),
        ("policy_compression", "features"),
        ("policy_refresh_continuous_aggregate", "features_1m"),
        ("policy_refresh_continuous_aggregate", "features_1h"),
    }
    assert ("policy_retention", "frames", "90 days") in jobs
    aggregates = rows(timescale, "SELECT view_name FROM timescaledb_information.continuous_aggregates")
    assert {"features_1m", "features_1h"} <= {name for (name,) in aggregates}
    assert schema.migrate(timescale) == [], "each file once"


def insert_run(connection, first, at):
    connection.execute(
        "INSERT INTO frames SELECT %s::timestamptz, %s::timestamptz + interval '0.2 s', now(), -5, 3, %s, 2, 2, true, false,"
        " '{1,2}', '{0,320}', '{320,320}', ARRAY[t, t + 20000], '{9,9}', '{16000,16000}', '{160,160}', '{0.5,0.5}',"
        " '{160,320,480,640}', '{0,0,0,0}', '{1,1,1,1}', '{1,2,3,4,5,6}', '{1,2,3,4,5,6}', '{320,320,320,320,320,320}',"
        " '{0,0}', '{0,0}', '{1,1}', '{21000,-2147483648}'"
        " FROM (SELECT (extract(epoch FROM %s::timestamptz) * 1000000)::bigint AS t) s",
        (at, at, first, at),
    )


def test_rows_read_the_same_from_the_columnstore(timescale):
    insert_run(timescale, 10, "2026-03-01 12:00:00+00")
    insert_run(timescale, 12, "2026-03-01 12:00:01+00")
    query = "SELECT time, id, sequence, value, x_g FROM values_g WHERE device = -5 ORDER BY time"
    before = rows(timescale, query)
    assert [row[1:] for row in before[:4]] == [
        ("fffffffffffffffb", 10, 0, 0.5),
        ("fffffffffffffffb", 10, 1, 1.0),
        ("fffffffffffffffb", 11, 0, 1.5),
        ("fffffffffffffffb", 11, 1, 2.0),
    ]
    assert rows(timescale, "SELECT count(*) FROM (SELECT compress_chunk(c) FROM show_chunks('frames') c) s") == [(1,)]
    assert rows(timescale, query) == before
    insert_run(timescale, 14, "2026-03-01 12:00:02+00")  # late, into the columnstore
    assert len(rows(timescale, query)) == len(before) + 4


def test_calibrated_rows_read_the_same_from_the_columnstore(timescale):
    device, day = 2**64 - 5, datetime(2026, 3, 2, 12, tzinfo=UTC)
    insert_run(timescale, 20, day.isoformat())
    calibration = made(device, scale_g=0.5, created=day - timedelta(days=1))
    pushed = Record(CONFIG, 0, 0, int(day.timestamp() * 1e6), compact.encode(calibration), f"{device:016x}/calibration".encode())
    timescale.execute(calibration_rows.PUT, calibration_rows.calibration(pushed))
    counts = np.array([[1, 0, 1 / 160], [2, 0, 1 / 160], [3, 0, 1 / 160], [4, 0, 1 / 160]])
    exact, flags = apply.calibrate_counts(calibration, counts, np.array([21.0, 21.0, np.nan, np.nan]))
    query = (
        "SELECT x_g, y_g, z_g, calibration_flags, hash FROM values_calibrated WHERE device = -5 AND sequence >= 20 ORDER BY time"
    )
    for _ in ("in rows", "in columns"):
        found = rows(timescale, query)
        assert np.array([row[:3] for row in found]) == pytest.approx(exact, rel=1e-9, abs=1e-9)
        assert [row[3:] for row in found] == [(flag, bytes.fromhex(digest(calibration))) for flag in flags]
        assert rows(timescale, "SELECT calibration_flags FROM frames_calibrated WHERE sequence >= 20 ORDER BY time") == [(1,), (5,)]
        rows(timescale, "SELECT compress_chunk(c, if_not_compressed => true) FROM show_chunks('frames') c")


def feature(connection, second, mean, samples, rms, number):
    connection.execute(
        "INSERT INTO features (time, received, device, boot, number, windows, own_clock, frames, samples, glitches, flags,"
        " lost_samples, mean_x, rms_x, peak_x, minimum_x, maximum_x)"
        " VALUES (timestamptz '2026-03-01 12:00:00+00' + %s * interval '1 s', now(), 5, 1, %s, 1, true, 10, %s, 1, 2, 0,"
        " %s, %s, %s, -1, 1)",
        (second, number, samples, mean, rms, 3 * rms),
    )


def test_continuous_aggregates_weigh_by_samples(timescale):
    for second, mean, samples, rms, number in ((0, 1.0, 100, 1.0, 0), (1, 4.0, 200, 2.0, 1), (70, 7.0, 100, 3.0, 7)):
        feature(timescale, second, mean, samples, rms, number)
    timescale.execute("CALL refresh_continuous_aggregate('features_1m', '2026-03-01', '2026-03-02')")
    timescale.execute("CALL refresh_continuous_aggregate('features_1h', '2026-03-01', '2026-03-02')")
    found = rows(
        timescale, "SELECT bucket::text, frames, glitches, mean_x, rms_x, peak_x FROM features_1m WHERE device = 5 ORDER BY 1"
    )
    assert [row[1:3] for row in found] == [(20, 2), (10, 1)]
    assert found[0][3:] == pytest.approx((3.0, 3**0.5, 6.0))
    hourly = rows(timescale, "SELECT frames, mean_x FROM features_1h WHERE device = 5")
    assert hourly == [(30, pytest.approx(4.0))]


def test_room_and_old_rows_are_the_extensions_business(timescale):
    assert rows(timescale, "SELECT triax_has_timescale()") == [(True,)]
    timescale.execute("SELECT triax_make_room('frames', ARRAY[now()])")
    assert rows(timescale, "SELECT triax_drop_old()") == [(0,)]
