"""CPython's store and spool folder on a POSIX file system."""

import os
import threading
from queue import SimpleQueue


class Store:
    """Small named values. A write is on the disk, whole, or has not happened. Blocks for one fsync (SD card: 5 to 200 ms)."""

    def __init__(self, folder: str) -> None:
        os.makedirs(folder, exist_ok=True)
        self._folder = folder

    def read(self, name: str):
        """The value, or None."""
        try:
            with open(os.path.join(self._folder, name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Keep it. Raises OSError."""
        path = os.path.join(self._folder, name)
        with open(path + ".new", "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + ".new", path)
        _sync_folder(self._folder)


class Files:
    """A folder of segments. `sync` is done by a thread: an SD card may take 200 ms, a FIFO lasts for 6."""

    def __init__(self, folder: str) -> None:
        os.makedirs(folder, exist_ok=True)
        self._folder = folder
        self._queue = SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def names(self) -> list:
        """Files in the folder."""
        return os.listdir(self._folder)

    def open(self, name: str):
        """For reading and writing, created if absent, unbuffered: a failed write leaves nothing behind for later."""
        descriptor = os.open(os.path.join(self._folder, name), os.O_RDWR | os.O_CREAT, 0o644)
        return os.fdopen(descriptor, "r+b", buffering=0)

    def remove(self, name: str) -> None:
        """Delete a file."""
        os.remove(os.path.join(self._folder, name))

    def sync(self, file) -> None:
        """Have what was written put on the disk, soon."""
        self._queue.put(os.dup(file.fileno()))

    def _work(self) -> None:
        while True:
            descriptor = self._queue.get()
            try:
                os.fsync(descriptor)
            except OSError:
                pass  # the next write or the next recovery will tell
            finally:
                os.close(descriptor)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
