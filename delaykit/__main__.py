"""The console script ``delaykit``: help, version and doctor in plain words where the extra ``cli`` is not installed."""

from __future__ import annotations

import sys

NEEDED = ("click", "rich")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line, or what of it needs nothing but the core, and say which extra has the rest.

    Args:
        arguments: words of the command line; None: those of this process.
    """
    missing = _missing()
    if not missing:
        from delaykit.commands.cli import build

        build()(args=arguments, prog_name="delaykit")
    words = sys.argv[1:] if arguments is None else arguments
    needs = f"{' and '.join(missing)}; install with: pip install 'delaykit[cli]'"
    if words[:1] == ["doctor"]:
        _doctor()
    elif words[:1] == ["--version"]:
        import delaykit

        print(f"delaykit, version {delaykit.__version__}")
    elif words and words[0] not in ("--help", "-h"):
        sys.exit(f"delaykit: the command {words[0]!r} needs {needs}")
    else:
        print("Usage: delaykit doctor | --version | --help\n")
        print("  doctor  Check what is installed, and what to install.\n")
    print(f"delaykit: the other commands need {needs}")


def _missing() -> list[str]:
    missing = []
    for name in NEEDED:
        try:
            __import__(name)
        except ImportError:
            missing.append(name)
    return missing


def _doctor() -> None:
    """Print what ``delaykit doctor`` shows, in plain text."""
    from delaykit.commands import health
    from delaykit.plugins.registry import loader
    from delaykit.tables import text_table

    rows = [*health.required(), *health.optional(), *health.plugins(loader())]
    marks = ["ok" if row.ok else "broken" if row.needed or row.broken else "absent" for row in rows]
    lines = [(row.what, mark, row.detail) for row, mark in zip(rows, marks, strict=True)]
    print(text_table([("what", "", "detail"), *lines]))
    if any(row.needed and not row.ok for row in rows):
        sys.exit("delaykit: something that delaykit needs is missing or broken, see the table")


if __name__ == "__main__":
    main()
