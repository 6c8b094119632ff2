-- Columnstore and continuous aggregates where TimescaleDB is; ordinary views of the same names and columns where it is not.

DO $$
BEGIN
    IF NOT triax_has_timescale() THEN
        RETURN;
    END IF;
    -- Two days: nearly all late frames have come by then, and inserting into the columnstore is slow, not wrong.
    ALTER TABLE frames SET (
        timescaledb.compress, timescaledb.compress_segmentby = 'device', timescaledb.compress_orderby = 'time DESC, first_sequence DESC'
    );
    PERFORM add_compression_policy('frames', INTERVAL '2 days');
    ALTER TABLE features SET (
        timescaledb.compress, timescaledb.compress_segmentby = 'device', timescaledb.compress_orderby = 'time DESC, windows, number DESC'
    );
    PERFORM add_compression_policy('features', INTERVAL '14 days');
END $$;

-- The feature rows of one window summed up over a bucket: mean weighted by samples, rms as the root of the mean square.
CREATE FUNCTION triax_feature_view(name text, bucket interval) RETURNS void LANGUAGE plpgsql AS
$$
DECLARE
    aggregates text := '';
    axis text;
    bucketed text;
    body text;
BEGIN
    FOREACH axis IN ARRAY ARRAY['x', 'y', 'z'] LOOP
        aggregates := aggregates || format(
            ', (sum(mean_%1$s::double precision * samples) / sum(samples))::real AS mean_%1$s'
            ', sqrt(sum(rms_%1$s::double precision ^ 2 * samples) / sum(samples))::real AS rms_%1$s'
            ', max(peak_%1$s) AS peak_%1$s, max(crest_%1$s) AS crest_%1$s'
            ', min(minimum_%1$s) AS minimum_%1$s, max(maximum_%1$s) AS maximum_%1$s', axis);
    END LOOP;
    bucketed := CASE WHEN triax_has_timescale() THEN format('time_bucket(%L::interval, time)', bucket)
                     ELSE format('date_bin(%L::interval, time, %L::timestamptz)', bucket, '2000-01-03 00:00:00+00') END;
    body := format(
        'SELECT %s AS bucket, device, sum(frames)::bigint AS frames, sum(samples)::bigint AS samples, sum(glitches)::bigint AS glitches, '
        'max(score) AS score, bit_or(flags) AS flags, avg(temperature_c)::real AS temperature_c%s '
        'FROM features WHERE windows = 1 AND samples > 0 GROUP BY 1, 2', bucketed, aggregates);
    IF triax_has_timescale() THEN
        EXECUTE format('CREATE MATERIALIZED VIEW %I WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS %s WITH NO DATA', name, body);
    ELSE
        EXECUTE format('CREATE VIEW %I AS %s', name, body);
    END IF;
END $$;
SELECT triax_feature_view('features_1m', interval '1 minute');
SELECT triax_feature_view('features_1h', interval '1 hour');

DO $$
BEGIN
    IF triax_has_timescale() THEN
        -- Start reaches over the 30 days that a late frame may be old; end leaves a bucket for what is still coming.
        PERFORM add_continuous_aggregate_policy('features_1m',
            start_offset => INTERVAL '31 days', end_offset => INTERVAL '2 minutes', schedule_interval => INTERVAL '1 minute');
        PERFORM add_continuous_aggregate_policy('features_1h',
            start_offset => INTERVAL '31 days', end_offset => INTERVAL '2 hours', schedule_interval => INTERVAL '10 minutes');
    END IF;
END $$;
