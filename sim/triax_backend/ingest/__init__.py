"""Ingest front: an MQTT 3.1.1 endpoint that is an adapter into Kafka and no broker.

It keeps no sessions and fans nothing out, so any number of processes and machines stand behind one address and a node may land on
any. PUBACK means "in Kafka". Configuration and calibration are answered from a compacted Kafka topic.
"""

from triax_backend.ingest.front import Front
from triax_backend.ingest.hold import Limits
from triax_backend.ingest.identity import Identity, IdentityError

__all__ = ["Front", "Identity", "IdentityError", "Limits"]
