"""One connection as nodes: its delay lines, its weight, its bias, and which edges join them."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from delaykit.errors import ConfigError
from delaykit.interfaces import Delay, PointDelay
from delaykit.nir.values import nir_package
from delaykit.synapse import Synapse

Fractions = Literal["refuse", "taps"]


@dataclasses.dataclass
class Piece:
    """A few nodes that together are one connection.

    Args:
        nodes: by name.
        edges: between them.
        entries: names that hear whoever the connection hears.
        exits: names that whoever hears the connection hears; their outputs add up.
    """

    nodes: dict[str, Any] = dataclasses.field(default_factory=dict)
    edges: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    entries: list[str] = dataclasses.field(default_factory=list)
    exits: list[str] = dataclasses.field(default_factory=list)

    def chain(self, *named: tuple[str, Any]) -> None:
        """Add nodes one behind the other, from an entry to an exit."""
        self.nodes.update(named)
        names = [name for name, _ in named]
        self.edges += zip(names, names[1:], strict=False)
        self.entries.append(names[0])
        self.exits.append(names[-1])


@dataclasses.dataclass(frozen=True)
class Writing:
    """How delays are to be written.

    Args:
        dt: seconds a step.
        fractions: what to do with delays between two steps, and with spreads.
    """

    dt: float
    fractions: Fractions = "refuse"

    def delay(self, where: str, granularity: str, steps: Tensor) -> Any:
        """Make the node of one delay line."""
        seconds = steps.detach().cpu().double().numpy() * self.dt
        return nir_package().Delay(seconds, metadata={"module": where, "granularity": granularity, "dt": self.dt})


def piece_of(name: str, site: str, synapse: Synapse | None, weight: Tensor, bias: Tensor | None, how: Writing) -> Piece:
    """Write a connection that is one matrix.

    Args:
        name: what to call its nodes.
        site: its site name, for messages and metadata.
        synapse: its parts, or None where it is bare.
        weight: ``(post, pre)``.
        bias: ``(post,)`` or None.
        how: how to write delays.

    Raises:
        ConfigError: a part that no node describes.
    """
    weight, bias = weight.detach(), None if bias is None else bias.detach()
    delay = delay_of(site, synapse)
    piece = Piece()
    if delay is None:
        piece.chain((name, _linear(weight, bias)))
        return piece
    if isinstance(delay, PointDelay) and delay.granularity != "synaptic":
        found = whole_delays(site, delay, how)
        if found is not None:
            return _around(name, site, delay, found[0], weight * found[1].to(weight), bias, how)
    response = response_of(site, delay, weight, how)
    return _taps(name, site, response, bias, how)


def delay_of(site: str, synapse: Synapse | None) -> Delay | None:
    """Return the delay of a connection; refuse what has no node.

    Args:
        site: its site name.
        synapse: its parts, or None where it is bare.

    Raises:
        ConfigError: time constants, or a compact connection.
    """
    if synapse is None:
        return None
    if synapse.heterogeneity is not None:
        kind = type(synapse.configs[[c.kind for c in synapse.configs].index("heterogeneity")]).__name__
        found = f"{kind}: currents that linger with time constants of their own synapses"
        fix = "export a model without it: NIR has a time constant a neuron, none a synapse"
        raise ConfigError(site, found, "weights and delays", fix)
    delay = synapse.delay
    if delay is not None and delay.holds_weight:
        fix = "export a copy made before compact_"
        raise ConfigError(site, "a compact connection", "a connection that holds its own weight", fix)
    if delay is not None:
        delay.check()
    return delay


def _linear(weight: Tensor, bias: Tensor | None) -> Any:
    nir = nir_package()
    if bias is None:
        return nir.Linear(array(weight))
    return nir.Affine(array(weight), array(bias))


def array(value: Tensor) -> np.ndarray:
    """Return the values as numpy's, a copy."""
    return value.detach().cpu().numpy().copy()


def whole_delays(site: str, delay: PointDelay, how: Writing) -> tuple[Tensor, Tensor] | None:
    """Return whole delays and what arrives of a spike (1, unless a kernel is normalised); None: write them as taps.

    Delays between two steps are refused, and so are spreads.

    Args:
        site: the connection's site name.
        delay: of one arrival a spike.
        how: how to write delays.
    """
    delays = delay.delays().detach()
    response = delay.kernel().response(delays.double()) if delay.estimator == "interp" else None
    steps = delays.double().round()
    if response is None:
        return steps, torch.ones_like(steps)
    spike = torch.nn.functional.one_hot(steps.long(), response.shape[-1]).to(response)
    if bool((response * (1 - spike)).abs().max() == 0):
        return steps, (response * spike).sum(-1)
    if how.fractions == "taps":
        return None
    away = (delays.double() - steps).abs()
    worst = float(delays.flatten()[int(away.argmax())])
    what = f"a delay of {worst:.4g} steps" if float(away.max()) > 1e-6 else "spread"
    fix = "export inside `with dk.discretized(net):`, train with rounding='straight-through', or pass fractions='taps'"
    fix += ", which writes each spike as it is shared between steps, exactly and at the cost of a weight a tap"
    raise ConfigError(site, f"{what}: a spike that is shared between steps", "whole delays without spread", fix)


def _around(
    name: str, site: str, delay: PointDelay, steps: Tensor, weight: Tensor, bias: Tensor | None, how: Writing
) -> Piece:
    """Write lines before or behind the weight."""
    piece = Piece()
    post, pre = weight.shape
    late = delay.granularity == "dendritic"
    line = (f"{name}_delay", how.delay(site, delay.granularity, steps.reshape(-1).expand(post if late else pre)))
    if not late:
        piece.chain(line, (name, _linear(weight, bias)))
        return piece
    piece.chain((name, _linear(weight, None)), line)
    if bias is not None:  # it is not delayed, and NIR has no constants: a connection of zeros that has a bias
        piece.chain((f"{name}_bias", _linear(torch.zeros_like(weight), bias)))
    return piece


def response_of(site: str, delay: Delay, weight: Tensor, how: Writing) -> Tensor:
    """Return the taps ``(post, pre, depth)``; where they are to be whole, refuse a spike shared between steps.

    Args:
        site: the connection's site name.
        delay: its delay.
        weight: ``(post, pre)``.
        how: how to write delays.
    """
    if isinstance(delay, PointDelay):
        found = whole_delays(site, delay, how)
        if found is not None:
            spike = torch.nn.functional.one_hot(found[0].long(), int(found[0].max()) + 1).to(weight)
            return (weight * found[1].to(weight)).unsqueeze(-1) * spike
    return delay.impulse_response(weight).detach()


def _taps(name: str, site: str, response: Tensor, bias: Tensor | None, how: Writing) -> Piece:
    """Write any finite response: by distinct delay, or by distinct (pre, delay), whichever holds fewer numbers."""
    post, pre, _ = response.shape
    used = (response != 0).any(0)  # (pre, depth)
    late = [int(k) for k in used.any(0).nonzero().flatten()] or [0]
    pairs = used.nonzero()
    bank = len(late) * (post * pre + pre)
    fan_out = len(pairs) * (pre + 1 + post)
    piece = Piece()
    if 0 < fan_out < bank:
        spread = torch.nn.functional.one_hot(pairs[:, 0], pre).to(response)
        line = how.delay(site, "synaptic", pairs[:, 1])
        weights = response[:, pairs[:, 0], pairs[:, 1]]
        piece.chain((f"{name}_fan_out", _linear(spread, None)), (f"{name}_delay", line), (name, _linear(weights, bias)))
        return piece
    for k in late:
        tap = (f"{name}_tap_{k}", _linear(response[..., k], bias if k == late[0] else None))
        line = (f"{name}_delay_{k}", how.delay(site, "synaptic", torch.full((pre,), k)))
        piece.chain(*([line, tap] if k else [tap]))
    return piece
