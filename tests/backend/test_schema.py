"""The same migrations on plain PostgreSQL, and a folder that changed under them."""

import psycopg
import pytest
from triax_backend.sinks import schema

from .sinks import Place

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


@pytest.fixture
def connection(stack, tmp_path):
    own = Place(stack.settings, tmp_path)
    with psycopg.connect(own.settings.postgres, autocommit=True) as found:
        yield found


def test_native_partitions_are_made_when_needed_and_dropped_when_old(connection):
    schema.migrate(connection)
    assert connection.execute("SELECT triax_has_timescale()").fetchone() == (False,)
    room = "SELECT triax_make_room('frames', ARRAY['2026-03-01 23:59:59+00', '2026-03-02 00:00:00+00']::timestamptz[])"
    connection.execute(room)
    connection.execute(room)
    parts = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'frames'::regclass ORDER BY 1"
    assert connection.execute(parts).fetchall() == [("frames_20260301",), ("frames_20260302",)]
    options = "SELECT reloptions FROM pg_class WHERE relname = 'frames_20260301'"
    assert connection.execute(options).fetchone() == (["toast_tuple_target=8160"],)
    assert connection.execute("SELECT triax_drop_old('2026-05-30 12:00:00+00')").fetchone() == (0,)
    assert connection.execute("SELECT triax_drop_old('2026-05-31 12:00:00+00')").fetchone() == (1,)
    assert connection.execute(parts).fetchall() == [("frames_20260302",)]


def test_ordinary_views_have_the_aggregates_columns(connection):
    schema.migrate(connection)
    connection.execute("SELECT triax_make_room('features', ARRAY[timestamptz '2026-03-01 12:00:00+00'])")
    for second, mean, samples, number in ((0, 1.0, 100, 0), (1, 4.0, 200, 1), (70, 7.0, 100, 7)):
        connection.execute(
            "INSERT INTO features (time, received, device, boot, number, windows, own_clock, frames, samples, glitches, flags,"
            " lost_samples, mean_x, rms_x) VALUES (timestamptz '2026-03-01 12:00:00+00' + %s * interval '1 s', now(), 5, 1, %s, 1,"
            " true, 10, %s, 1, 2, 0, %s, %s)",
            (second, number, samples, mean, mean),
        )
    found = connection.execute("SELECT bucket, frames, mean_x, rms_x FROM features_1m ORDER BY 1").fetchall()
    assert [row[1:] for row in found] == [(20, 3.0, pytest.approx(11**0.5)), (10, 7.0, 7.0)]
    assert connection.execute("SELECT frames, samples FROM features_1h").fetchall() == [(30, 400)]


def test_a_file_that_changed_after_it_was_applied_is_refused(connection, tmp_path):
    (tmp_path / "001_one.sql").write_text("CREATE TABLE one (a int)")
    assert schema.migrate(connection, tmp_path) == ["001_one.sql"]
    (tmp_path / "002_two.sql").write_text("CREATE TABLE two (a int); CREATE TABLE two (a int)")
    with pytest.raises(psycopg.errors.DuplicateTable):
        schema.migrate(connection, tmp_path)
    assert connection.execute("SELECT to_regclass('two')").fetchone() == (None,), "a file is applied whole or not at all"
    (tmp_path / "001_one.sql").write_text("CREATE TABLE one (b int)")
    with pytest.raises(schema.SchemaChanged, match="001_one"):
        schema.migrate(connection, tmp_path)


def test_no_files_is_an_error(connection, tmp_path):
    with pytest.raises(FileNotFoundError, match="no migrations in"):
        schema.migrate(connection, tmp_path / "nowhere")
