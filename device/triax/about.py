"""What a device says of itself: its birth message, its status, its health. Allocates; once a connection or a minute."""

from triax import messages, wire


def info(channel) -> bytes:
    """DeviceInfo of a channel that measures."""
    part = channel.part
    node = channel.node
    return wire.encode(
        messages.DEVICE_INFO,
        {
            "device": channel.device,
            "boot": node.boot,
            "part": part.NAME,
            "sensor_serial": part.serial,
            "firmware": node.firmware,
            "board": node.board.name,
            "odr_nominal_hz": part.odr_hz,
            "range_g": part.range_g,
            "scale_g": part.scale_g,
            "decimation": channel.capture.decimation,
            "delay_us": part.delay_us,
            "loss_detection": part.LOSS_DETECTION,
            "temperature_class": part.TEMPERATURE_CLASS,
            "calibration_hash": channel.calibration_hash,
            "config": channel.configuration.version,
            "spool_frames": channel.frames.spool.slots,
            "clip_low": part.clip_low,
            "clip_high": part.clip_high,
            "node": node.node_id,
        },
    )


def status(channel, reason: int) -> bytes:
    """Status, with health where something is measured."""
    node = channel.node
    message = {"online": reason != messages.STOPPED, "boot": node.boot, "reason": reason, "time_us": node.clock.utc_us() or 0}
    if channel.capture is not None:
        message["health"] = health(channel)
    return wire.encode(messages.STATUS, message)


def health(channel) -> dict:
    """How near to loss the device is."""
    capture = channel.capture
    spool = channel.frames.spool
    free = channel.node.board.free_heap()
    return {
        "samples": int.from_bytes(capture.samples, "little"),
        "lost_samples": int.from_bytes(capture.encoder.lost, "little"),
        "fifo_high_water": capture.high_water,
        "fifo_capacity": channel.part.FIFO_SETS,
        "worst_poll_gap_us": capture.worst_gap_us,
        "free_heap": free if free >= 0 else messages.UNKNOWN,
        "spool_depth": spool.depth,
        "spool_high_water": spool.high_water,
        "dropped_frames": spool.dropped,
        "reconnects": channel.node.reconnects,
        "bus_errors": capture.bus_errors,
        "overruns": capture.overruns,
        "signal_dbm": channel.node.board.signal_dbm(),
    }
