"""A component in a stream without end: what a step or a piece costs stays the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import delaykit as dk
from delaykit.testing.faults.steady_costs import check_steady


def _spikes() -> torch.Tensor:
    return (torch.rand(4, 2, 6, generator=torch.Generator().manual_seed(0)) < 0.3).float()


def check_stream(component: Any, count: int) -> None:
    """Step a layer without a reset under ``no_grad``, after one step that recorded a gradient.

    Args:
        component: of a ``Linear``, or a tuple of several.
        count: how many steps; more than 100.

    Raises:
        AssertionError: memory or work have grown.

    Example:
        >>> import delaykit as dk
        >>> check_stream(dk.FreeDelay("axonal", max_delay=7), 200)
    """
    x = _spikes()
    net = dk.wrap_(nn.Sequential(nn.Linear(6, 3)), {"0": dk.At(component, reset="manual")}, example=x[0])
    net(x[0]).sum().backward()
    with torch.no_grad():
        check_steady(lambda: net(x[1]), count)


def check_pieces(component: Any, count: int) -> None:
    """Feed a ``SequentialState`` of Norse a sequence without end, two steps at a time.

    Args:
        component: of a ``Linear``, or a tuple of several.
        count: how many pieces; more than 100.

    Raises:
        AssertionError: memory or work have grown.

    Example:
        >>> import delaykit as dk
        >>> check_pieces(dk.FreeDelay("axonal", max_delay=7), 200)
    """
    import norse.torch as norse

    x, state = _spikes(), None
    net = norse.SequentialState(nn.Linear(6, 3), norse.LIFCell())

    def fed(steps: torch.Tensor, state: Any) -> Any:
        for step in steps:
            _, state = net(step, state)
        return state

    def piece() -> None:
        nonlocal state
        state = fed(x[:2], state)

    dk.wrap_(net, {"0": component}, example=lambda: fed(x, None))
    with torch.no_grad():
        check_steady(piece, count)


def check_sequences(component: Any, count: int) -> None:
    """Train a layer before a ``Leaky`` of snnTorch on one short sequence after the other.

    Args:
        component: of a ``Linear``, or a tuple of several.
        count: how many sequences; more than 100.

    Raises:
        AssertionError: memory or work have grown.

    Example:
        >>> import delaykit as dk
        >>> check_sequences(dk.FreeDelay("axonal", max_delay=7), 120)
    """
    import snntorch
    from snntorch import utils

    x = _spikes()
    net = nn.Sequential(nn.Linear(6, 3), snntorch.Leaky(beta=0.9, init_hidden=True, output=True))
    dk.wrap_(net, {"0": component}, example=x[0])
    optimizer = torch.optim.SGD(dk.param_groups(net, lr=1e-3))
    dk.attach(optimizer, net)

    def sequence() -> None:
        utils.reset(net)
        optimizer.zero_grad()
        torch.stack([net(step)[1] for step in x]).sum().backward()
        optimizer.step()

    check_steady(sequence, count)
