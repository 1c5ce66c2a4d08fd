"""Neurons whose own time constants are to be learned: which, of what shape, and what stands in the way."""

from __future__ import annotations

import dataclasses

import torch
from torch.nn.utils import parametrize

from delaykit.attaching.adapter import Neuron
from delaykit.attaching.neuron.time_constants import constants_of
from delaykit.attaching.retyping import original_class
from delaykit.errors import ConfigError
from delaykit.planning import survey
from delaykit.planning.reports import check_decays
from delaykit.planning.trace import Trace
from delaykit.time_constants import NeuronDecays, TimeConstants

AGAIN = "call dk.unwrap_(net) first, then wrap with all rules"


@dataclasses.dataclass(frozen=True)
class ConstantsPlan:
    """One state of one neuron that gets decays.

    Args:
        neuron: the neuron.
        config: what was asked for.
        shape: of the decays.
    """

    neuron: Neuron
    config: TimeConstants
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name for tables and messages, e.g. ``lif1.membrane``."""
        return ".".join(part for part in (self.neuron.path, self.config.state) if part)

    def row(self) -> tuple[str, ...]:
        """Return the cells of the printed plan."""
        size = "x".join(map(str, self.shape)) or "1"
        parts, extra = f"TimeConstants({self.config.per})", str(torch.Size(self.shape).numel())
        return self.name, size, self.neuron.path or "-", parts, extra, "every step", "-"

    def build(self, generator: torch.Generator | None = None) -> NeuronDecays:
        """Make the decays; a DelaykitError refuses what does not fit the neuron."""
        own = self.neuron.adapter.decays(self.neuron.module)[self.config.state]
        return self.config.build_neuron(self.name, self.shape, own, generator)


def plan_constants(neuron: Neuron, config: TimeConstants, trace: Trace | None) -> ConstantsPlan:
    """Decide what one neuron gets.

    Raises:
        DelaykitError: it has no such decay, learns it already, or has features that nobody knows.
    """
    survey.refuse_taken(neuron.path, neuron.module)
    where, kind = neuron.path or "model", original_class(neuron.module).__name__
    known = neuron.adapter.decays(neuron.module)
    check_decays(neuron, known, features(neuron, trace))
    if config.state not in known or neuron.adapter.learned is None:
        found = f"{kind}, of which delaykit knows {' and '.join(f'a {s}' for s in known) or 'no'} decay"
        fix = f"use TimeConstants({next(iter(known))!r})" if known else "leave it out of the rule"
        raise ConfigError(where, found, f"a neuron with one {config.state} decay of its own", fix)
    if parametrize.is_parametrized(neuron.module):
        fix = "wrap first, then register the parametrization"
        raise ConfigError(where, "a parametrized neuron", "a module without parametrizations", fix)
    if config.state in constants_of(neuron.module):
        raise ConfigError(where, f"a {config.state} decay that was given before", "the neuron's own", AGAIN)
    if known[config.state].requires_grad:
        found = f"{kind}, whose {config.state} decay is learned already"
        fix = "build it without (snnTorch: learn_beta=False, learn_alpha=False), and pass that number as init="
        raise ConfigError(where, found, "a decay that is a number", fix)
    plan = ConstantsPlan(neuron, config, config.shape(where, features(neuron, trace)))
    plan.build(torch.Generator().manual_seed(0))  # what cannot be built is an issue, not a half-wrapped model
    return plan


def features(neuron: Neuron, trace: Trace | None) -> tuple[int, ...] | None:
    """Return the features of a neuron, channel first, as the example showed them; None where it did not."""
    calls = trace.neurons.get(neuron.path, []) if trace is not None else []
    return calls[0].output_shape[2 if neuron.style == "sequence" else 1 :] if calls else None
