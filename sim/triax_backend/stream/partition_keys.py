"""Keys by which Kafka's own Java partitioner finds a given partition: for producers that cannot name it.

Java's producer puts a keyed record on partition (murmur2(key) & 0x7FFFFFFF) mod P; librdkafka's "murmur2" does the same.
"""

__all__ = ["murmur2", "partition_keys"]

_MASK = 0xFFFFFFFF
_M, _R, _SEED = 0x5BD1E995, 24, 0x9747B28C


def murmur2(data: bytes) -> int:
    """Austin Appleby's MurmurHash2 with Kafka's seed, 32 bits."""
    value = (_SEED ^ len(data)) & _MASK
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * _M & _MASK
        k = (k ^ k >> _R) * _M & _MASK
        value = (value * _M & _MASK) ^ k
    rest = data[whole:]
    if rest:
        value = (value ^ int.from_bytes(rest, "little")) * _M & _MASK
    value = (value ^ value >> 13) * _M & _MASK
    return value ^ value >> 15


def partition_keys(partitions: int) -> list[bytes]:
    """A key for each partition, the same on every call."""
    found: dict[int, bytes] = {}
    number = 0
    while len(found) < partitions:
        key = b"p%d" % number
        found.setdefault((murmur2(key) & 0x7FFFFFFF) % partitions, key)
        number += 1
    return [found[index] for index in range(partitions)]
