-- One row per window of ten consecutive frames (windows = 1), and of 10 and 60 such windows. Unit g.
SELECT triax_create_over_time('features', $$
    time timestamptz NOT NULL,       -- of the first frame present
    received timestamptz NOT NULL,
    device bigint NOT NULL,
    boot bigint NOT NULL,
    number bigint NOT NULL,          -- of the last window covered: sequence // 10 of its frames
    windows smallint NOT NULL,
    own_clock boolean NOT NULL,      -- false: time is receive time
    frames integer NOT NULL,
    samples bigint NOT NULL,
    mean_x real, mean_y real, mean_z real,
    rms_x real, rms_y real, rms_z real,
    peak_x real, peak_y real, peak_z real,
    crest_x real, crest_y real, crest_z real,
    minimum_x real, minimum_y real, minimum_z real,
    maximum_x real, maximum_y real, maximum_z real,
    glitches integer NOT NULL,
    spike_score real,
    score real,                      -- of the model, NULL without one
    model text,
    flags bigint NOT NULL,
    temperature_c real,
    rate_hz real,
    lost_samples bigint NOT NULL
$$, interval '7 days', interval '2 years');
CREATE INDEX features_device_time ON features (device, time);
CREATE INDEX features_identity ON features (device, boot, windows, number);

-- What happened: on nodes (gaps, clock fixes), in the stream (spikes, shifts), at the sinks (identity conflicts).
SELECT triax_create_over_time('events', $$
    time timestamptz NOT NULL,
    received timestamptz NOT NULL,
    device bigint NOT NULL,
    boot bigint NOT NULL,
    kind text NOT NULL,
    number bigint NOT NULL,
    own_clock boolean NOT NULL,
    axis smallint,
    score real,
    detail jsonb NOT NULL,
    message bytea NOT NULL,          -- the Event as it came
    digest bigint NOT NULL           -- of `message`: an event sent twice is one row
$$, interval '30 days', interval '2 years');
CREATE INDEX events_device_time ON events (device, time);
CREATE INDEX events_kind_time ON events (kind, time);
CREATE INDEX events_digest ON events (digest);

-- The newest of each kind that a device said of itself.
CREATE TABLE devices (
    device bigint PRIMARY KEY,
    id text GENERATED ALWAYS AS (lpad(to_hex(device), 16, '0')) STORED,
    boot bigint,
    online boolean,
    status_time timestamptz,
    part text,
    board text,
    firmware text,
    info jsonb,
    info_message bytea,
    info_received timestamptz,
    status jsonb,
    status_received timestamptz,
    config_ack jsonb,
    config_ack_received timestamptz
);
