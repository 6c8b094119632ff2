"""The native twin of move.move. Only imported where the interpreter compiles viper."""

import micropython


@micropython.viper
def move(into: object, at: int, source: object, start: int, count: int):
    to = ptr8(into)  # noqa: F821
    of = ptr8(source)  # noqa: F821
    for i in range(count):
        to[at + i] = of[start + i]
