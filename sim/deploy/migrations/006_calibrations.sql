-- Calibrations as they were pushed, and frames and values in calibrated g with the hash used. Counts stay what they are.

-- One row per change of what is to be applied; a row is in force from `since` until the next one of its device and full scale.
-- `since` is the document's date, so that what was measured before the push and after the calibration has it too; where that is not
-- later than what was in force already (an older one is pushed again), it is the time it came. To apply one to older data:
--   UPDATE calibrations SET since = '2026-01-01 00:00:00+00' WHERE device = .. AND hash = ..;
CREATE TABLE calibrations (
    device bigint NOT NULL,
    since timestamptz NOT NULL,
    received timestamptz NOT NULL,
    hash bytea,                           -- SHA-256 of `blob`, as the node echoes it; NULL: withdrawn, uncalibrated from here on
    part text,
    sensor_serial text,                   -- hex; empty: the part has none
    scale_g real,                         -- g per raw count of the full scale it was made in
    expires timestamptz,
    offset_count double precision[],      -- b: x, y, z in raw counts
    matrix double precision[],            -- U by rows, g per count
    sensitivity double precision[],       -- of each axis alone, counts per g: lengths of the rows of U's inverse
    reference_c double precision,
    low_c double precision,               -- measured between low_c and high_c; outside the nearer end is used
    high_c double precision,
    offset_terms double precision[],      -- counts / C, x, y, z, then counts / C^2, ..
    gain_terms double precision[],        -- relative / C, ..
    document jsonb,
    blob bytea,                           -- as pushed
    PRIMARY KEY (device, since)
);

-- Which sensor a node carried, from which boot on. A calibration is of one sensor: for the frames of another it is NOT VALID.
CREATE TABLE sensors (
    device bigint NOT NULL,
    boot bigint NOT NULL,                 -- 0: also before what is known
    part text NOT NULL,
    serial text NOT NULL,                 -- hex; empty: the part has none
    PRIMARY KEY (device, boot)
);
INSERT INTO sensors
SELECT device, 0, coalesce(part, ''), coalesce(encode(decode(info->>'sensor_serial', 'base64'), 'hex'), '')
FROM devices WHERE info IS NOT NULL;

-- Change of offset or gain of an axis (1 to 3) at `warm` degrees from the reference, at most third order. One expression, so that
-- the planner puts it in place of the call.
CREATE FUNCTION triax_terms(terms double precision[], axis integer, warm double precision) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT ((coalesce(terms[axis + 6], 0) * warm + coalesce(terms[axis + 3], 0)) * warm + coalesce(terms[axis], 0)) * warm $$;

-- Frames with the calibration in force: the one with the latest `since` that is not after the frame, of the same full scale (to
-- 0.5 %: a nominal scale is written with three digits). `hash` is NULL where none is, or it is NOT VALID. calibration_flags:
--   1 minimum, maximum, rms take offset and own-axis sensitivity only     2 temperature outside the range, its nearer end was used
--   4 temperature terms, but none measured: the reference was taken       8 rms: samples in no whole window, their mean was assumed
--   16 expired before this frame                                          32 NOT VALID: of another sensor; values are uncalibrated
CREATE VIEW frames_in_force AS
SELECT f.*, v.hash,
       CASE WHEN v.hash IS NOT NULL
            THEN 1 + CASE WHEN NOT w.any_terms THEN 0 WHEN f.temperature_c IS NULL THEN 4 WHEN w.inside <> f.temperature_c THEN 2 ELSE 0 END
                 + CASE WHEN f.samples <> cardinality(f.x) * f.decimation THEN 8 ELSE 0 END
                 + CASE WHEN f.time > c.expires THEN 16 ELSE 0 END
            WHEN c.hash IS NOT NULL THEN 32 ELSE 0 END AS calibration_flags,
       CASE WHEN v.hash IS NOT NULL THEN c.matrix END AS matrix,
       c.sensitivity[1] * t.stretch_x AS sensitivity_x, c.sensitivity[2] * t.stretch_y AS sensitivity_y,
       c.sensitivity[3] * t.stretch_z AS sensitivity_z,
       t.zero_x, t.zero_y, t.zero_z, t.stretch_x, t.stretch_y, t.stretch_z
FROM frames_each f
LEFT JOIN LATERAL (
    SELECT * FROM calibrations k
    WHERE k.device = f.device AND k.since <= f.time AND (k.hash IS NULL OR abs(k.scale_g - f.scale_g) <= 0.005 * f.scale_g)
    ORDER BY k.since DESC LIMIT 1
) c ON true
LEFT JOIN LATERAL (
    SELECT * FROM sensors n WHERE n.device = f.device AND n.boot <= f.boot ORDER BY n.boot DESC LIMIT 1
) s ON true
CROSS JOIN LATERAL (
    SELECT CASE WHEN s.device IS NULL OR s.serial = c.sensor_serial AND (s.part = c.part OR s.part = '' OR c.part = '') THEN c.hash END AS hash
) v
CROSS JOIN LATERAL (
    SELECT inside, coalesce(inside - c.reference_c, 0) AS warm, cardinality(c.offset_terms) + cardinality(c.gain_terms) > 0 AS any_terms
    FROM (SELECT least(greatest(coalesce(f.temperature_c, c.reference_c), c.low_c), c.high_c)::double precision AS inside) i
    OFFSET 0  -- once a frame: otherwise it is worked out again for every column and value that uses it
) w
CROSS JOIN LATERAL (
    SELECT c.offset_count[1] + triax_terms(c.offset_terms, 1, w.warm) AS zero_x, 1 + triax_terms(c.gain_terms, 1, w.warm) AS stretch_x,
           c.offset_count[2] + triax_terms(c.offset_terms, 2, w.warm) AS zero_y, 1 + triax_terms(c.gain_terms, 2, w.warm) AS stretch_y,
           c.offset_count[3] + triax_terms(c.offset_terms, 3, w.warm) AS zero_z, 1 + triax_terms(c.gain_terms, 3, w.warm) AS stretch_z
    OFFSET 0
) t;

-- Minimum, maximum and rms (about zero, at the raw rate: gravity is in it) in calibrated g.
CREATE VIEW frames_calibrated AS
SELECT f.time, f.received, f.device, f.id, f.boot, f.sequence, f.own_clock, f.run_time, f.run_end, f.samples, f.rate_hz, f.flags,
       f.temperature_c, f.hash, f.calibration_flags,
       CASE WHEN f.hash IS NULL THEN f.minimum_x_g ELSE (f.minimum_x_g / f.scale_g - f.zero_x) / f.sensitivity_x END AS minimum_x_g,
       CASE WHEN f.hash IS NULL THEN f.minimum_y_g ELSE (f.minimum_y_g / f.scale_g - f.zero_y) / f.sensitivity_y END AS minimum_y_g,
       CASE WHEN f.hash IS NULL THEN f.minimum_z_g ELSE (f.minimum_z_g / f.scale_g - f.zero_z) / f.sensitivity_z END AS minimum_z_g,
       CASE WHEN f.hash IS NULL THEN f.maximum_x_g ELSE (f.maximum_x_g / f.scale_g - f.zero_x) / f.sensitivity_x END AS maximum_x_g,
       CASE WHEN f.hash IS NULL THEN f.maximum_y_g ELSE (f.maximum_y_g / f.scale_g - f.zero_y) / f.sensitivity_y END AS maximum_y_g,
       CASE WHEN f.hash IS NULL THEN f.maximum_z_g ELSE (f.maximum_z_g / f.scale_g - f.zero_z) / f.sensitivity_z END AS maximum_z_g,
       -- mean (m - b)^2 = mean m^2 - 2 b mean m + b^2
       CASE WHEN f.hash IS NULL THEN f.rms_x_g
            ELSE sqrt(greatest((f.rms_x_g / f.scale_g) ^ 2 - 2 * f.zero_x * m.x + f.zero_x ^ 2, 0)) / f.sensitivity_x END AS rms_x_g,
       CASE WHEN f.hash IS NULL THEN f.rms_y_g
            ELSE sqrt(greatest((f.rms_y_g / f.scale_g) ^ 2 - 2 * f.zero_y * m.y + f.zero_y ^ 2, 0)) / f.sensitivity_y END AS rms_y_g,
       CASE WHEN f.hash IS NULL THEN f.rms_z_g
            ELSE sqrt(greatest((f.rms_z_g / f.scale_g) ^ 2 - 2 * f.zero_z * m.z + f.zero_z ^ 2, 0)) / f.sensitivity_z END AS rms_z_g
FROM frames_in_force f
CROSS JOIN LATERAL (
    SELECT (SELECT avg(v) FROM unnest(f.x) AS v)::double precision / nullif(f.decimation, 0) AS x,
           (SELECT avg(v) FROM unnest(f.y) AS v)::double precision / nullif(f.decimation, 0) AS y,
           (SELECT avg(v) FROM unnest(f.z) AS v)::double precision / nullif(f.decimation, 0) AS z
) m;

-- One row per value in calibrated g: full matrix and temperature terms. Times as in values_g.
CREATE VIEW values_calibrated AS
SELECT f.time + ((k - 1) * f.decimation + (f.decimation - 1) / 2.0) / nullif(f.rate_hz, 0)::double precision * interval '1 second' AS time,
       f.device, f.id, f.boot, f.sequence, k - 1 AS value, f.run_time, f.run_end, f.hash,
       f.calibration_flags & (2 + 4 + 16 + 32) AS calibration_flags,
       CASE WHEN f.hash IS NULL THEN f.x[k]::double precision * f.scale_g / f.decimation
            ELSE f.matrix[1] * c.x + f.matrix[2] * c.y + f.matrix[3] * c.z END AS x_g,
       CASE WHEN f.hash IS NULL THEN f.y[k]::double precision * f.scale_g / f.decimation
            ELSE f.matrix[4] * c.x + f.matrix[5] * c.y + f.matrix[6] * c.z END AS y_g,
       CASE WHEN f.hash IS NULL THEN f.z[k]::double precision * f.scale_g / f.decimation
            ELSE f.matrix[7] * c.x + f.matrix[8] * c.y + f.matrix[9] * c.z END AS z_g
FROM frames_in_force f CROSS JOIN LATERAL generate_subscripts(f.x, 1) AS k
CROSS JOIN LATERAL (
    SELECT (f.x[k]::double precision / nullif(f.decimation, 0) - f.zero_x) / f.stretch_x AS x,
           (f.y[k]::double precision / nullif(f.decimation, 0) - f.zero_y) / f.stretch_y AS y,
           (f.z[k]::double precision / nullif(f.decimation, 0) - f.zero_z) / f.stretch_z AS z
) c
WHERE f.decimation > 0;
