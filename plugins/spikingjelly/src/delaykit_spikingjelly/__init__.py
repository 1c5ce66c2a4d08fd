"""SpikingJelly in delaykit: its neurons and layers take delays and time constants as those of snnTorch and Norse do.

>>> from delaykit_spikingjelly import REFUSED
>>> REFUSED["PSN"]
'its output hears later inputs: there is no step at which a spike could be late'

With the plugin installed nothing of it needs to be imported: ``dk.wrap_`` finds the adapter.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
