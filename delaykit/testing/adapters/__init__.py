"""The laws that every adapter owes, for yours too: subclass :class:`AdapterConformance` in a test file.

>>> from delaykit.testing import AdapterConformance
>>> class TestMine(AdapterConformance):  # doctest: +SKIP
...     adapter = MyAdapter
...     nets = (MyNet(),)
"""

from delaykit.planning.survey import adapter_on_trial
from delaykit.testing.adapters.conformance import AdapterConformance
from delaykit.testing.adapters.library_net import LibraryNet

__all__ = ["AdapterConformance", "LibraryNet", "adapter_on_trial"]
