"""The former name of :mod:`delaykit.arrivals`, kept for ``from delaykit.kernels import ...``."""

from delaykit.arrivals import (  # noqa: F401 - numbers that were there before
    GAUSSIAN_FLOOR,
    GAUSSIAN_REACH,
    GAUSSIAN_REACH_FLOAT32,
    MAX_DIRECT_RADIUS,
    NORMALIZE_EPSILON,
    Gaussian,
    Hard,
    Kernel,
    Linear,
    Triangle,
)
from delaykit.functional.event_gradients.rule import whole_taps
from delaykit.functional.second_differences import triangle_taps
from delaykit.functional.taps import Taps
from delaykit.functional.tents import Tents

__all__ = [
    "Gaussian",
    "Hard",
    "Kernel",
    "Linear",
    "Taps",
    "Tents",
    "Triangle",
    "triangle_taps",
    "whole_taps",
]
