"""Copy bytes between buffers without allocating.

A slice of a memoryview costs 32 bytes of heap on MicroPython, so the path from FIFO to socket copies with this instead.
"""

import sys

if sys.implementation.name == "cpython":

    def move(into, at, source, start, count):
        """Copy source[start:start + count] to into[at:at + count]. Overlap is fine downwards (at < start)."""
        memoryview(into)[at : at + count] = memoryview(source)[start : start + count]

else:
    try:
        from triax.kernels_viper import move
    except (ImportError, SyntaxError):  # an interpreter without native code, as WebAssembly's

        def move(into, at, source, start, count):
            for i in range(count):
                into[at + i] = source[start + i]
