"""The console script ``delaykit``: explains itself when the extra that it needs is not installed."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say which extra to install."""
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ImportError as error:
        sys.exit(f"delaykit: the command line needs {error.name}; install it with: pip install 'delaykit[cli]'")
    from delaykit.commands.cli import build

    build()(prog_name="delaykit")


if __name__ == "__main__":
    main()
