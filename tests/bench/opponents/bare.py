"""The floor: one write and one read a message, the packet always the same; nothing counted, kept or checked.

python bare.py '{"port": 1883, "clients": 1000, "hz": 20, "qos": 1, "bytes": 273}'
"""

import json
import os
import select
import socket
import sys
import time

from triax_sim.packet import connect, publish_head

SLOT_S = 0.002


def main():
    load = json.loads(sys.argv[1])
    epoll, links, packets = select.epoll(), [], []
    for n in range(load["clients"]):
        link = socket.create_connection(("127.0.0.1", load["port"]))
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.sendall(connect(f"bare-{n}", 60, None))
        link.recv(4)
        link.setblocking(False)
        epoll.register(link, select.EPOLLIN)
        links.append(link)
        head = publish_head(f"triax/v1/{n:016x}/frame", load["qos"], load["bytes"])
        packets.append(head + (b"\0\1" if load["qos"] else b"") + bytes(load["bytes"]))
    numbers = [link.fileno() for link in links]
    began, sent = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - began) * load["hz"] * load["clients"])
        while sent < due:
            at = sent % load["clients"]
            end = min(at + due - sent, load["clients"])
            sent += len(list(map(os.write, numbers[at:end], packets[at:end])))
        for number, _ in epoll.poll(0, len(links)):
            os.read(number, 4096)
        time.sleep(SLOT_S)


if __name__ == "__main__":
    main()
