"""Goal J2 from a real database: rests of a fleet out of its minute features."""

from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg
import pytest
from triax_backend.servers.postgres import Postgres
from triax_backend.settings import Settings
from triax_backend.sinks.schema import migrate
from triax_tools.calibrate import drift, fleet_rests
from triax_tools.calibrate.errors import BadInput, DeviceError

START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 20
COLUMNS = (
    "time, received, device, boot, number, windows, own_clock, frames, samples, mean_x, mean_y, mean_z, rms_x, rms_y, rms_z, "
    "glitches, flags, temperature_c, lost_samples"
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    server = Postgres(tmp_path_factory.mktemp("postgres"))
    server.start()
    try:
        server.wait_ready()
        with psycopg.connect(server.url) as connection:
            migrate(connection)
        yield Settings(postgres=server.url)
    finally:
        server.stop()


def minutes_of(device, rng, drifted):
    """Three minutes an hour: a machine that runs by day, stands at night; gravity on z, offset with temperature."""
    for hour in range(24 * DAYS):
        for minute in (0, 20, 40):
            at = START + timedelta(hours=hour, minutes=minute)
            runs = 6 <= at.hour < 20
            warm = 25 + 10 * np.sin(2 * np.pi * hour / 24) + rng.normal(0, 0.2)
            up = 1.0 + 0.3e-3 * (warm - 25) + (5e-3 if drifted and hour > 12 * DAYS else 0.0)
            mean = np.array([0.01, -0.02, up]) + rng.normal(0, 30e-6 if not runs else 2e-3, 3)
            rms = 1e-3 * (1 + 0.05 * rng.random(3)) if not runs else rng.uniform(0.1, 0.5, 3)
            yield (at, at, device, 1, hour * 60 + minute, 60, True, 600, 960_000, *mean, *rms, 0, 0, warm, 0)


@pytest.mark.servers
def test_j2_from_the_database(settings):
    rng = np.random.default_rng(1)
    with psycopg.connect(settings.postgres) as connection:
        days = [START + timedelta(days=day) for day in range(DAYS + 1)]
        connection.execute("SELECT triax_make_room('features', %s)", (days,))
        with connection.cursor().copy(f"COPY features ({COLUMNS}) FROM STDIN") as copy:
            for device in range(12):
                for row in minutes_of(device + 1, rng, device in (3, 7)):
                    copy.write_row([v.item() if isinstance(v, np.generic) else v for v in row])
    rests = dict(fleet_rests.from_database(settings, START, START + timedelta(days=DAYS), 6 * 3600))
    assert len(rests) == 12
    time, warm, g = rests["0000000000000004"]
    assert np.ptp(warm) > 10
    hours = (time / 3600) % 24
    assert ((hours < 6) | (hours >= 20)).all(), "a running machine is no rest"
    assert len(g) >= DAYS
    found = {d.device: d.verdict for d in drift.fleet(rests)}
    assert found == {f"{d + 1:016x}": "drift" if d in (3, 7) else "steady" for d in range(12)}


@pytest.mark.servers
def test_an_empty_time_is_no_device(settings):
    assert list(fleet_rests.from_database(settings, START - timedelta(days=9), START - timedelta(days=8), 3600)) == []


def test_no_database():
    with pytest.raises(DeviceError, match="TRIAX_POSTGRES says where"):
        list(fleet_rests.from_database(Settings(postgres="postgresql://x@127.0.0.1:1/x?connect_timeout=2"), START, START, 3600))


@pytest.mark.parametrize(
    ("text", "match"),
    [("", "want the columns"), ("a,b\n1,2\n", "want the columns"), (",".join(fleet_rests._COLUMNS), "holds no rests")],
)
def test_bad_tables(tmp_path, text, match):
    path = tmp_path / "rests.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=match):
        fleet_rests.from_table(path)
