"""MicroPython's store and spool folder on a file system that replaces a file in one step (littlefs; POSIX on the unix port).

What blocks: a write, for the flash's erase stall (hardware/boards). A spool of segments belongs on an SD card or on a part whose
FIFO outlasts that stall.
"""

import os


def _make(folder: str) -> None:
    try:
        os.mkdir(folder)
    except OSError:
        pass  # it is there; if not, the first write tells


class Store:
    """Small named values. A write is there, whole, or has not happened."""

    def __init__(self, folder: str) -> None:
        _make(folder)
        self._folder = folder

    def read(self, name: str):
        """The value, or None."""
        try:
            with open(self._folder + "/" + name, "rb") as file:
                return file.read()
        except OSError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Keep it. Raises OSError."""
        path = self._folder + "/" + name
        with open(path + ".new", "wb") as file:
            if file.write(data) != len(data):
                raise OSError(28)
        os.rename(path + ".new", path)


class Files:
    """A folder of segments."""

    def __init__(self, folder: str) -> None:
        _make(folder)
        self._folder = folder

    def names(self) -> list:
        """Files in the folder."""
        return os.listdir(self._folder)

    def open(self, name: str):
        """For reading and writing, created if absent."""
        path = self._folder + "/" + name
        try:
            return open(path, "r+b")
        except OSError:
            return open(path, "w+b")

    def remove(self, name: str) -> None:
        """Delete a file."""
        os.remove(self._folder + "/" + name)

    def sync(self, file) -> None:
        """littlefs puts a file on the flash when it is flushed."""
        file.flush()
