"""Learning with exact spike times, many spikes per neuron, and delays.

>>> from delaykit_timing import Events, MultiSpikeLIF
>>> layer = MultiSpikeLIF(2, 1, tau_synapse=0.8)
>>> layer(Events.of([[0.1, 0.2]], [[0, 1]], size=2)).size
1

Every public name is imported on first use.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
