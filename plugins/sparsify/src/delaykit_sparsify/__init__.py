"""Dynamic sparsification, and sparse inference that is smaller and faster in fact.

>>> from delaykit_sparsify import DynamicSparsity
>>> DynamicSparsity(0.9).sparsity
0.9

Every public name is imported on first use.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
