"""Synaptic delays from positions of neurons in space, learned.

>>> from delaykit_spatial import Spatial
>>> Spatial(dims=2, pre="input", post="hidden").floor
0.01

Every public name is imported on first use.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
