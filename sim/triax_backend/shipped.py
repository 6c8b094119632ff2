"""Files that are not code: a checkout has them where a reader looks for them, a wheel inside the package that needs them."""

from pathlib import Path

__all__ = ["shipped"]


def shipped(package: str, checkout: str) -> Path:
    """The folder `checkout`, relative to where the package lies (`package`: its `__file__`); of a wheel, files/<name> inside it."""
    inside = Path(package).parent
    found = inside / "files" / Path(checkout).name
    return found if found.exists() else (inside.parent / checkout).resolve()
