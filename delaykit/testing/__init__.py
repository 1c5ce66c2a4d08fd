"""The laws every component and every adapter owes, for yours too: subclass these classes in a test file.

>>> from delaykit.testing import ComponentConformance
>>> class TestMine(ComponentConformance):  # doctest: +SKIP
...     config = MyConfig(max_delay=5.0)

Needs pytest, and hypothesis for the strategies; both are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from delaykit.testing.adapters import AdapterConformance as AdapterConformance
    from delaykit.testing.adapters import LibraryNet as LibraryNet
    from delaykit.testing.adapters import adapter_on_trial as adapter_on_trial
    from delaykit.testing.conformance import ComponentConformance as ComponentConformance
    from delaykit.testing.nets.tiny import Record as Record
    from delaykit.testing.nets.tiny import TinyNet as TinyNet
    from delaykit.testing.nets.tiny import tiny_nets as tiny_nets
    from delaykit.testing.readme import Example as Example
    from delaykit.testing.readme import check_readme as check_readme

_HOME = {
    "AdapterConformance": "delaykit.testing.adapters",
    "LibraryNet": "delaykit.testing.adapters",
    "adapter_on_trial": "delaykit.testing.adapters",
    "ComponentConformance": "delaykit.testing.conformance",
    "Record": "delaykit.testing.nets.tiny",
    "TinyNet": "delaykit.testing.nets.tiny",
    "tiny_nets": "delaykit.testing.nets.tiny",
    "Example": "delaykit.testing.readme",
    "check_readme": "delaykit.testing.readme",
}
_SUBMODULES = ("adapters", "conformance", "kit", "laws_scale", "nets", "stored", "strategies")

__all__ = [
    "AdapterConformance",
    "ComponentConformance",
    "Example",
    "LibraryNet",
    "Record",
    "TinyNet",
    "adapter_on_trial",
    "check_readme",
    "tiny_nets",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"delaykit.testing.{name}")
    from delaykit.names import missing_attribute

    raise AttributeError(missing_attribute(name, __all__))
