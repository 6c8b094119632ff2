"""Real nodes through the ingest front, Kafka and the sink: erased storage and a reflash lose nothing, a cloned identity is told."""

import time

import pytest
from triax import boot, frame
from triax.ports.tcp import Link
from triax_backend import deadletter, scan
from triax_proto import names
from triax_proto.v1.event_pb2 import Event
from triax_proto.v1.frame_pb2 import Frame

from ..backend.front_thread import running_front
from ..backend.sinks import Place, identities
from ..device.node_rig import DEVICE, UTC_US, Rig, Store

pytestmark = pytest.mark.servers
FLASHED = UTC_US // 1_000_000  # seconds: what flashing seeds the boot counter with
FRAMES = 15


@pytest.fixture
def place(stack, tmp_path):
    own = Place(stack.settings, tmp_path)
    own.device = DEVICE
    yield own
    own.close()


@pytest.fixture
def front(place):
    with running_front(place.settings) as (port, _):
        yield port


def flashed(unix_s):
    """A store as flashing leaves it."""
    store = Store()
    boot.seed(store, unix_s)
    return store


def emitted(rig):
    """Frames so far: the number of the next one."""
    capture = rig.channels[0].capture
    return int.from_bytes(capture.encoder.buffer[frame.SEQUENCE : frame.SEQUENCE + 4], "little") if capture else 0


def life(front, store=None, late_s=0.0):
    """A node from its start to its goodbye; returns (boot, numbers of its frames). Virtual part and time, real network. `late_s`:
    how much later than another node of the same boot it runs."""
    rig = Rig(store=store, provisioned=False, link={"host": "127.0.0.1", "port": front})
    rig.clock.step_us = int(1e6 * late_s)
    link = Link()
    rig.node._link = rig.node.connection.link = link
    rig.start()
    try:
        end = time.monotonic() + 20
        while not rig.node.stopped:
            rig.run(12)
            # Its goodbye waits so long for the last PUBACKs, and virtual time must not outrun the server's.
            time.sleep(0.05 if emitted(rig) >= FRAMES else 0.001)
            assert time.monotonic() < end, rig.log
            if emitted(rig) >= FRAMES:
                rig.node.stop()
    finally:
        link.close()
    spool = rig.channels[0].frames.spool
    assert (spool.dropped, spool.depth) == (0, 0)
    return rig.node.boot, range(emitted(rig))


def test_storage_that_was_erased_and_a_reflash_lose_no_frame_and_a_clone_is_told(place, front):
    lives = [life(front, flashed(FLASHED - 86400)), life(front), life(front, flashed(FLASHED + 86400))]
    boots = [number for number, _ in lives]
    assert boots == sorted(set(boots))
    want = sorted((DEVICE, number, sequence) for number, sequences in lives for sequence in sequences)
    sink = place.run("timescale")
    place.wait(lambda: len(place.postgres()) >= len(want), "every frame", alive=[sink])
    assert [one[:3] for one in sorted(identities(place.postgres()))] == want

    before = identities(place.postgres())
    number, sequences = life(front, flashed(FLASHED - 86400), late_s=5)
    assert number == boots[0]
    both = sorted(set(sequences) & set(lives[0][1]))

    def conflicts():
        letters = [Frame.FromString(one.data) for one in deadletter.letters(place.settings, cause=deadletter.CONFLICT)]
        return sorted(one.sequence for one in letters if (one.device, one.boot) == (DEVICE, number))

    place.wait(lambda: len(conflicts()) >= len(both), "the clone's frames as dead letters", alive=[sink])
    assert conflicts() == both
    events = [Event.FromString(r.value) for found in scan.records(place.settings, names.EVENTS) for r in found]
    assert {one.conflict.sequence for one in events if one.device == DEVICE and one.HasField("conflict")} == set(both)
    assert set(before) <= set(identities(place.postgres()))
