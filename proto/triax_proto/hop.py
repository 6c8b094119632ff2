"""What a hop holds of a frame, and what the sender's ledger says of it: the two record types that a verdict compares."""

import numpy as np

__all__ = ["HOP", "LEDGER"]

# One frame as found at a hop (Kafka, PostgreSQL, lake). Rows repeat where the hop holds a frame more than once.
HOP = np.dtype(
    [
        ("device", "<u8"),
        ("boot", "<u4"),
        ("sequence", "<u4"),
        ("checksum", "<u4"),  # as stored
        ("proved", "?"),  # the stored fields, encoded again, give `checksum`
        ("at_us", "<i8"),  # UTC when it became visible at this hop; 0: not known
        ("order", "<i8"),  # position in the hop per partition (Kafka: offset and place in the batch), for order inversions; 0: none
    ]
)

# One frame as the sender saw it.
LEDGER = np.dtype(
    [
        ("device", "<u8"),
        ("boot", "<u4"),
        ("sequence", "<u4"),
        ("checksum", "<u4"),
        ("qos", "u1"),
        ("due_us", "<i8"),  # UTC when the schedule wanted it on the wire
        ("sent_us", "<i8"),  # UTC of the socket write that completed it; 0: never written
        ("acked_us", "<i8"),  # UTC of the PUBACK; 0: none (or QoS 0)
    ]
)
