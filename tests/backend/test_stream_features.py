"""Feature rows on the wire: our layout, Google's layout, and what is neither."""

import numpy as np
import pytest
from triax_backend.stream.features import FEATURE, decode, encode
from triax_proto.errors import Malformed
from triax_proto.v1.event_pb2 import FeatureBatch


def rows(count, model=b""):
    rng = np.random.default_rng(7)
    out = np.zeros(count, FEATURE)
    for name in FEATURE.names:
        kind = FEATURE[name].base
        if kind.kind == "f":
            out[name] = rng.normal(size=out[name].shape)
        elif kind.kind != "S":
            out[name] = rng.integers(0, 2**31, size=out[name].shape)
    out["model"] = model
    return out


@pytest.mark.parametrize("model", [b"", b"window/20260101T000000", b"x" * 48])
def test_rows_survive_the_wire(model):
    sent = rows(257, model)
    assert (decode(encode(sent)) == sent).all()


def test_google_reads_what_we_write_and_we_read_what_google_writes():
    sent = rows(5, b"window/3")
    message = FeatureBatch.FromString(encode(sent))
    assert [f.device for f in message.features] == sent["device"].tolist()
    assert [list(f.maximum) for f in message.features] == sent["maximum"].tolist()
    assert [f.samples for f in message.features] == sent["samples"].tolist()
    assert message.features[4].model == "window/3"
    again = message.SerializeToString()
    assert again != encode(sent)  # minimal varints
    assert (decode(again) == sent).all()


def test_rows_of_two_models_in_one_batch():
    sent = np.concatenate([rows(3, b"a/1"), rows(2, b"longer/1"), rows(1, b"a/1")])
    assert sorted(map(repr, decode(encode(sent)))) == sorted(map(repr, sent))


def test_nothing_is_nothing():
    assert encode(rows(0)) == b""
    assert len(decode(b"")) == 0


def test_bytes_of_no_feature():
    for bad in (b"\xff" * 300, encode(rows(1))[:-1], FeatureBatch(features=[{"mean": [1.0, 2.0]}]).SerializeToString()):
        with pytest.raises(Malformed):
            decode(bad)
