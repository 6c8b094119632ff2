"""The messages of a node, as tables for triax.wire: proto/triax/v1/device.proto and event.proto, held equal by a test."""

from triax import wire

# Status.Reason
STARTED = 1
STOPPED = 2
LOST = 3
REPORT = 4

UNKNOWN = 0xFFFFFFFF  # Event.time_error_us without UTC, Health.free_heap

HEALTH = wire.table(
    (1, "samples", wire.UINT64),
    (2, "lost_samples", wire.UINT32),
    (3, "fifo_high_water", wire.UINT32),
    (4, "fifo_capacity", wire.UINT32),
    (5, "worst_poll_gap_us", wire.UINT32),
    (6, "free_heap", wire.UINT32),
    (7, "spool_depth", wire.UINT32),
    (8, "spool_high_water", wire.UINT32),
    (9, "dropped_frames", wire.UINT32),
    (10, "reconnects", wire.UINT32),
    (11, "bus_errors", wire.UINT32),
    (12, "overruns", wire.UINT32),
    (13, "signal_dbm", wire.SINT32),
)
STATUS = wire.table(
    (1, "online", wire.BOOL),
    (2, "boot", wire.FIXED32),
    (3, "reason", wire.UINT32),
    (4, "time_us", wire.SFIXED64),
    (5, "health", HEALTH),
)
DEVICE_INFO = wire.table(
    (1, "device", wire.FIXED64),
    (2, "boot", wire.FIXED32),
    (3, "part", wire.STRING),
    (4, "sensor_serial", wire.BYTES),
    (5, "firmware", wire.STRING),
    (6, "board", wire.STRING),
    (7, "odr_nominal_hz", wire.FLOAT),
    (8, "range_g", wire.FLOAT),
    (9, "scale_g", wire.FLOAT),
    (10, "decimation", wire.UINT32),
    (11, "delay_us", wire.FLOAT),
    (12, "loss_detection", wire.UINT32),
    (13, "temperature_class", wire.UINT32),
    (14, "calibration_hash", wire.BYTES),
    (15, "config", wire.UINT32),
    (16, "spool_frames", wire.UINT32),
    (17, "clip_low", wire.SINT32),
    (18, "clip_high", wire.SINT32),
    (19, "node", wire.FIXED64),
)
COMMAND = wire.table(
    (1, "id", wire.FIXED32),
    (2, "kind", wire.UINT32),
    (3, "duration_ms", wire.UINT32),
    (4, "manifest", wire.BYTES),
)
LINK = wire.table(
    (1, "host", wire.STRING | wire.OPTIONAL),
    (2, "port", wire.UINT32 | wire.OPTIONAL),
    (3, "tls", wire.BOOL | wire.OPTIONAL),
    (4, "keepalive_s", wire.UINT32 | wire.OPTIONAL),
    (5, "username", wire.STRING | wire.OPTIONAL),
    (6, "password", wire.STRING | wire.OPTIONAL),
)
CONFIG = wire.table(
    (1, "version", wire.UINT32),
    (2, "link", LINK),
    (3, "odr_hz", wire.FLOAT | wire.OPTIONAL),
    (4, "range_g", wire.FLOAT | wire.OPTIONAL),
    (5, "decimation", wire.UINT32 | wire.OPTIONAL),
    (6, "qos", wire.UINT32 | wire.OPTIONAL),
    (7, "window", wire.UINT32 | wire.OPTIONAL),
    (8, "test_pattern", wire.BOOL | wire.OPTIONAL),
    (9, "keep_newest", wire.BOOL | wire.OPTIONAL),
    (10, "replay_hz", wire.UINT32 | wire.OPTIONAL),
    (11, "health_period_s", wire.UINT32 | wire.OPTIONAL),
    (12, "command", COMMAND),
)
CONFIG_ACK = wire.table(
    (1, "version", wire.UINT32),
    (2, "result", wire.UINT32),
    (3, "field", wire.STRING),
    (4, "reason", wire.STRING),
    (5, "boot", wire.FIXED32),
)
GAP = wire.table(
    (1, "first_sample", wire.FIXED64),
    (2, "length", wire.UINT32),
    (3, "bound", wire.UINT32),
    (4, "cause", wire.UINT32),
)
CLOCK_FIX = wire.table(
    (1, "offset_us", wire.SFIXED64),
    (2, "error_us", wire.UINT32),
)
SELF_TEST = wire.table(
    (1, "result", wire.UINT32),
    (2, "response_g", wire.FLOATS),
    (3, "low_g", wire.FLOATS),
    (4, "high_g", wire.FLOATS),
    (5, "reason", wire.STRING),
)
EVENT = wire.table(
    (1, "device", wire.FIXED64),
    (2, "boot", wire.FIXED32),
    (3, "kind", wire.UINT32),
    (4, "time_us", wire.SFIXED64),
    (5, "time_error_us", wire.FIXED32),
    (6, "number", wire.FIXED32),
    (8, "gap", GAP),
    (9, "clock_fix", CLOCK_FIX),
    (10, "self_test", SELF_TEST),
)
