-- Frames as runs: what one flush (about 1 s) holds of one device and boot, consecutive, 1 to 10 frames of `per_axis` values each.
-- Arrays have one element per frame (x, y, z: per_axis of them; minimum, maximum, sum_squares: x, y, z), so that each frame can be
-- encoded again to its checksum. Unsigned fields are stored in signed types with the same bits.
SELECT triax_create_over_time('frames', $$
    time timestamptz NOT NULL,       -- event time of the first frame
    time_end timestamptz NOT NULL,   -- end of the last frame
    received timestamptz NOT NULL,   -- when the last frame came in
    device bigint NOT NULL,          -- EUI-64
    boot bigint NOT NULL,
    first_sequence bigint NOT NULL,
    frames smallint NOT NULL,
    per_axis smallint NOT NULL,
    own_clock boolean NOT NULL,      -- false: time is receive time, the node's clock could not be trusted
    doubtful boolean NOT NULL,       -- true: a repeat of what has been forgotten cannot be excluded
    checksum integer[] NOT NULL,
    first_sample bigint[] NOT NULL,
    samples integer[] NOT NULL,
    time_us bigint[] NOT NULL,
    time_error_us integer[] NOT NULL,
    rate_hz real[] NOT NULL,
    decimation integer[] NOT NULL,
    scale_g real[] NOT NULL,
    x integer[] NOT NULL,
    y integer[] NOT NULL,
    z integer[] NOT NULL,
    minimum integer[] NOT NULL,
    maximum integer[] NOT NULL,
    sum_squares bigint[] NOT NULL,
    lost_samples integer[] NOT NULL,
    flags integer[] NOT NULL,
    config integer[] NOT NULL,
    temperature_mc integer[] NOT NULL,
    original bytea                   -- wire bytes of a frame of another shape, alone in its run
$$, interval '1 day', interval '90 days');
SELECT triax_tune('frames', 'frames') WHERE triax_has_timescale();

-- "Device X from t0 to t1". A run covers at most a minute, so: time < t1 AND time > t0 - interval '1 minute' AND time_end > t0.
CREATE INDEX frames_device_time ON frames (device, time);
-- "Is this frame there?": asked for frames whose checksum the sink has forgotten.
CREATE INDEX frames_identity ON frames (device, boot, first_sequence);

-- What each sink has written of each Kafka partition, in the transaction that wrote it. `seen`: see triax_backend/dedup.py.
CREATE TABLE sink_partitions (
    sink text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    seen bytea NOT NULL DEFAULT '',
    updated timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sink, topic, partition)
);
-- Rewritten every second: checksums do not compress, and the dead versions must go quickly.
ALTER TABLE sink_partitions ALTER COLUMN seen SET STORAGE EXTERNAL;
ALTER TABLE sink_partitions SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500,
    toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 10000
);
