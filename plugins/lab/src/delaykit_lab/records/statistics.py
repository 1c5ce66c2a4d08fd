"""What the numbers support: means, standard errors, intervals and plain sentences."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from delaykit.tables import text_table

CONFIDENCE = 0.95
FITTED = 0.9  # training accuracy below which a run counts as failed


@dataclasses.dataclass(frozen=True)
class WelchInterval:
    """The difference of two mean accuracies, in points (per cent of the test set).

    Args:
        difference: mean of the first minus mean of the second.
        low: lower end of the 95 % interval; None where one seed gives none.
        high: upper end.
    """

    difference: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """``more``, ``less``, ``within`` (the error) or ``unknown`` (one seed)."""
        if self.low is None or self.high is None:
            return "unknown"
        return "more" if self.low > 0 else "less" if self.high < 0 else "within"


def standard_error(values: Sequence[float]) -> float | None:
    """Standard error of the mean over seeds, s / sqrt(n); None for a single seed.

    Example:
        >>> standard_error([0.8, 0.9])
        0.05
    """
    if len(values) < 2:
        return None
    return round(float(np.std(values, ddof=1) / math.sqrt(len(values))), 12)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean over seeds, by Student's t.

    Args:
        values: one a seed, two or more.

    Example:
        >>> "{:.2f} {:.2f}".format(*interval([2.0, 2.5, 3.0]))
        '1.26 3.74'
    """
    from scipy import stats  # type: ignore[import-untyped]

    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)) * (standard_error(values) or 0.0)
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def welch_interval(first: Sequence[float], second: Sequence[float], samples: int) -> WelchInterval:
    """Compare two methods by Welch's t interval over seeds.

    difference +- t(95 %, df) sqrt(e1^2 + e2^2), df after Welch and Satterthwaite. The error is never taken to be below
    one test sample, the resolution of an accuracy.

    Args:
        first: accuracies of the seeds, fractions.
        second: the same of the method compared with.
        samples: number of test samples.

    Reference: Welch 1947, Biometrika 34, 28-35.

    Example:
        >>> welch_interval([0.95, 0.94, 0.96], [0.88, 0.90, 0.89], samples=370).verdict
        'more'
    """
    difference = 100.0 * float(np.mean(first) - np.mean(second))
    errors = standard_error(first), standard_error(second)
    if errors[0] is None or errors[1] is None:
        return WelchInterval(difference, None, None)
    from scipy import stats

    variances = [max(error, 1.0 / samples) ** 2 for error in errors if error is not None]
    counts = len(first), len(second)
    freedom = sum(variances) ** 2 / sum(v**2 / (n - 1) for v, n in zip(variances, counts, strict=True))
    half = 100.0 * float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)) * math.sqrt(sum(variances))
    return WelchInterval(difference, difference - half, difference + half)


def conclusions(accuracies: Mapping[str, Sequence[float]], samples: int) -> list[str]:
    """Say in plain words what the variants' test accuracies support.

    Args:
        accuracies: for ``bare``, ``frozen``, ``learned`` and ``whole`` (learned as whole steps) the accuracy of each
            seed, as fractions.
        samples: number of test samples.

    Returns:
        Sentences, one a line.
    """
    bare, frozen, learned, whole = (accuracies[name] for name in ("bare", "frozen", "learned", "whole"))
    lines = [
        _sentence("Random delays against none", welch_interval(frozen, bare, samples), "delays help", "delays hurt"),
        _sentence("Learned delays against none", welch_interval(learned, bare, samples), "delays help", "delays hurt"),
        _sentence(
            "Learned against random delays",
            welch_interval(learned, frozen, samples),
            "learning helps",
            "learning hurts",
        ),
        _sentence(
            "Learned whole steps against none", welch_interval(whole, bare, samples), "delays help", "delays hurt"
        ),
    ]
    if len(bare) > 1:
        typical = float(np.mean(bare))
        error = 100.0 * math.sqrt(typical * (1.0 - typical) / samples)
        lines.append(
            f"The intervals cover the seeds only; a test set of {samples} samples is itself uncertain by about "
            f"{error:.1f} points."
        )
    return lines


def training_failures(train_accuracies: Mapping[str, Sequence[float]]) -> list[str]:
    """Warn of nets that did not fit their own training data: their test accuracy tells of the optimiser, not of delays.

    Example:
        >>> training_failures({"no delays": [0.99, 0.4], "learned delays": [1.0, 1.0]})
        ['no delays: 1 of 2 runs did not fit the training data (below 90 %), so comparisons with it tell of training.']
    """
    lines = []
    for title, values in train_accuracies.items():
        failed = sum(value < FITTED for value in values)
        if failed:
            lines.append(
                f"{title}: {failed} of {len(values)} runs did not fit the training data (below {100 * FITTED:.0f} %), "
                "so comparisons with it tell of training."
            )
    return lines


def table(rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows in columns, the first to the left, the others to the right; the first row is the head.

    Example:
        >>> print(table([["net", "size"], ["a", "12"]]))
        net  size
        ---------
        a      12
    """
    head, *lines = text_table(rows, right=True).splitlines()
    return "\n".join([head, "-" * len(head), *lines])


def percent(values: Sequence[float]) -> str:
    """Write mean and standard error in per cent.

    Example:
        >>> percent([0.8, 0.9]), percent([0.5])
        ('85.0 +- 5.0 %', '50.0 %')
    """
    error = standard_error(values)
    mean = 100.0 * float(np.mean(values))
    return f"{mean:.1f} %" if error is None else f"{mean:.1f} +- {100 * error:.1f} %"


def chance_levels(labels: Tensor, classes: int) -> tuple[float, float]:
    """Return the accuracy of uniform guessing, and that of always naming the most frequent class of ``labels``."""
    return 1.0 / classes, float(labels.bincount().max()) / len(labels)


def _sentence(what: str, comparison: WelchInterval, better: str, worse: str) -> str:
    start = f"{what}: {comparison.difference:+.1f} points"
    if comparison.verdict == "unknown":
        return f"{start}. One seed gives no error bar, so this supports nothing yet: use more seeds."
    start += f" (95 % interval {comparison.low:+.1f} to {comparison.high:+.1f})"
    if comparison.verdict == "within":
        return f"{start}: within the error, no difference is shown."
    return f"{start}: {better if comparison.verdict == 'more' else worse} here."
