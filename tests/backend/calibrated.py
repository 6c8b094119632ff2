"""One device with calibrations, put into a database of its own by the sinks themselves."""

from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg
from triax_backend.consume import Batch
from triax_backend.frames import Record
from triax_backend.read import read, read_calibrations
from triax_backend.sinks.features import Features
from triax_backend.sinks.timescale import Timescale
from triax_proto import frame, names
from triax_proto.v1.device_pb2 import DeviceInfo
from triax_tools.calibrate import compact, document, fit, gravity, pose, simulate, table
from triax_tools.calibrate.recording import Identity
from triax_tools.calibrate.temperature import Temperature

from .build import record, wire

START_US = 1_790_000_000_000_000
START = datetime.fromtimestamp(START_US / 1e6, UTC)
SCALE_G = 0.0005  # of build.fleet_frames
TERMS = Temperature(30.0, 15.0, 45.0, np.array([[4.5, -3.25, 7.1], [0.05, -0.02, 0.01]]), np.array([[1e-4, -2e-4, 5e-5]]))


def seconds(value):
    return START + timedelta(seconds=value)


def made(device, seed=1, created=START, scale_g=SCALE_G, terms=TERMS, serial="0102"):
    """A document of a simulated unit."""
    rng = np.random.default_rng(seed)
    unit = simulate.draw_unit(rng)
    means = unit.model.respond(simulate.hand_poses(pose.CELLS, rng)) / 16384 / scale_g
    result = fit.fit(means + rng.normal(0, 50e-6 / scale_g, means.shape), gravity.given(9.80665))
    sensor = Identity(f"{device:016x}", "adxl382", serial, "1.2.0", 16.0, scale_g)
    return document.build(result, sensor, created, [], "ab" * 32, temperature=terms)


class Database:
    """Frames and messages of one device put in by the sinks themselves, with consecutive offsets."""

    def __init__(self, place):
        self.place, self.device, self.at = place, place.device, {}
        self.features, self.frames = Features(place.settings), Timescale(place.settings)
        for sink in (self.features, self.frames):
            sink.start([])

    def close(self):
        self.features.close()
        self.frames.close()

    def write(self, sink, topic, **fields):
        at = self.at.get(topic, 0)
        self.at[topic] = at + 1
        fields = {"received_us": START_US} | fields
        sink.write(Batch([Record(topic, 0, at, **fields)], {(topic, 0): at}, {(topic, 0): at + 1}))

    def push(self, blob, received=None, kind="calibration", device=None):
        key = f"{device or self.device:016x}/{kind}".encode()
        self.write(self.features, names.CONFIG, value=blob, key=key, received_us=int((received or START).timestamp() * 1e6))

    def info(self, **fields):
        value = DeviceInfo(device=self.device, **fields).SerializeToString()
        self.write(self.features, names.DEVICES, value=value, key=f"{self.device:016x}/info".encode())

    def store(self, frames):
        frame.encode(frames)
        self.write(self.frames, names.FRAMES, value=record(wire(frames)).value)

    def rows(self, query, *values):
        with psycopg.connect(self.place.settings.postgres, options="-c timezone=UTC") as connection:
            return connection.execute(query, values).fetchall()

    def values(self, start=0.0, end=60.0):
        """What `triax read` gives, and the rows of values_calibrated as (hash, flags, x, y, z) beside it."""
        given = read(self.place.settings, self.device, seconds(start), seconds(end))
        given = table.calibrate_in_force(given, read_calibrations(self.place.settings, self.device).blobs)
        query = "SELECT encode(hash, 'hex'), calibration_flags, x_g, y_g, z_g FROM values_calibrated ORDER BY boot, sequence, value"
        return given, self.rows(query)


def digest(calibration):
    return compact.digest(compact.encode(calibration)).hex()
