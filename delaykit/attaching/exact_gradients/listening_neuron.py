"""The neuron that listens to an exact connection."""

from __future__ import annotations

import contextvars
import copy
import pickle
from typing import Any

from torch import nn

from delaykit.attaching.exact_gradients.neurons import constants_of
from delaykit.attaching.neuron_reading import ReadsNeurons
from delaykit.errors import ConfigError
from delaykit.functional.event_gradients.rule import NeuronConstants


class ListeningNeuron:
    """The neuron that listens to one exact connection; see :class:`delaykit.engines.exact_gradients.Listener`.

    A connection that is pickled alone leaves a neuron behind that cannot be pickled; a net pickles as it did before.
    """

    def __init__(self, module: nn.Module | None, adapter: ReadsNeurons, hears_spikes: bool) -> None:
        self.module, self.adapter, self.hears_spikes = module, adapter, hears_spikes

    def constants(self) -> NeuronConstants:
        """Return the neuron's time constants as they are now.

        Raises:
            ConfigError: the connection came alone out of a pickle, or its neuron was changed to another kind.
        """
        if self.module is None:
            found = "an exact connection that was pickled without its neuron"
            raise ConfigError("estimator='exact'", found, "the net it belongs to", "pickle the net, or use dk.save")
        dynamics = self.adapter.dynamics(self.module)
        if dynamics is None:  # the plan saw one
            found = "a neuron that was changed after wrapping, to equations that exact gradients do not know"
            expected = "the neuron as it was in the plan (reset, graded spikes, quantised states)"
            fix = "change it back, or unwrap, change it and wrap again"
            raise ConfigError("estimator='exact'", found, expected, fix)
        return constants_of(dynamics)

    def __deepcopy__(self, memo: dict[int, Any]) -> ListeningNeuron:
        return ListeningNeuron(copy.deepcopy(self.module, memo), self.adapter, self.hears_spikes)

    def __reduce__(self) -> tuple[Any, ...]:
        return ListeningNeuron, (self.module if _pickles(self.module) else None, self.adapter, self.hears_spikes)


_probing: contextvars.ContextVar[bool] = contextvars.ContextVar("delaykit_probing", default=False)


def _pickles(module: nn.Module | None) -> bool:
    if _probing.get():  # the neuron under trial has exact connections of its own, which lead back to it
        return False
    token = _probing.set(True)
    try:
        pickle.dumps(module)
    except Exception:  # a surrogate that is a closure, a class made at run time: anything may be in there
        return False
    finally:
        _probing.reset(token)
    return True
