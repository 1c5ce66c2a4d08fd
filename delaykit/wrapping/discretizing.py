"""Whole delays, grids and bits: while a block lasts, or for good."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from delaykit import checks
from delaykit.errors import ConfigError
from delaykit.wrapping.controls import Wrapped, detach, wrapped_sites


@contextlib.contextmanager
def discretized(
    net: nn.Module,
    step: int = 1,
    max_delay: int | None = None,
    bits: int | None = None,
    weight_bits: int | None = None,
) -> Iterator[None]:
    """Run with integer delays and spread 0, as hardware does; the real delays and weights come back afterwards.

    What was learned with real delays may suffer. Delays that shall be whole in the end are better trained whole, with
    ``rounding="straight-through"`` of :class:`~delaykit.FreeDelay` or ``DelRec``: then nothing changes here. A whole
    budget is trained straight-through by forward and backward inside and ``optimizer.step()`` behind the block:
    gradients are those of the rounded network, and what moves are the real numbers. Spikes under way stay so where a
    sequence goes on over the block's edge, cut from their graph.

    Args:
        net: a wrapped model.
        step: delays become multiples of this many steps, a whole number >= 1.
        max_delay: larger delays become this; None: no cap.
        bits: of a stored delay, which then is at most ``(2^bits - 1) step``; None: as many as it needs.
        weight_bits: weights of wrapped connections become multiples of ``max|w| / (2^(bits - 1) - 1)``, a scale a
            connection; None: they stay.

    Raises:
        ConfigError: a connection was given other parts inside, which have no real delays to go back to; or other
            delays, which would be lost.

    Example:
        >>> import torch, delaykit as dk
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2))
        >>> _ = dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal", init=2.3), reset="manual")})
        >>> with dk.discretized(net):
        ...     dk.status(net).delays["0"].tolist()
        [[2.0, 2.0]]
        >>> dk.status(net).delays["0"]
        tensor([[2.3000, 2.3000]])
    """
    sites, budget = wrapped_sites(net), grid(step, max_delay, bits)
    before = [{k: v.detach().clone() for k, v in site.synapse.state_dict().items()} for site in sites]
    weights = list({id(s.weight): s.weight for s in sites if weight_bits is not None and s.weight is not None}.values())
    real = [weight.detach().clone() for weight in weights]
    written: list[str] = []
    detach(net)
    try:
        finalize_(net)
        _fit_(sites, budget, weights, weight_bits)
        rounded = [[p.detach().clone() for p in site.synapse.parameters()] for site in sites]
        yield
        written = [site.name for site, whole in zip(sites, rounded, strict=True) if not _is_still(site, whole)]
    finally:
        changed = [site.name for site, values in zip(sites, before, strict=True) if not _put_back(site, values)]
        with torch.no_grad():
            for weight, value in zip(weights, real, strict=True):
                weight.copy_(value)
        detach(net)
        _refuse_changes(changed, written)


def _fit_(sites: list[Wrapped], budget: tuple[int, int | None], weights: list[Tensor], weight_bits: int | None) -> None:
    spacing, largest = budget
    for weight in weights:
        round_weights_(weight, weight_bits)
    for site in sites:
        if site.synapse.delay is not None and (spacing > 1 or largest is not None):
            with torch.no_grad():
                site.synapse.delay.fit_(spacing, largest)


def _is_still(site: Wrapped, parameters: list[Tensor]) -> bool:
    now = list(site.synapse.parameters())
    return len(now) == len(parameters) and all(map(torch.equal, now, parameters))


@torch.no_grad()
def _put_back(site: Wrapped, values: dict[str, Tensor]) -> bool:
    """Give a connection its numbers back; tell whether it has the parts that they are of."""
    now = site.synapse.state_dict(keep_vars=True)
    if now.keys() != values.keys():
        return False
    for key, value in now.items():
        value.copy_(values[key])
    return True


def _refuse_changes(changed: list[str], written: list[str]) -> None:
    """Raise where a block changed what it takes back."""
    if changed:
        fix = "call dk.finalize_(net), which rounds for good, and then change them"
        raise ConfigError("discretized", f"other parts on {', '.join(changed)}", "the connections as before", fix)
    if written:
        found = f"delays of {', '.join(written)} loaded or trained inside the block, which takes them back"
        fix = "call dk.load or optimizer.step() behind the block; or dk.finalize_(net), which rounds for good"
        raise ConfigError("discretized", found, "the rounded delays as they were", fix)


def grid(step: int, max_delay: int | None, bits: int | None) -> tuple[int, int | None]:
    """Return the spacing of the delays that a budget allows, and the largest of them.

    Args:
        step: spacing in steps, a whole number >= 1.
        max_delay: cap in steps, or None.
        bits: of a stored delay, or None.

    Returns:
        ``(step, largest)``; largest is a multiple of step, or None without cap and bits.

    Example:
        >>> grid(2, 62, 5), grid(1, 62, 5), grid(1, None, None)
        ((2, 62), (1, 31), (1, None))
    """
    checks.whole("step", step, least=1)
    caps = []
    if max_delay is not None:
        checks.whole("max_delay", max_delay)
        caps.append(max_delay // step * step)
    if bits is not None:
        checks.whole("bits", bits, least=1)
        caps.append((2**bits - 1) * step)
    return step, min(caps) if caps else None


@torch.no_grad()
def round_weights_(weight: Tensor, bits: int | None) -> None:
    """Round to multiples of ``max|w| / (2^(bits - 1) - 1)``, in place.

    Args:
        weight: of any shape.
        bits: of a weight, its sign included, >= 2.

    Example:
        >>> weight = torch.tensor([0.1, -0.5, 0.9])
        >>> round_weights_(weight, 2)
        >>> [round(w, 1) for w in weight.tolist()]
        [0.0, -0.9, 0.9]
    """
    checks.whole("weight_bits", bits, least=2)
    assert bits is not None
    unit = weight.abs().max() / (2 ** (bits - 1) - 1)
    if float(unit) > 0:
        weight.copy_((weight / unit).round() * unit)


def finalize_(net: nn.Module) -> None:
    """Round all delays to integers and set all spreads to 0, for good. Spikes under way stay so, cut from their graph.

    Args:
        net: a wrapped model.

    Example:
        >>> import torch, delaykit as dk
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2))
        >>> _ = dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal", init=2.3), reset="manual")})
        >>> dk.finalize_(net)
        >>> dk.status(net).delays["0"].tolist()
        [[2.0, 2.0]]
    """
    for site in wrapped_sites(net):
        if site.synapse.delay is not None:
            site.synapse.delay.discretize_()
    detach(net)
