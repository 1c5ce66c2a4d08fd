from .adapter import SpikingJellyAdapter as SpikingJellyAdapter
from .dynamics import dynamics_of as dynamics_of
from .dynamics import leak_of as leak_of
from .neurons import ADDITIVE as ADDITIVE
from .neurons import REFUSED as REFUSED

__version__: str
