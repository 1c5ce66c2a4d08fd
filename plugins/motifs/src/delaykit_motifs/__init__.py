"""Multi-delay weights: a connection with a weight for each synapse and each delay, and a memory made of them.

>>> from delaykit_motifs import Motif
>>> Motif(depth=41).depth
41

Every public name is imported on first use.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
