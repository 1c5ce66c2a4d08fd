"""Tables as plain text, for reports that are printed."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]], right: bool = False) -> str:
    """Lay out rows in columns, two spaces apart.

    Args:
        rows: the cells of each row, all of one number; the first row is the head.
        right: all columns but the first are numbers, and end at the right.

    Returns:
        A line for each row, without spaces at its end.

    Example:
        >>> print(text_table([["net", "size"], ["small", "12"]], right=True))
        net    size
        small    12
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(row, widths, strict=True)
        placed = [cell.rjust(width) if right and k else cell.ljust(width) for k, (cell, width) in enumerate(cells)]
        lines.append("  ".join(placed).rstrip())
    return "\n".join(lines)
