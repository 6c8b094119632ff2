"""What a device says of itself: its birth message, its status, its health, its answer to a configuration.

Allocates; once a connection or a minute. The fields are keywords: MicroPython keeps those once, with all names, where each place
of a string of more than ten letters has its own.
"""

# ruff: noqa: C408

from triax import messages, wire


def info(channel):
    """DeviceInfo of a channel that measures, else None."""
    if channel.capture is None:
        return None
    part = channel.part
    node = channel.node
    message = dict(
        device=channel.device,
        boot=node.boot,
        part=part.NAME,
        sensor_serial=part.serial,
        firmware=node.firmware,
        board=node.board.name,
        odr_nominal_hz=part.odr_hz,
        range_g=part.range_g,
        scale_g=part.scale_g,
        decimation=channel.capture.decimation,
        delay_us=part.delay_us,
        loss_detection=part.LOSS_DETECTION,
        temperature_class=part.TEMPERATURE_CLASS,
        calibration_hash=channel.calibration_hash,
        config=channel.configuration.version,
        spool_frames=channel.frames.spool.slots,
        clip_low=part.clip_low,
        clip_high=part.clip_high,
        node=node.node_id,
    )
    return wire.encode(messages.DEVICE_INFO, message)


def status(channel) -> bytes:
    """Status, with health where something is measured."""
    node = channel.node
    reason = channel.reason
    message = dict(online=reason != messages.STOPPED, boot=node.boot, reason=reason, time_us=node.clock.utc_us() or 0)
    if channel.capture is not None:
        message["health"] = health(channel)
    return wire.encode(messages.STATUS, message)


def health(channel) -> dict:
    """How near to loss the device is."""
    capture = channel.capture
    node = channel.node
    spool = channel.frames.spool
    free = node.board.free_heap()
    return dict(
        samples=int.from_bytes(capture.samples, "little"),
        lost_samples=int.from_bytes(capture.encoder.lost, "little"),
        fifo_high_water=capture.high_water,
        fifo_capacity=channel.part.FIFO_SETS,
        worst_poll_gap_us=capture.worst_gap_us,
        free_heap=free if free >= 0 else messages.UNKNOWN,
        spool_depth=spool.depth,
        spool_high_water=spool.high_water,
        dropped_frames=spool.dropped,
        reconnects=node.reconnects,
        bus_errors=capture.bus_errors,
        overruns=capture.overruns,
        signal_dbm=node.board.signal_dbm(),
    )


def ack(channel):
    """ConfigAck of the last decision, None: it has arrived."""
    return channel.configuration.ack()
