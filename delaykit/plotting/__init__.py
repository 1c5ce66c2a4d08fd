"""Pictures of delays, in one visual language: dark ink, quiet grid, one colour map a quantity, colour-blind safe.

Every function draws on ``ax`` (or on a new one), labels its axes with units, returns the axes and never shows them.
Delays are ``cividis``, signed weights and responses ``RdBu_r``, categories the Okabe-Ito colours in a fixed order.
matplotlib is imported when a function is called, not before. A plugin's pictures begin with :func:`axes`, :func:`array`
and :func:`colours`.
"""

from delaykit.plotting.charts import accuracies, delay_histogram, delay_pairs, kernel, learning_curves, raster
from delaykit.plotting.theme import CATEGORIES, COLOUR_MAPS, GREY, INK, array, axes, colours, style

__all__ = [
    "CATEGORIES", "COLOUR_MAPS", "GREY", "INK", "accuracies", "array", "axes", "colours", "delay_histogram",
    "delay_pairs", "kernel", "learning_curves", "raster", "style",
]  # fmt: skip
