"""Entry of the `triax` command: names the extra to install where the host's libraries are absent."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed or FAIL, 2 wrong usage or INVALID."""
    try:
        from triax_tools.cli import build

        app = build(next((word for word in sys.argv[1:] if not word.startswith("-")), None))
    except ModuleNotFoundError as error:
        sys.exit(f"triax: {error.name} is not installed; the host tools need `pip install 'triax[tools]'`")
    try:
        app()
    except OSError as error:  # a file, a folder, a disk
        sys.exit(f"triax: {error}")


if __name__ == "__main__":
    main()
