"""The messages of a node, as tables for triax.wire: proto/triax/v1/device.proto and event.proto, held equal by a test."""

from triax.wire import (
    BOOL,
    BYTES,
    FIXED32,
    FIXED64,
    FLOAT,
    FLOATS,
    OPTIONAL,
    SFIXED64,
    SINT32,
    STRING,
    UINT32,
    UINT64,
    table,
)

# Status.Reason
STARTED = 1
STOPPED = 2
LOST = 3
REPORT = 4
# Command.Kind
RAW_CAPTURE = 1
RUN_SELF_TEST = 2
RESTART = 3
UPDATE = 4
# Event.Kind
EVENT_GAP = 1
EVENT_CLOCK_FIX = 2
EVENT_SELF_TEST = 3

UNKNOWN = 0xFFFFFFFF  # Event.time_error_us without UTC, Health.free_heap

HEALTH = table(
    (1, "samples", UINT64),
    (2, "lost_samples", UINT32),
    (3, "fifo_high_water", UINT32),
    (4, "fifo_capacity", UINT32),
    (5, "worst_poll_gap_us", UINT32),
    (6, "free_heap", UINT32),
    (7, "spool_depth", UINT32),
    (8, "spool_high_water", UINT32),
    (9, "dropped_frames", UINT32),
    (10, "reconnects", UINT32),
    (11, "bus_errors", UINT32),
    (12, "overruns", UINT32),
    (13, "signal_dbm", SINT32),
)
STATUS = table(
    (1, "online", BOOL),
    (2, "boot", FIXED32),
    (3, "reason", UINT32),
    (4, "time_us", SFIXED64),
    (5, "health", HEALTH),
)
DEVICE_INFO = table(
    (1, "device", FIXED64),
    (2, "boot", FIXED32),
    (3, "part", STRING),
    (4, "sensor_serial", BYTES),
    (5, "firmware", STRING),
    (6, "board", STRING),
    (7, "odr_nominal_hz", FLOAT),
    (8, "range_g", FLOAT),
    (9, "scale_g", FLOAT),
    (10, "decimation", UINT32),
    (11, "delay_us", FLOAT),
    (12, "loss_detection", UINT32),
    (13, "temperature_class", UINT32),
    (14, "calibration_hash", BYTES),
    (15, "config", UINT32),
    (16, "spool_frames", UINT32),
    (17, "clip_low", SINT32),
    (18, "clip_high", SINT32),
    (19, "node", FIXED64),
)
COMMAND = table(
    (1, "id", FIXED32),
    (2, "kind", UINT32),
    (3, "duration_ms", UINT32),
    (4, "manifest", BYTES),
)
LINK = table(
    (1, "host", STRING | OPTIONAL),
    (2, "port", UINT32 | OPTIONAL),
    (3, "tls", BOOL | OPTIONAL),
    (4, "keepalive_s", UINT32 | OPTIONAL),
    (5, "username", STRING | OPTIONAL),
    (6, "password", STRING | OPTIONAL),
)
CONFIG = table(
    (1, "version", UINT32),
    (2, "link", LINK),
    (3, "odr_hz", FLOAT | OPTIONAL),
    (4, "range_g", FLOAT | OPTIONAL),
    (5, "decimation", UINT32 | OPTIONAL),
    (6, "qos", UINT32 | OPTIONAL),
    (7, "window", UINT32 | OPTIONAL),
    (8, "test_pattern", BOOL | OPTIONAL),
    (9, "keep_newest", BOOL | OPTIONAL),
    (10, "replay_hz", UINT32 | OPTIONAL),
    (11, "health_period_s", UINT32 | OPTIONAL),
    (12, "command", COMMAND),
)
CONFIG_ACK = table(
    (1, "version", UINT32),
    (2, "result", UINT32),
    (3, "field", STRING),
    (4, "reason", STRING),
    (5, "boot", FIXED32),
)
GAP = table(
    (1, "first_sample", FIXED64),
    (2, "length", UINT32),
    (3, "bound", UINT32),
    (4, "cause", UINT32),
)
CLOCK_FIX = table(
    (1, "offset_us", SFIXED64),
    (2, "error_us", UINT32),
)
SELF_TEST = table(
    (1, "result", UINT32),
    (2, "response_g", FLOATS),
    (3, "low_g", FLOATS),
    (4, "high_g", FLOATS),
    (5, "reason", STRING),
)
EVENT = table(
    (1, "device", FIXED64),
    (2, "boot", FIXED32),
    (3, "kind", UINT32),
    (4, "time_us", SFIXED64),
    (5, "time_error_us", FIXED32),
    (6, "number", FIXED32),
    (8, "gap", GAP),
    (9, "clock_fix", CLOCK_FIX),
    (10, "self_test", SELF_TEST),
)
