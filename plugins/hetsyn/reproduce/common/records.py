"""How a number that was found with several seeds is written."""

from __future__ import annotations

import statistics


def spread(values: list[float], digits: int = 1) -> str:
    """Write a mean with the smallest and the largest value."""
    return f"{statistics.mean(values):.{digits}f} ({min(values):.{digits}f} .. {max(values):.{digits}f})"
