"""The closed account, health that means delivery, and the server that tells them."""

import json
import urllib.error
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st
from triax_backend import metrics
from triax_backend.metrics import Account


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@given(st.lists(st.tuples(st.sampled_from(["took", "out", "repeats", "returned", "dead"]), st.integers(0, 50)), max_size=30))
def test_the_account_is_closed_whatever_happens(steps):
    account = Account("x")
    for what, count in steps:
        if what == "took":
            account.took(count)
        elif what == "dead":
            account.dead("a cause", count)
        else:
            account.settled(**{what: count})
    t = account.totals
    assert t["in"] == t["out"] + t["dead"] + t["repeats"] + t["returned"] + account.in_flight


def test_health_is_delivery_not_connection():
    clock = Clock()
    account = Account("x", now=clock)
    assert account.health() == (True, "delivering")
    clock.now += 1000
    assert account.health()[0], "nothing waits"
    account.took(5)
    assert account.health()[0]
    clock.now += metrics.STALL_S + 1
    healthy, why = account.health()
    assert not healthy
    assert "nothing delivered for 16 s" in why
    account.settled(out=5)
    account.delivered()
    assert account.health()[0]
    account.failed("the server is away")
    assert account.health() == (False, "nothing delivered for 0 s: the server is away")
    account.delivered()
    assert account.health()[0]


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_what_the_server_tells():
    clock = Clock()
    account = Account("x", now=clock)
    server = metrics.serve(0, account)
    try:
        account.took(7)
        account.settled(out=3, repeats=2, conflicts=1)
        account.dead("unreadable")
        account.lag("t", 3, 12)
        status, text = get(server.port, "/metrics")
        assert status == 200
        for line in (
            'triax_frames_in_total{stage="x"} 7.0',
            'triax_frames_out_total{stage="x"} 3.0',
            'triax_frames_repeated_total{stage="x"} 2.0',
            'triax_frames_dead_total{cause="unreadable",stage="x"} 1.0',
            'triax_frames_in_flight{stage="x"} 1.0',
            'triax_identity_conflicts_total{stage="x"} 1.0',
            'triax_lag_records{partition="3",stage="x",topic="t"} 12.0',
        ):
            assert line in text
        account.lost_partition("t", 3)
        assert "triax_lag_records{" not in get(server.port, "/metrics")[1]
        assert get(server.port, "/health")[0] == 200
        clock.now += 60
        status, text = get(server.port, "/health")
        assert (status, json.loads(text)["healthy"]) == (503, False)
        assert get(server.port, "/else")[0] == 404
    finally:
        server.close()


def test_two_accounts_in_one_process_do_not_mix():
    one, two = Account("one"), Account("two")
    one.took(1)
    assert two.totals["in"] == 0


def test_an_occupied_port_is_an_error_at_once():
    server = metrics.serve(0, Account("x"))
    try:
        with pytest.raises(OSError, match="in use"):
            metrics.serve(server.port, Account("y"))
    finally:
        server.close()
