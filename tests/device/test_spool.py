"""The ring: order, policy, rate, accounts. The files: a power cut at any byte."""

import errno
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from triax import spool as spools
from triax.segments import Segments
from triax.spool import NONE, Kept, Memory, Spool

SIZE = 24
PER = 4


def frame(number):
    return b"%06d" % number + bytes(range(number % 17))


class PowerCut(BaseException):
    pass


class Disk:
    """Files in memory. Power goes after `budget` more bytes (a remove counts as one); what was not synced may go too."""

    def __init__(self, budget=10**9):
        self.files = {}
        self.durable = {}
        self.budget = budget
        self.full = False
        self.opened = 0

    def spend(self, count):
        granted = min(count, self.budget)
        self.budget -= granted
        return granted

    def names(self):
        return [*self.files, "lost+found", "notes.txt", "zzzzzzzz.seg"]

    def open(self, name):
        self.files.setdefault(name, bytearray())
        self.opened += 1
        return File(self, name)

    def remove(self, name):
        if not self.spend(1):
            raise PowerCut
        del self.files[name]
        self.durable.pop(name, None)

    def sync(self, file):
        self.durable[file.name] = bytes(self.files[file.name])

    def after_cut(self, rng=None):
        """What a restart finds. With `rng`: each block that was not synced is there or not, as it pleases the cache."""
        found = Disk()
        for name, data in self.files.items():
            data = bytearray(data)
            kept = self.durable.get(name, b"")
            if rng:
                for at in range(0, len(data), 16):
                    if rng.random() < 0.5:
                        data[at : at + 16] = kept[at : at + 16].ljust(len(data[at : at + 16]), b"\0")
            found.files[name] = data
        found.durable = {name: bytes(data) for name, data in found.files.items()}
        return found


class File:
    def __init__(self, disk, name):
        self.disk, self.name, self.at = disk, name, 0

    def seek(self, at):
        self.at = at

    def write(self, data):
        if self.disk.full:
            raise OSError(errno.ENOSPC, "no space left on device")
        content = self.disk.files[self.name]
        granted = self.disk.spend(len(data))
        content.extend(bytes(max(0, self.at - len(content))))
        content[self.at : self.at + granted] = data[:granted]
        if granted < len(data):
            raise PowerCut
        self.at += granted
        return granted

    def readinto(self, buffer):
        data = self.disk.files[self.name][self.at : self.at + len(buffer)]
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)

    def flush(self):
        pass

    def close(self):
        self.disk.opened -= 1


def memory(slots=8, **options):
    return Spool(Memory(slots, SIZE), **options)


def kept(slots=8, **options):
    return Spool(Kept(slots, SIZE), **options)


def files(slots=8, disk=None, sync_frames=1, **options):
    return Spool(Segments(disk if disk is not None else Disk(), slots, SIZE, PER, sync_frames), **options)


EACH = pytest.mark.parametrize("make", [memory, kept, files])


def put(spool, numbers):
    return [spool.put(frame(n), len(frame(n))) for n in numbers]


def take(spool, now_ms=0):
    """Number of the frame that is sent now, with its token; None: nothing."""
    token = spool.next(now_ms)
    if token == NONE or not spool.read(token):
        return None
    data = bytes(spool.storage.buffer[spool.storage.start : spool.storage.start + spool.storage.length])
    spool.took(token)
    assert data == frame(int(data[:6]))
    return int(data[:6]), token


def take_all(spool, now_ms=0):
    taken = []
    while (one := take(spool, now_ms)) is not None:
        taken.append(one)
    return taken


def test_what_memory_has_no_room_for_is_counted(monkeypatch):
    spool = kept()
    put(spool, [1])

    def no_room(data):
        raise MemoryError

    monkeypatch.setattr(spools, "bytes", no_room, raising=False)
    with pytest.raises(OSError, match="12"):
        put(spool, [2])
    monkeypatch.undo()
    put(spool, [3])
    assert (spool.dropped, spool.depth) == (1, 2)
    assert [take(spool)[0], take(spool)[0]] == [1, 3]


def numbers(taken):
    return [number for number, _ in taken]


def replay(spool, start_ms=0, step_ms=10, steps=2000):
    """Everything, as a loop would take it."""
    return [one for i in range(steps) for one in take_all(spool, start_ms + i * step_ms)]


@EACH
def test_frames_leave_in_order_and_only_when_they_have_arrived(make):
    spool = make()
    put(spool, range(5))
    taken = take_all(spool)
    assert numbers(taken) == [0, 1, 2, 3, 4]
    assert spool.depth == 5
    for _, token in reversed(taken):
        assert spool.release(token)
        assert not spool.release(token)
    assert spool.depth == 0
    assert spool.high_water == 5


@EACH
def test_next_says_the_same_until_the_frame_is_taken(make):
    spool = make()
    put(spool, range(2))
    assert spool.next(0) == spool.next(0)
    take(spool)
    assert take(spool)[0] == 1


@EACH
def test_order_is_kept_across_reconnects_and_the_bytes_are_the_same(make):
    spool = make()
    put(spool, range(6))
    taken = take_all(spool)
    spool.release(taken[2][1])
    spool.reconnected()
    put(spool, [6])
    assert take(spool)[0] == 6, "live frames go first"
    assert numbers(replay(spool)) == [0, 1, 3, 4, 5]
    spool.reconnected()
    assert numbers(replay(spool)) == [0, 1, 3, 4, 5, 6]


@EACH
def test_replay_keeps_its_rate_and_does_not_burst_after_a_pause(make):
    spool = make(slots=400, replay_hz=20)
    put(spool, range(300))
    spool.reconnected()
    spool.next(0)
    assert len(replay(spool, steps=101)) in (20, 21)
    assert len(take_all(spool, 60_000)) <= 6
    assert spool.backlog > 250


@EACH
def test_keep_newest_drops_the_oldest(make):
    spool = make(slots=8)
    assert put(spool, range(20)) == [True] * 20
    assert spool.dropped == 12
    assert numbers(take_all(spool)) == list(range(12, 20))


@EACH
def test_keep_oldest_refuses_the_newest(make):
    spool = make(slots=8, keep_newest=False)
    assert put(spool, range(10)) == [True] * 8 + [False] * 2
    assert spool.dropped == 2
    assert numbers(take_all(spool)) == list(range(8))


@EACH
def test_a_late_puback_of_a_dropped_frame_meets_nothing(make):
    spool = make(slots=8)
    put(spool, range(8))
    _, token = take(spool)
    put(spool, [8])  # drops frame 0, which was in flight, and uses its place
    assert spool.dropped == 1
    assert not spool.release(token)
    assert spool.depth == 8
    assert not spool.release(12345)


@EACH
def test_a_frame_larger_than_a_slot_is_refused_and_counted(make):
    spool = make()
    with pytest.raises(ValueError, match="slots hold 24"):
        spool.put(bytes(25), 25)
    assert spool.dropped == 1
    assert spool.depth == 0


@EACH
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_history_loses_only_what_it_counts(make, data):
    spool = make(slots=8, keep_newest=data.draw(st.booleans()), replay_hz=100)
    wrap = spool._wrap
    spool._head = spool._tail = spool._mark = spool._replay = spool._live = (
        wrap - data.draw(st.sampled_from([0, 3, 8, 40]))
    ) % wrap
    made = arrived = now = 0
    flying = {}
    for _ in range(data.draw(st.integers(1, 60))):
        action = data.draw(st.sampled_from(["put", "put", "take", "release", "reconnect", "wait"]))
        if action == "put":
            put(spool, [made])
            made += 1
        elif action == "take" and (one := take(spool, now)):
            flying[one[1]] = one[0]
        elif action == "release" and flying:
            token = data.draw(st.sampled_from(sorted(flying)))
            del flying[token]
            arrived += spool.release(token)
        elif action == "reconnect":
            spool.reconnected()
            flying = {}
        else:
            now += 50
        assert made == arrived + spool.dropped + spool.depth
        assert 0 <= spool.depth <= 8
    spool.reconnected()
    rest = numbers(replay(spool, now))
    assert rest == sorted(rest)
    assert len(rest) == spool.depth


def test_files_are_removed_when_their_last_frame_has_left():
    disk = Disk()
    spool = files(slots=8, disk=disk)
    for number in range(101):
        put(spool, [number])
        spool.release(take(spool)[1])
    assert list(disk.files) == ["00000019.seg"]
    assert disk.opened <= 2
    spool.storage.close()
    assert disk.opened == 0


def test_a_restart_finds_the_frames_and_goes_on_behind_them():
    disk = Disk()
    spool = files(slots=8, disk=disk)
    put(spool, range(6))
    again = files(slots=8, disk=disk.after_cut(), replay_hz=1000)
    assert again.depth == 6
    assert take(again, 0) is None
    put(again, [6, 7])
    assert numbers(replay(again)) == [6, 7, 0, 1, 2, 3, 4, 5]
    assert again.dropped == 0


def test_a_smaller_ring_after_a_restart_keeps_the_newest():
    disk = Disk()
    put(files(slots=16, disk=disk), range(16))
    spool = files(slots=8, disk=disk.after_cut())
    assert numbers(replay(spool)) == list(range(8, 16))
    assert spool.dropped == 8


def test_a_ring_that_lies_across_three_files_comes_back_whole():
    disk = Disk()
    spool = files(slots=8, disk=disk)
    put(spool, range(10))
    assert len(disk.files) == 3
    again = files(slots=8, disk=disk.after_cut())
    assert numbers(replay(again)) == list(range(2, 10))
    assert len(disk.files) == 3


def test_a_damaged_record_is_counted_and_its_neighbours_live():
    disk = Disk()
    put(files(slots=8, disk=disk), range(8))
    name = min(disk.files)
    disk.files[name][(6 + SIZE) + 9] ^= 1
    spool = files(slots=8, disk=disk)
    assert spool.storage.corrupt == 1
    assert numbers(replay(spool)) == [0, 2, 3, 4, 5, 6, 7]


def test_a_record_that_breaks_later_is_dropped_and_counted():
    disk = Disk()
    spool = files(slots=8, disk=disk)
    put(spool, range(8))
    for data in disk.files.values():
        data[6] ^= 1
    assert numbers(replay(spool)) == [1, 2, 3, 5, 6, 7]
    assert spool.dropped == 2
    assert spool.depth == 6


def test_garbage_files_are_removed():
    disk = Disk()
    disk.files = {f"{i:08x}.seg": bytearray(random.Random(i).randbytes(40 * i)) for i in range(5)}
    spool = files(slots=8, disk=disk)
    assert spool.depth == 0
    assert disk.files == {}
    put(spool, range(3))
    assert numbers(take_all(spool)) == [0, 1, 2]


def test_a_full_disk_loses_the_frame_counts_it_and_recovers():
    disk = Disk()
    spool = files(slots=8, disk=disk)
    put(spool, [0])
    disk.full = True
    with pytest.raises(OSError, match="no space"):
        put(spool, [1])
    disk.full = False
    put(spool, [2])
    assert spool.dropped == 1
    assert numbers(take_all(spool)) == [0, 2]


def run_until_cut(disk, seed):
    """Puts, releases, drops until the power goes. Returns what a restart must find, and what it may find besides."""
    rng = random.Random(seed)
    must, may, flying = set(), set(), {}
    dropped = 0
    spool = files(slots=8, disk=disk, sync_frames=1)
    try:
        for number in range(60):
            may.add(number)
            put(spool, [number])
            must.add(number)
            must -= set(sorted(must)[: spool.dropped - dropped])
            dropped = spool.dropped
            if rng.random() < 0.7 and (one := take(spool)):
                flying[one[0]] = one[1]
            if flying and rng.random() < 0.6:
                gone = rng.choice(sorted(flying))
                must.discard(gone)
                spool.release(flying.pop(gone))
    except PowerCut:
        must -= set(sorted(must)[: spool.dropped - dropped])  # the put in question made room first
    return must, may


@pytest.mark.parametrize("cache", [False, True])
def test_a_power_cut_at_any_of_1000_random_bytes(cache):
    disk = Disk()
    run_until_cut(disk, 0)
    total = 10**9 - disk.budget
    rng = random.Random(7)
    for cut in [rng.randrange(total) for _ in range(1000)]:
        disk = Disk(cut)
        must, may = run_until_cut(disk, 0)
        found = disk.after_cut(rng if cache else None)
        spool = files(slots=8, disk=found, replay_hz=1000)
        kept = numbers(replay(spool, steps=200))
        assert kept == sorted(kept)
        assert must <= set(kept) <= may
        put(spool, [100])
        assert take(spool)[0] == 100, "the ring goes on"
        again = files(slots=8, disk=found.after_cut(), replay_hz=1000)
        assert numbers(replay(again, steps=200))[-1] == 100


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.integers(0, 20), st.binary(max_size=200), max_size=6))
def test_fuzz_files_of_any_content(contents):
    disk = Disk()
    disk.files = {f"{number:08x}.seg": bytearray(data) for number, data in contents.items()}
    spool = files(slots=8, disk=disk)
    assert spool.depth <= 8
    put(spool, range(20))
    assert numbers(take_all(spool))[-1] == 19


@pytest.mark.parametrize(
    "make",
    [
        lambda: Memory(0, 10),
        lambda: Memory(10, 0),
        lambda: Segments(Disk(), 7, 10, 4),
        lambda: Segments(Disk(), 2, 10, 4),
        lambda: Segments(Disk(), 8, 70000, 4),
        lambda: Segments(Disk(), 200000, 10, 1),
    ],
)
def test_the_caller_is_told_what_cannot_be(make):
    with pytest.raises(ValueError, match=r"."):
        make()


def test_a_file_that_cannot_be_opened_again_costs_its_frame_and_counts_it():
    disk = Disk()
    storage = Segments(disk, 2 * PER, SIZE, PER)
    spool = Spool(storage)
    for number in range(PER + 1):
        spool.put(frame(number), len(frame(number)))
    opened, disk.open = disk.open, lambda name: (_ for _ in ()).throw(OSError(errno.EIO, "input/output error"))
    assert not spool.read(spool.next(0))
    disk.open = opened
    assert (storage.corrupt, spool.dropped, spool.depth) == (1, 1, PER)
    assert spool.read(spool.next(0))
    assert bytes(spool.storage.buffer[spool.storage.start : spool.storage.start + spool.storage.length]) == frame(1)
