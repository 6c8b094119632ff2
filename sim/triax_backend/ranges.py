"""Sets of numbers as ascending, apart [start, end) ranges."""

from bisect import bisect_right

__all__ = ["add_to"]


def add_to(older: list[list[int]], number: int) -> bool:
    """Add a number to ascending ranges; False if it was there."""
    at = bisect_right(older, number, key=lambda r: r[0])
    before = older[at - 1] if at else None
    after = older[at] if at < len(older) else None
    if before is not None and number < before[1]:
        return False
    if before is not None and number == before[1]:
        before[1] = number + 1
        if after is not None and after[0] == before[1]:
            before[1] = after[1]
            del older[at]
    elif after is not None and number + 1 == after[0]:
        after[0] = number
    else:
        older.insert(at, [number, number + 1])
    return True
