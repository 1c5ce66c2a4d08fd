"""A time constant for each synapse of a spiking network (HetSyn).

>>> from delaykit_hetsyn import HetSyn
>>> HetSyn().granularity
'synaptic'

Every public name is imported on first use.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
