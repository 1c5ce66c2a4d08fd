"""Tables in Markdown, for READMEs and reports of experiments; as plain text see :mod:`delaykit.tables`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown(head: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Write a table.

    Args:
        head: names of the columns.
        rows: the cells of each row, numbers written as wanted.

    Example:
        >>> markdown(["net", "test"], [["small", "0.9"]]).splitlines()
        ['| net | test |', '|---|---|', '| small | 0.9 |']
    """
    return "\n".join([_line(head), "|" + "---|" * len(head), *(_line(row) for row in rows)])


def _line(cells: Iterable[object]) -> str:
    return "".join(f"| {cell} " if cell != "" else "| " for cell in cells) + "|"
