-- One way to make a table over time, whatever the server has: a hypertable where the timescaledb extension can be had, else native
-- partitions by range. The same files run on both.

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb') THEN
        CREATE EXTENSION IF NOT EXISTS timescaledb;
    END IF;
END $$;

CREATE FUNCTION triax_has_timescale() RETURNS boolean LANGUAGE sql STABLE AS
$$ SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') $$;

-- Tables over time: `step` is the length of a chunk or partition, `keep` how long rows stay (NULL: for ever).
CREATE TABLE triax_over_time (
    name text PRIMARY KEY,
    step interval NOT NULL,
    keep interval
);

-- CREATE TABLE name (columns), cut along its column `time`.
CREATE FUNCTION triax_create_over_time(name text, columns text, step interval, keep interval) RETURNS void LANGUAGE plpgsql AS
$$
BEGIN
    INSERT INTO triax_over_time VALUES (name, step, keep);
    IF triax_has_timescale() THEN
        EXECUTE format('CREATE TABLE %I (%s)', name, columns);
        PERFORM create_hypertable(name::regclass, 'time', chunk_time_interval => step, create_default_indexes => false);
        IF keep IS NOT NULL THEN
            PERFORM add_retention_policy(name::regclass, keep);
        END IF;
    ELSE
        EXECUTE format('CREATE TABLE %I (%s) PARTITION BY RANGE (time)', name, columns);
    END IF;
END $$;

-- Make room for rows of these times; a sink calls it before its first row of a new day. Nothing to do for hypertables.
CREATE FUNCTION triax_make_room(over_time text, times timestamptz[]) RETURNS void LANGUAGE plpgsql AS
$$
DECLARE
    step interval;
    start timestamptz;
    part text;
BEGIN
    IF triax_has_timescale() THEN
        RETURN;
    END IF;
    SELECT t.step INTO STRICT step FROM triax_over_time t WHERE t.name = over_time;
    PERFORM pg_advisory_xact_lock(hashtext('triax_make_room'));
    FOR start IN SELECT DISTINCT date_bin(step, t, '2000-01-01 00:00:00+00') FROM unnest(times) AS t ORDER BY 1 LOOP
        part := format('%s_%s', over_time, to_char(start AT TIME ZONE 'UTC', 'YYYYMMDD'));
        IF to_regclass(quote_ident(part)) IS NULL THEN
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)', part, over_time, start, start + step);
            PERFORM triax_tune(part, over_time);
        END IF;
    END LOOP;
END $$;

-- Storage settings, which a partition does not inherit from its table.
CREATE FUNCTION triax_tune(part text, over_time text) RETURNS void LANGUAGE plpgsql AS
$$
BEGIN
    -- A row of `frames` is 2.7 kB of numbers that no general compressor makes smaller; without this each is tried and moved aside.
    IF over_time = 'frames' THEN
        EXECUTE format('ALTER TABLE %I SET (toast_tuple_target = 8160)', part);
    END IF;
END $$;

-- Drop what is older than its table keeps. Called once a day by whoever likes; hypertables have a policy of their own.
CREATE FUNCTION triax_drop_old(at timestamptz DEFAULT now()) RETURNS integer LANGUAGE plpgsql AS
$$
DECLARE
    old record;
    dropped integer := 0;
BEGIN
    IF triax_has_timescale() THEN
        RETURN 0;
    END IF;
    FOR old IN
        SELECT i.inhrelid::regclass AS part
        FROM triax_over_time t
        JOIN pg_inherits i ON i.inhparent = to_regclass(quote_ident(t.name))
        JOIN pg_class c ON c.oid = i.inhrelid
        WHERE t.keep IS NOT NULL
          AND to_timestamp(right(c.relname, 8) || ' UTC', 'YYYYMMDD TZ') + t.step < at - t.keep
    LOOP
        EXECUTE format('DROP TABLE %s', old.part);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END $$;
