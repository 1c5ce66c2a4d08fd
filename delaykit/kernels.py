"""The former name of :mod:`delaykit.arrivals`, kept for ``from delaykit.kernels import ...``."""

from delaykit.arrivals import Gaussian, Hard, Kernel, Linear, Triangle

__all__ = ["Gaussian", "Hard", "Kernel", "Linear", "Triangle"]
