"""Ints of a 32-bit MicroPython: arithmetic that leaves 31 bits would allocate there, so it fails here."""

LIMIT = 2**30


class Small(int):
    def _checked(self, value):
        if not -LIMIT <= value < LIMIT:
            raise OverflowError(f"{value} does not fit 31 bits")
        return Small(value)


def _checking(operation):
    return lambda self, other: self._checked(operation(self, other))


for _name in ("add", "sub", "mul", "floordiv", "mod", "and", "or", "xor", "lshift", "rshift"):
    for _side in (f"__{_name}__", f"__r{_name}__"):
        setattr(Small, _side, _checking(getattr(int, _side)))
Small.__neg__ = lambda self: self._checked(-int(self))


def small(values):
    """A list of them, in place of a buffer."""
    return [Small(v) for v in values]
