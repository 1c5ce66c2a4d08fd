"""Spikes with exact times, over a sequence: arrivals with delays, LIF and AdEx, first spikes, and their gradients.

Every name is imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
