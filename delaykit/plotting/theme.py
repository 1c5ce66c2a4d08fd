"""One visual language: dark ink, quiet grid, one colour map a quantity, and what every chart begins with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from delaykit.errors import ConfigError, ShapeError

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

INK = "#222222"
GREY = "#8a8a8a"
CATEGORIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8a8a8a")
COLOUR_MAPS = {"delay": "cividis", "signed": "RdBu_r", "count": "Greys"}


@contextmanager
def style() -> Iterator[None]:
    """Set delaykit's look for the figures made inside, and restore the caller's afterwards.

    Example:
        >>> with style():  # doctest: +SKIP
        ...     ax = raster(spikes)
    """
    import matplotlib as mpl
    from cycler import cycler

    with mpl.rc_context(
        {
            "figure.dpi": 110,
            "savefig.dpi": 150,
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.titlesize": 11,
            "axes.titlelocation": "left",
            "axes.labelsize": 10,
            "text.color": INK,
            "axes.labelcolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "axes.edgecolor": GREY,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#e6e6e6",
            "grid.linewidth": 0.7,
            "axes.prop_cycle": cycler(color=CATEGORIES),
            "lines.linewidth": 1.8,
            "legend.frameon": True,
            "legend.framealpha": 0.5,  # a curve behind it stays visible
            "legend.edgecolor": "none",
            "image.aspect": "auto",
        }
    ):
        yield


def axes(ax: Axes | None = None, size: tuple[float, float] = (6.4, 3.6), **options: Any) -> Axes:
    """Return the axes to draw on: those given, or those of a new figure.

    Args:
        ax: where the caller wants it; None: a new figure.
        size: width and height of a new figure in inches.
        **options: for ``pyplot.subplots``, of a new figure.

    Returns:
        The axes.

    Raises:
        ConfigError: matplotlib is not installed.

    Example:
        >>> axes("where the caller wants it")
        'where the caller wants it'
    """
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        fix = "pip install 'delaykit[plot]'"
        raise ConfigError("delaykit.plotting", "no matplotlib", "the plot extra", fix) from None
    return pyplot.subplots(figsize=size, **options)[1]


def array(values: ArrayLike, dimensions: int | None, where: str, expected: str) -> NDArray[np.float64]:
    """Read numbers, or a tensor on any device, as an array of floats.

    Args:
        values: what to draw, not empty.
        dimensions: how many it must have; None: any number.
        where: its name, for the error.
        expected: what it should have been, for the error.

    Returns:
        The values.

    Raises:
        ShapeError: nothing to draw, or another number of dimensions.

    Example:
        >>> array([1, 2], 1, "delays", "(synapse,)").tolist()
        [1.0, 2.0]
    """
    import numpy as np

    detach: Any = getattr(values, "detach", None)  # a tensor, without importing torch
    try:
        numbers = np.asarray(detach().cpu() if detach is not None else values, dtype=float)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # words, or a tensor without values
        found, fix = f"a {type(values).__name__} that holds no table of numbers", "pass numbers, or a tensor of them"
        raise ShapeError(where, found, expected, fix) from None
    if not numbers.size or (dimensions is not None and numbers.ndim != dimensions):
        raise ShapeError(where, f"shape {numbers.shape}", expected, "reshape it")
    return numbers


def colours(count: int) -> list[str]:
    """List a colour for each of ``count`` categories, in their fixed order; the eighth is the first again.

    Args:
        count: how many, 0 or more.

    Example:
        >>> colours(8)[7] == CATEGORIES[0]
        True
    """
    return [CATEGORIES[k % len(CATEGORIES)] for k in range(count)]
