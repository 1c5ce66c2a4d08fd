"""delaykit adds time to the synapses of existing spiking networks: delays, heterogeneity, pruning, in one call.

>>> import delaykit as dk
>>> dk.FreeDelay("axonal", max_delay=25).granularity
'axonal'

Every public name is imported on first use, so ``import delaykit`` loads no torch.
"""

import importlib
from typing import Any

import lazy_loader

__version__ = "0.1.0"

_SUBMODULES = ("errors", "functional", "hardware", "interfaces", "kernels", "nir", "plotting", "testing")
_find, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__.insert(0, "__version__")


def __getattr__(name: str) -> Any:
    if name in __all__:
        return _find(name)
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name.startswith("__"):  # asked of every module by those who look at modules
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from delaykit.names import missing_attribute

    raise AttributeError(missing_attribute(name, __all__))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
