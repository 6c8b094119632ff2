"""An ingest front in a thread of the test."""

import contextlib
import threading

from triax_backend.ingest.__main__ import listen
from triax_backend.ingest.downlink import Downlink
from triax_backend.ingest.front import Front
from triax_backend.metrics import Account
from triax_backend.produce import KafkaOut


@contextlib.contextmanager
def running_front(settings, identity=None, limits=None):
    """(port, front); stopped and drained at the end."""
    account = Account("ingest")
    downlink = Downlink(settings)
    downlink.start()
    listener = listen("127.0.0.1", 0)
    front = Front(listener, KafkaOut(settings, account, stage="ingest"), downlink, account, identity, limits)
    thread = threading.Thread(target=front.run, name="front")
    port = listener.getsockname()[1]
    thread.start()
    try:
        yield port, front
    finally:
        front.stop()
        thread.join(30)
        downlink.close()
        assert not thread.is_alive()
