"""Copy bytes between buffers without allocating.

A slice of a memoryview costs 32 bytes of heap on MicroPython, so the path from FIFO to socket copies with this instead.
"""

import sys


def _move_slices(into, at, source, start, count):
    memoryview(into)[at : at + count] = memoryview(source)[start : start + count]


def _move_bytes(into, at, source, start, count):
    for i in range(count):
        into[at + i] = source[start + i]


def _choose():
    if sys.implementation.name == "cpython":
        return _move_slices
    try:
        from triax.kernels_viper import move

        return move
    except (ImportError, SyntaxError):  # an interpreter without native code, as WebAssembly's
        return _move_bytes


# move(into, at, source, start, count): copy source[start:start+count] to into[at:at+count]. Overlap is fine downwards (at < start).
move = _choose()
