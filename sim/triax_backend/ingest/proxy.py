"""PROXY protocol, version 2: what a balancer says about a connection before the client's own bytes.

Of the TLVs only SSL (0x20) with its common name (0x22) matters: the name in the certificate that the balancer has verified.
Source: the HAProxy project's "The PROXY protocol", section 2.2.
"""

import socket
import struct
from typing import NamedTuple

from triax_backend.mqtt_wire import BadPacket

__all__ = ["SIGNATURE", "Header", "parse"]

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED = 16
_SSL, _CN = 0x20, 0x22
_CERT_SEEN = 0x02 | 0x04  # client has a certificate: on this connection, in this session
# family and transport, length of addresses, offset of the ports
_ADDRESSES = {0x11: (socket.AF_INET, 4, 12), 0x21: (socket.AF_INET6, 16, 36)}


class Header(NamedTuple):
    """`size`: bytes before the client's own. `source`: the client's address, "" for the balancer's own checks."""

    size: int
    source: str
    common_name: str | None


def parse(data: bytes) -> Header | None:
    """The header at the start of `data`; None if it is not all there. Raises BadPacket if there is none."""
    if data[: len(SIGNATURE)] != SIGNATURE[: len(data)]:
        raise BadPacket(f"no PROXY v2 header but {data[:12]!r}: is the balancer set to send it?")
    if len(data) < _FIXED:
        return None
    version, family, length = struct.unpack_from(">BBH", data, 12)
    if version >> 4 != 2 or version & 15 > 1:
        raise BadPacket(f"PROXY header of version and command {version:#x}")
    if len(data) < _FIXED + length:
        return None
    body = data[_FIXED : _FIXED + length]
    size = _FIXED + length
    if version & 15 == 0 or family not in _ADDRESSES:  # LOCAL, or a transport without addresses
        return Header(size, "", None)
    kind, width, ends = _ADDRESSES[family]
    if len(body) < ends:
        raise BadPacket(f"PROXY header with {len(body)} bytes of addresses, not {ends}")
    port = int.from_bytes(body[2 * width : 2 * width + 2], "big")
    source = f"{socket.inet_ntop(kind, body[:width])}:{port}"
    ssl = _tlvs(body[ends:]).get(_SSL, b"")
    name = None
    if len(ssl) >= 5 and ssl[0] & _CERT_SEEN and ssl[1:5] == bytes(4):  # verify result 0: the certificate is good
        name = _tlvs(ssl[5:]).get(_CN, b"").decode(errors="replace") or None
    return Header(size, source, name)


def _tlvs(data: bytes) -> dict[int, bytes]:
    out = {}
    while len(data) >= 3:
        kind, length = struct.unpack_from(">BH", data)
        if len(data) < 3 + length:
            raise BadPacket(f"PROXY header with a TLV of {length} bytes where {len(data) - 3} are")
        out[kind] = data[3 : 3 + length]
        data = data[3 + length :]
    if data:
        raise BadPacket("PROXY header that ends inside a TLV")
    return out
