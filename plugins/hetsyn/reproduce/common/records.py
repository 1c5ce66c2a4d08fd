"""How a number that was found with several seeds is written."""

from __future__ import annotations

import statistics


def spread(values: list[float], digits: int = 1) -> str:
    """Write a mean with the smallest and the largest value."""
    return f"{statistics.mean(values):.{digits}f} ({min(values):.{digits}f} .. {max(values):.{digits}f})"


def thinned(values: list[float], most: int = 100) -> list[float]:
    """Return means over as many equal pieces of a curve, rounded: small records.

    Example:
        >>> thinned([1.0, 3.0, 5.0, 7.0], most=2)
        [2.0, 6.0]
    """
    piece = max(1, -(-len(values) // most))
    return [round(statistics.mean(values[k : k + piece]), 4) for k in range(0, len(values), piece)]
