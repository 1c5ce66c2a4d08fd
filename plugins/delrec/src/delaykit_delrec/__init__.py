"""Learned delays in recurrent (DelRec) and feed-forward (DCLS) connections of spiking networks.

>>> from delaykit_delrec import DCLS, DelRec
>>> DelRec(max_delay=30).sigma, DCLS(25).version
(10.0, 'gauss')

Every public name is imported on first use.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
