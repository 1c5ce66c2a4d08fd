"""A time constant for each synapse of a spiking network (HetSyn).

>>> from delaykit_hetsyn import HetSyn
>>> HetSyn().granularity
'synaptic'

Every public name is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from delaykit_hetsyn.config import HetSyn as HetSyn
    from delaykit_hetsyn.connection import Connection as Connection
    from delaykit_hetsyn.layer import HetSynLIF as HetSynLIF
    from delaykit_hetsyn.layer import attach as attach
    from delaykit_hetsyn.layer import param_groups as param_groups
    from delaykit_hetsyn.layer import project_ as project_
    from delaykit_hetsyn.models import MODELS as MODELS
    from delaykit_hetsyn.models import Answer as Answer
    from delaykit_hetsyn.models import HetSynNet as HetSynNet
    from delaykit_hetsyn.models import Neurons as Neurons
    from delaykit_hetsyn.models import make_layer as make_layer
    from delaykit_hetsyn.plots import answer as answer
    from delaykit_hetsyn.plots import membranes as membranes
    from delaykit_hetsyn.plots import tau_histogram as tau_histogram
    from delaykit_hetsyn.regularise import rate_penalty as rate_penalty
    from delaykit_hetsyn.reset_currents import AdaptationCurrent as AdaptationCurrent
    from delaykit_hetsyn.reset_currents import ResetCurrent as ResetCurrent
    from delaykit_hetsyn.reset_currents import SelfCurrent as SelfCurrent
    from delaykit_hetsyn.reset_currents import ZeroReset as ZeroReset
    from delaykit_hetsyn.rollout import rollout as rollout
    from delaykit_hetsyn.surrogates import MultiGaussian as MultiGaussian
    from delaykit_hetsyn.surrogates import Surrogate as Surrogate
    from delaykit_hetsyn.surrogates import Triangle as Triangle
    from delaykit_hetsyn.time_constants import decay_of as decay_of
    from delaykit_hetsyn.time_constants import draw as draw
    from delaykit_hetsyn.time_constants import tau_of as tau_of

__version__ = "0.1.0"

_NAMES_OF = {
    "config": "HetSyn",
    "connection": "Connection",
    "layer": "HetSynLIF attach param_groups project_",
    "models": "MODELS Answer HetSynNet Neurons make_layer",
    "plots": "answer membranes tau_histogram",
    "regularise": "rate_penalty",
    "reset_currents": "AdaptationCurrent ResetCurrent SelfCurrent ZeroReset",
    "rollout": "rollout",
    "surrogates": "MultiGaussian Surrogate Triangle",
    "time_constants": "decay_of draw tau_of",
}
_HOME = {name: module for module, names in _NAMES_OF.items() for name in names.split()}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
