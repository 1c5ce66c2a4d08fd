"""The exact estimator in a synapse: the neuron that listens, and the engines that know of it."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from delaykit.engines.linear import LineEngine, MatrixEngine, Product
from delaykit.errors import ConfigError
from delaykit.functional.engine_base import Engine, Stepper
from delaykit.functional.event_gradients.rule import NeuronConstants, emissions_of
from delaykit.functional.event_gradients.tape import ExactLinearTape, ExactLineTape, Receiver
from delaykit.functional.taps import Taps
from delaykit.interfaces import Delay, Heterogeneity, PointDelay, Site

INTERP = "use estimator='interp'"


class Listener(Protocol):
    """The neuron behind a connection with exact gradients."""

    @property
    def hears_spikes(self) -> bool:
        """Whether the connection's input comes from neurons, whose spikes' times have a gradient, or from data."""

    def constants(self) -> NeuronConstants:
        """Return the neuron's time constants as they are now."""


class ExactMatrixEngine(MatrixEngine):
    """A point delay on a ``(post, pre)`` matrix, any granularity, with exact gradients."""

    def __init__(self, taps: Taps, weight: Tensor, bias: Tensor | None, behind: bool, receiver: Receiver) -> None:
        super().__init__(taps, weight, bias, behind)
        self.receiver = receiver

    def sequence(self, spikes: Tensor) -> Tensor:
        return _all_steps(self.tape(), spikes, self.receiver)

    def tape(self) -> Stepper:
        return ExactLinearTape(*self.parameters, self.receiver, behind=self.behind, remember=self.remember)

    def rebind(self, tape: Any) -> None:
        tape.receiver = self.receiver
        tape.rebind(*self.parameters)


class ExactLineEngine(LineEngine):
    """A delay line before a linear module, e.g. a convolution, with exact gradients."""

    def __init__(self, taps: Taps, product: Product, receiver: Receiver) -> None:
        super().__init__(taps, product, before=True)
        self.receiver = receiver

    def sequence(self, spikes: Tensor) -> Tensor:
        delayed = _all_steps(self.tape(), spikes, self.receiver)
        return self.product.with_bias(delayed.flatten(0, 1)).unflatten(0, delayed.shape[:2])

    def tape(self) -> Stepper:
        return ExactLineTape(self.taps, self.receiver, remember=self.remember)

    def rebind(self, tape: Any) -> None:
        tape.receiver = self.receiver
        tape.rebind(self.taps)


def _all_steps(tape: Any, spikes: Tensor, receiver: Receiver) -> Tensor:
    sources = emissions_of(spikes, receiver.where, receiver.expected)
    return torch.stack([tape.step_from(x, source) for x, source in zip(spikes, sources, strict=True)])


def exact_engine(where: str, delay: PointDelay, listener: Listener | None, product: Product) -> Engine:
    """Return the engine of a connection whose delay has ``estimator="exact"`` and passed :func:`refuse_exact`.

    Raises:
        ConfigError: no neuron that the rule is written for hears the connection, or its time constants do not fit.
    """
    if listener is None:
        expected = "a connection that dk.wrap_ put behind a neuron it knows"
        raise ConfigError(where, "estimator='exact' without a neuron that listens", expected, INTERP)
    constants = listener.constants()
    receiver = Receiver(where, constants, listener.hears_spikes)
    if product.weight is not None:
        behind = delay.granularity == "dendritic"
        return ExactMatrixEngine(delay.taps(), product.weight, product.bias, behind, receiver)
    if constants.alpha.numel() > 1 or constants.beta.numel() > 1:
        found = "estimator='exact' on a convolution before neurons with different time constants"
        raise ConfigError(where, found, "one alpha and one beta", INTERP)
    return ExactLineEngine(delay.taps(), product, receiver)


def refuse_exact(site: Site, delay: Delay | None, heterogeneity: Heterogeneity | None) -> None:
    """Raise for parts that exact gradients do not go with; nothing where the estimator is another one.

    Raises:
        ConfigError: a delay that is no point delay, a heterogeneity, or a dendritic delay without a matrix.
    """
    where = site.name
    if delay is None or delay.estimator != "exact":
        return
    if not isinstance(delay, PointDelay):
        found = f"estimator='exact' on {type(delay).__name__}"
        raise ConfigError(where, found, "a delay with one arrival a spike", INTERP)
    if heterogeneity is not None:
        found = f"estimator='exact' together with {type(heterogeneity).__name__}"
        raise ConfigError(where, found, "a delay alone", INTERP)
    if not site.has_matrix and delay.granularity == "dendritic":
        found = "estimator='exact' on dendritic delays of a convolution"
        raise ConfigError(where, found, "delays before the convolution", f"use axonal delays, or {INTERP}")
