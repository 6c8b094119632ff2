-- Frames and values in g. Uncalibrated: calibration is applied by whoever reads (triax_backend/read.py).

-- Unsigned 32 bits out of a signed integer with the same bits.
CREATE FUNCTION triax_unsigned(value integer) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT value::bigint & 4294967295 $$;

-- UTC of microseconds since 1970, exact (to_timestamp goes through floating point).
CREATE FUNCTION triax_utc(us bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT timestamptz '1970-01-01 00:00:00+00' + us * interval '1 microsecond' $$;

-- One row per frame. A row whose clock could not be trusted keeps the node's spacing, from the receive time of its first frame.
CREATE VIEW frames_each AS
SELECT CASE WHEN r.own_clock THEN triax_utc(r.time_us[i]) ELSE r.time + (r.time_us[i] - r.time_us[1]) * interval '1 microsecond' END AS time,
       r.received, r.device, lpad(to_hex(r.device), 16, '0') AS id, r.boot, r.first_sequence + i - 1 AS sequence,
       r.own_clock, r.doubtful, r.time AS run_time, r.time_end AS run_end,
       triax_unsigned(r.checksum[i]) AS checksum, r.first_sample[i] AS first_sample, triax_unsigned(r.samples[i]) AS samples,
       r.time_us[i] AS time_us, triax_unsigned(r.time_error_us[i]) AS time_error_us, r.rate_hz[i] AS rate_hz,
       triax_unsigned(r.decimation[i]) AS decimation, r.scale_g[i] AS scale_g,
       r.x[(i - 1) * r.per_axis + 1 : i * r.per_axis] AS x,
       r.y[(i - 1) * r.per_axis + 1 : i * r.per_axis] AS y,
       r.z[(i - 1) * r.per_axis + 1 : i * r.per_axis] AS z,
       r.minimum[3 * i - 2] * r.scale_g[i] AS minimum_x_g, r.minimum[3 * i - 1] * r.scale_g[i] AS minimum_y_g, r.minimum[3 * i] * r.scale_g[i] AS minimum_z_g,
       r.maximum[3 * i - 2] * r.scale_g[i] AS maximum_x_g, r.maximum[3 * i - 1] * r.scale_g[i] AS maximum_y_g, r.maximum[3 * i] * r.scale_g[i] AS maximum_z_g,
       -- about zero, at the raw rate: gravity is in it
       sqrt(r.sum_squares[3 * i - 2]::double precision / nullif(triax_unsigned(r.samples[i]), 0)) * r.scale_g[i] AS rms_x_g,
       sqrt(r.sum_squares[3 * i - 1]::double precision / nullif(triax_unsigned(r.samples[i]), 0)) * r.scale_g[i] AS rms_y_g,
       sqrt(r.sum_squares[3 * i]::double precision / nullif(triax_unsigned(r.samples[i]), 0)) * r.scale_g[i] AS rms_z_g,
       triax_unsigned(r.lost_samples[i]) AS lost_samples, triax_unsigned(r.flags[i]) AS flags, triax_unsigned(r.config[i]) AS config,
       CASE WHEN r.temperature_mc[i] <> -2147483648 THEN r.temperature_mc[i] / 1000.0 END AS temperature_c
FROM frames r CROSS JOIN LATERAL generate_series(1, r.frames) AS i;

-- One row per value. Value k (from 0) of a frame is centred k * decimation + (decimation - 1) / 2 samples after its first.
CREATE VIEW values_g AS
SELECT f.time + ((k - 1) * f.decimation + (f.decimation - 1) / 2.0) / nullif(f.rate_hz, 0)::double precision * interval '1 second' AS time,
       f.device, f.id, f.boot, f.sequence, k - 1 AS value, f.run_time, f.run_end,
       f.x[k]::double precision * f.scale_g / f.decimation AS x_g,
       f.y[k]::double precision * f.scale_g / f.decimation AS y_g,
       f.z[k]::double precision * f.scale_g / f.decimation AS z_g
FROM frames_each f CROSS JOIN LATERAL generate_subscripts(f.x, 1) AS k
WHERE f.decimation > 0;
