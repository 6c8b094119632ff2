"""A run in which each device has a certificate of its own: over TLS to the ingest front, and no other way."""

import socket
import ssl

import numpy as np
import pytest
from triax_sim.bulk import device_ids
from triax_sim.packet import connect
from triax_sim.run import run
from triax_sim.scenario import parse
from triax_tools.path import path

SCENARIO = """
[run]
duration_s = 14.0
warmup_s = 2.0
connect_hz = 100.0
tls = true
[[cohort]]
name = "bulk"
devices = 58
motion = "rotor"
[[cohort]]
name = "gold"
kind = "gold"
devices = 2
[[event]]
kind = "reconnect"
at_s = 6.0
[tamper]
devices = 20
each = 5
[gates]
second_share = 0.0
"""


def answer(context, port, client):
    """What the front says to a CONNECT over TLS; b"" if it hangs up."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 5) as link,
            context.wrap_socket(link, server_hostname="127.0.0.1") as tls,
        ):
            tls.sendall(connect(client, 60))
            return tls.recv(4)
    except OSError:
        return b""


@pytest.mark.servers
@pytest.mark.timeout(240)
def test_every_device_comes_with_its_certificate_and_again_after_all_lost_their_connections(tmp_path):
    scenario = parse(SCENARIO, "tls")
    ids = device_ids(scenario.seed, np.arange(scenario.devices)).tolist()
    with path(tmp_path, way="ingest", stream=False, certified=ids) as system:
        assert system.settings.mqtt.startswith("mqtts://")
        report = run(scenario, system, tmp_path / "run")
        strangers = ssl.create_default_context(cafile=str(tmp_path / "tls/ca.pem"))
        known = ssl.create_default_context(cafile=str(tmp_path / "tls/ca.pem"))
        known.load_cert_chain(tmp_path / f"tls/{ids[0]:016x}.pem")
        port = system.mqtt()[1]
        assert answer(known, port, f"{ids[0]:016x}") == b"\x20\x02\x00\x00"
        assert answer(strangers, port, f"{ids[0]:016x}") == b""
    assert (report.verdict, report.data["reasons"]) == ("PASS", [])
    connections = report.data["generator"]["connections"]
    assert connections["opened"] >= 2 * 58 + 2 + 20, "each bulk device shook hands a second time"
    assert report.data["hops"]["lake"]["frames"] > 7_000
