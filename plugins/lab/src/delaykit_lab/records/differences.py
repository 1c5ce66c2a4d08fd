"""Differences of pairs, one a seed: what training something is worth over leaving it as it was drawn."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from delaykit_lab.records.statistics import interval, standard_error
from delaykit_lab.records.tables import markdown

ENOUGH = 3  # seeds
POINTS = 100.0  # of an accuracy of 1


def verdict(values: Sequence[float]) -> str:
    """Say in words what differences of paired seeds show, more being better.

    Fewer than three seeds show nothing. Three and more do where the 95 % interval of their mean by Student's t leaves
    out zero; where many pairs are listed, one in twenty will be so by chance.

    Args:
        values: learned minus frozen, one a seed.

    Example:
        >>> verdict([2.0, 2.5, 3.0]), verdict([1.0, 2.0, 3.0]), verdict([9.0])
        ('learning helps', 'not shown', 'too few seeds')
    """
    if len(values) < ENOUGH:
        return "too few seeds"
    mean, (low, high) = statistics.mean(values), interval(values)
    if low > 0 or high < 0:
        return "learning helps" if mean > 0 else "freezing is better"
    return "not shown"


def signed(values: Sequence[float]) -> str:
    """Write the mean of differences in points with its sign and, where there are several, its standard error.

    Example:
        >>> signed([0.01, 0.02]), signed([-0.5])
        ('+1.5 ± 0.5', '-50.0')
    """
    error = standard_error([POINTS * value for value in values])
    return f"{POINTS * statistics.mean(values):+.1f}" + ("" if error is None else f" ± {error:.1f}")


def differences_table(found: Mapping[str, Sequence[float]]) -> str:
    """Write a Markdown table, a case a line: every seed's difference, the mean, and what it shows.

    Args:
        found: learned minus frozen by case, one a seed.

    Example:
        >>> print(differences_table({"as it is": [0.01, 0.02]}))
        |  | learned - frozen, each seed (points) | mean ± s.e. | |
        |---|---|---|---|
        | as it is | +1.0 +2.0 | +1.5 ± 0.5 | too few seeds |
    """
    lines = []
    for name, values in found.items():
        each = " ".join(f"{POINTS * value:+.1f}" for value in values)
        lines.append([name, each, signed(values), verdict(values)])
    return markdown(["", "learned - frozen, each seed (points)", "mean ± s.e.", ""], lines)


def differences_picture(found: Mapping[str, Sequence[float]], title: str, path: Path) -> None:
    """Draw every difference as a dot, and the mean of each case as a line.

    Args:
        found: learned minus frozen by case, one a seed.
        title: above the picture.
        path: where it is written.
    """
    from matplotlib import pyplot

    from delaykit.plotting import CATEGORIES, GREY, style

    with style():
        figure, ax = pyplot.subplots(figsize=(6.8, 0.6 + 0.34 * len(found)))
        for k, values in enumerate(found.values()):
            ax.plot([POINTS * value for value in values], [k] * len(values), "o", color=CATEGORIES[0], alpha=0.6)
            mean = POINTS * statistics.mean(values)
            ax.plot([mean], [k], "|", color=CATEGORIES[1], markersize=14, markeredgewidth=2)
        ax.axvline(0, color=GREY, linewidth=1)
        ax.set(xlabel="learned minus frozen, validation (points)", title=title)
        ax.set_yticks(range(len(found)), list(found))
        ax.invert_yaxis()
        figure.savefig(path)
        pyplot.close(figure)
