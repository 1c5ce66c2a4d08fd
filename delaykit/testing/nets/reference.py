"""The judge of whole networks: neurons as their equations say, connections as dense impulse responses, step by step.

Nothing here is shared with the code under test.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class _SurrogateSpike(torch.autograd.Function):
    """1 where x > 0; backward as if the slope were ``1 / (1 + scale |x|)^2`` (Zenke & Ganguli 2018, SuperSpike)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.scale = scale
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grad / (1 + ctx.scale * x.abs()) ** 2, None


def surrogate_spike(x: Tensor, scale: float = 2.0) -> Tensor:
    """Fire where ``x > 0``, with a surrogate gradient that keeps the dtype (snnTorch's own return float32).

    Args:
        x: membrane minus threshold, any shape.
        scale: steepness of the surrogate ``1 / (1 + scale |x|)^2``, > 0.

    Example:
        >>> surrogate_spike(torch.tensor([-1.0, 0.5])).tolist()
        [0.0, 1.0]
    """
    return _SurrogateSpike.apply(x, scale)


class ReferenceNeuron(ABC):
    """One layer of neurons at rest, stepped by their currents."""

    @abstractmethod
    def step(self, current: Tensor) -> tuple[Tensor, Tensor]:
        """Integrate one step of current (batch, neuron); return spikes and membrane, both (batch, neuron)."""

    @abstractmethod
    def detach(self) -> None:
        """Cut the graph of the state."""


class SubtractReset(ReferenceNeuron):
    """``V[t] = beta V[t-1] + I[t] - theta s[t-1]``, ``s = [V > theta]``; the reset passes no gradient.

    Args:
        beta: decay of the membrane.
        threshold: theta.
    """

    def __init__(self, beta: Tensor, threshold: Tensor) -> None:
        self.beta, self.threshold = beta, threshold
        self.membrane: Tensor | None = None

    def step(self, current: Tensor) -> tuple[Tensor, Tensor]:
        membrane = torch.zeros_like(current) if self.membrane is None else self.membrane
        reset = (membrane > self.threshold).to(current.dtype)
        self.membrane = self.beta * membrane + current - reset * self.threshold
        return surrogate_spike(self.membrane - self.threshold), self.membrane

    def detach(self) -> None:
        self.membrane = None if self.membrane is None else self.membrane.detach()


class CurrentBased(ReferenceNeuron):
    """Euler steps of a current and a membrane; the input of a step moves the membrane of that step.

    ``J = i + I``, ``v' = v + a (J - v)``, ``i' = J - b J``, ``s = [v' > 1]``, ``v'' = (1 - s) v'``

    Args:
        membrane_rate: a, step over membrane time constant.
        synaptic_rate: b, step over synaptic time constant.
        steepness: of the surrogate.
        detach_reset: whether the reset passes no gradient.
    """

    def __init__(self, membrane_rate: float, synaptic_rate: float, steepness: float, detach_reset: bool) -> None:
        self.rates, self.steepness, self.detach_reset = (membrane_rate, synaptic_rate), steepness, detach_reset
        self.membrane: Tensor | None = None
        self.current: Tensor | None = None

    def step(self, current: Tensor) -> tuple[Tensor, Tensor]:
        membrane = torch.zeros_like(current) if self.membrane is None else self.membrane
        jump = current if self.current is None else self.current + current
        membrane = membrane + self.rates[0] * (jump - membrane)
        self.current = jump - self.rates[1] * jump
        spikes = surrogate_spike(membrane - 1.0, self.steepness)
        self.membrane = (1 - (spikes.detach() if self.detach_reset else spikes)) * membrane
        return spikes, self.membrane

    def detach(self) -> None:
        self.membrane = None if self.membrane is None else self.membrane.detach()
        self.current = None if self.current is None else self.current.detach()


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of a network: the connection into it, its own recurrent connection if any, and its neurons.

    Args:
        feed: site name of the connection into it.
        recurrent: site name of the connection from its spikes one step ago, or None.
        neuron: its neurons, at rest.
    """

    feed: str
    recurrent: str | None
    neuron: ReferenceNeuron


class ReferenceRun:
    """One sequence through a chain of layers: every spike is kept, every current is a causal convolution.

    ``I[t, b, j] = bias_j + sum_i sum_tau K[j, i, tau] s[t - tau, b, i]``

    Args:
        layers: the chain, first layer first.
        biases: bias of each site, or None.
    """

    def __init__(self, layers: list[Layer], biases: Mapping[str, Tensor | None]) -> None:
        self.layers, self.biases = layers, biases
        self.past: dict[str, list[Tensor]] = {}
        self.last: dict[str, Tensor] = {}

    def step(
        self, spikes: Tensor, responses: Mapping[str, Tensor], behind: Mapping[str, tuple[Tensor, Tensor]] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run one step.

        Args:
            spikes: ``(batch, pre)``.
            responses: ``(post, pre, depth)`` of each site.
            behind: weight ``(post, pre)`` and response ``(post, depth)`` of sites whose line lies behind the weight: it
                delays currents, which keep the weight of the step that made them.

        Returns:
            Spikes and membranes of all layers side by side, ``(batch, all neurons)``.
        """
        all_spikes, membranes = [], []
        for layer in self.layers:
            current = self._arrives(layer.feed, spikes, responses, behind or {})
            if layer.recurrent is not None:
                before = self.last.get(layer.recurrent, torch.zeros_like(current))
                current = current + self._arrives(layer.recurrent, before, responses, behind or {})
            spikes, membrane = layer.neuron.step(current)
            if layer.recurrent is not None:
                self.last[layer.recurrent] = spikes
            all_spikes.append(spikes)
            membranes.append(membrane)
        return torch.cat(all_spikes, -1), torch.cat(membranes, -1)

    def detach(self) -> None:
        """Cut the graph and keep every spike (truncated BPTT)."""
        self.past = {site: [s.detach() for s in past] for site, past in self.past.items()}
        self.last = {site: s.detach() for site, s in self.last.items()}
        for layer in self.layers:
            layer.neuron.detach()

    def _arrives(
        self,
        site: str,
        spikes: Tensor,
        responses: Mapping[str, Tensor],
        behind: Mapping[str, tuple[Tensor, Tensor]],
    ) -> Tensor:
        past = self.past.setdefault(site, [])
        weight, response = behind[site] if site in behind else (None, responses[site])
        past.append(spikes if weight is None else torch.nn.functional.linear(spikes, weight))
        newest_first = torch.stack(past[: -response.shape[-1] - 1 : -1])  # (tau, batch, pre), or post where behind
        product = "tbi,jit->bj" if weight is None else "tbj,jt->bj"
        current = torch.einsum(product, newest_first, response[..., : len(newest_first)].to(newest_first))
        bias = self.biases[site]
        return current if bias is None else current + bias
