"""Wrong versions of what reads bytes from outside: each one must be found by the tests of its module."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
DEVICE = HERE.parents[1] / "device"
# module, its tests, what is right, what is wrong
MUTANTS = [
    ("packets", "test_mqtt", "self._shift > 21", "self._shift > 28"),
    ("packets", "test_mqtt", "(byte & 127) << self._shift", "(byte & 63) << self._shift"),
    ("packets", "test_mqtt", "self.kind != _PUBLISH and self.flags", "False and self.flags"),
    ("packets", "test_mqtt", "self.flags & 6 > 2", "self.flags & 6 > 4"),
    ("packets", "test_mqtt", "most == -1 and self.length > self._limit", "False"),
    ("packets", "test_mqtt", "self.kept = min(self.length, len(self.body))", "self.kept = self.length"),
    ("packets", "test_mqtt", "len(self.body) < self.length <= self._limit", "len(self.body) < self.length"),
    ("packets", "test_mqtt", "except MemoryError", "except KeyError"),
    ("packets", "test_mqtt", "return self._seen == self.length", "return self._seen >= self.kept"),
    ("packets", "test_mqtt", "self._seen = 0\n        self._make_room", "self._make_room"),
    ("packets", "test_mqtt", "PUBACK: (2, 2)", "PUBACK: (2, -1)"),
    ("packets", "test_mqtt", "keep = min(self.kept - self._seen, take)", "keep = take"),
    ("packets", "test_mqtt", "rest & 127 | 128", "rest & 127"),
    ("packets", "test_mqtt", "move(self.buffer, 0, self.buffer, count, self.length)", "pass"),
    ("packets", "test_mqtt", "self.length + rest + 5 <= len(self.buffer)", "self.length + rest <= len(self.buffer)"),
    (
        "window",
        "test_mqtt",
        "self._ids[i] == packet_id and self._tokens[i] != _FREE:\n                self._release",
        "True:\n                self._release",
    ),
    ("window", "test_mqtt", "not self._used(self._last_id)", "True"),
    ("window", "test_mqtt", "self._last_id % 65535 + 1", "(self._last_id + 1) % 65536"),
    ("window", "test_mqtt", "not self._ids[i] and", ""),
    ("mqtt", "test_mqtt", "if flags or code > 5:", "if code > 5:"),
    ("mqtt", "test_mqtt", "if not _LEGAL[self.state] >> kind & 1:", "if False:"),
    ("mqtt", "test_mqtt", "if not size or end > reader.length:", "if not size:"),
    ("mqtt", "test_mqtt", "if end > reader.kept:", "if False:"),
    ("mqtt", "test_mqtt", "OVERSIZE if reader.length > reader.kept else MESSAGE", "MESSAGE"),
    ("mqtt", "test_mqtt", "half = self._keepalive_ms >> 1", "half = self._keepalive_ms"),
    ("mqtt", "test_mqtt", "self.reader.reset()", "pass"),
    ("mqtt", "test_mqtt", "while self.out.room(2) and self.reader.next():", "while self.reader.next():"),
    ("spool", "test_spool", "self._live = self._head\n        self._credit = 0\n\n", "self._credit = 0\n\n"),
    ("spool", "test_spool", "self._credit -= 1000", "pass"),
    ("spool", "test_spool", "self._call_back(self._tail, self._replay)", "pass"),
    ("spool", "test_spool", "self._call_back(self._mark, self._live)", "pass"),
    ("spool", "test_spool", "if self._mark == old:", "if False:"),
    ("spool", "test_spool", "if passed > _REPLAY_PAUSE_MS:", "if False:"),
    ("spool", "test_spool", "if not self.keep_newest:", "if self.keep_newest:"),
    ("segments", "test_spool", "if not 0 < length <= self.size:", "if not 0 <= length <= self.size:"),
    ("segments", "test_spool", "if buffer[i] != checksum >> 8 * i & 255:", "if False:"),
    ("segments", "test_spool", "count == self._record and self._valid()", "self._valid()"),
    ("segments", "test_spool", "token >= after - self.slots", "True"),
    ("segments", "test_spool", "self._next_number = number + 1", "self._next_number = number"),
    ("segments", "test_spool", "self._files.remove(_name(self._numbers[segment]))", "pass"),
    ("segments", "test_spool", "+ 1))\n        self.period", "))\n        self.period"),
    ("frame", "test_frame", "length & 127 | 128", "length & 127"),
    ("frame", "test_frame", "buf[at + 12] = 0x8A", "buf[at + 12] = 0x82"),
    ("frame", "test_frame", "DEVICE - 1, at, buf, CHECKSUM", "DEVICE, at, buf, CHECKSUM"),
    ("frame", "test_frame", "kernels.add(self.buffer, SEQUENCE, 4, 1)", "kernels.add(self.buffer, SEQUENCE, 8, 1)"),
    ("frame", "test_frame", "kernels.add(self.lost, 0, 4, samples)", "pass"),
    ("utc", "test_utc", "kernels.muldiv(age, self._rate_error, _UNIT)", "0"),
    ("utc", "test_utc", "- _WANDER_PPM * _PPM)", "+ _WANDER_PPM * _PPM)"),
    ("utc", "test_utc", "low = max(low, was - known)", "low = was - known"),
    ("wire", "test_wire", "if value >> 64:", "if False:"),
    ("wire", "test_wire", "if length > end - at:", "if False:"),
    ("wire", "test_wire", "if not number or tag > _U32:", "if False:"),
    ("wire", "test_wire", "elif wire_type != _wire_type(kind):", "elif False:"),
    ("wire", "test_wire", "value >> 1 ^ -(value & 1)", "value >> 1"),
    ("boot", "test_boot", "other = 1 if counters[0] == last else 0", "other = 0 if counters[0] == last else 1"),
    ("boot", "test_boot", "    _write(store, SLOTS[1 - other], last + 1)\n", ""),
    ("sntp", "test_sntp", "if data[24:32] != nonce:", "if False:"),
    ("sntp", "test_sntp", "delay_us // 2 + root_us + 2", "delay_us // 4 + root_us"),
    ("config", "test_config", 'if version <= self._state["decided"]:', 'if version <= self._state["version"]:'),
    ("config", "test_config", 'if state["trial"]:', "if False:"),
    ("config", "test_config", 'command["id"] != old["command_id"]', "True"),
]
# The parser that the backend has of the node's frames: module of proto/triax_proto, its tests, right, wrong
PARSER = [
    ("frame", "test_frame", "if not checksums_ok(frames)[0]:", "if False:"),
    ("frame", "test_frame", "if raw.size % dtype.itemsize:", "if False:"),
    ("frame", "test_frame", "if not (rows[:, fixed] == np.frombuffer(wire, dtype=np.uint8)[fixed]).all():", "if False:"),
    ("frame", "test_frame", 'data[:1] != b"\\x0d" or zlib.crc32', "zlib.crc32"),
    ("frame", "test_frame", "zlib.crc32(data[CHECKSUM_START:]) != message.checksum", "False"),
    ("frame", "test_frame", "if not len(message.x) == len(message.y) == len(message.z):", "if False:"),
    ("frame", "test_frame", "if len(items) not in (0, 3):", "if False:"),
    ("frame", "test_frame", 'or not message.HasField("sequence")', ""),
    ("frame", "test_frame", "if array is not None and checksums_ok(array).all():", "if array is not None:"),
    ("batch", "test_batch", "if at + size > end:", "if False:"),
    ("batch", "test_batch", "if data[at] != _TAG:", "if False:"),
    ("batch", "test_batch", "if shift > 28:", "if False:"),
]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(MUTANTS)))
def test_a_wrong_version_is_found(tmp_path, number):
    check(tmp_path, DEVICE / "triax", HERE, *MUTANTS[number])


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(PARSER)))
def test_a_wrong_parser_of_frames_is_found(tmp_path, number):
    check(tmp_path, DEVICE.parent / "proto/triax_proto", HERE.parent / "proto", *PARSER[number])


def check(tmp_path, package, folder, module, tests, right, wrong):
    shutil.copytree(package, tmp_path / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / package.name / f"{module}.py"
    source = path.read_text()
    assert source.count(right) >= 1, f"{module}.py does not say {right!r} any more"
    path.write_text(source.replace(right, wrong, 1))
    command = [sys.executable, "-m", "pytest", "-x", "-q", folder / f"{tests}.py"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "HYPOTHESIS_DATABASE_FILE": str(tmp_path / "h")}
    try:
        done = subprocess.run(
            command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, timeout=50, check=False
        )
    except subprocess.TimeoutExpired:
        return  # it hangs: found as well
    assert done.returncode == 1, f"{module}.py with {wrong!r} instead of {right!r} passes:\n{done.stdout[-2000:]}"
