"""The networks that the demo compares, equal in everything but their delays.

``frozen``, ``learned`` and ``whole`` start from the very same random integer delays: all that sets them apart is
learning.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit.interfaces import Granularity
from delaykit_lab.task import Task

LIBRARIES = {
    "snntorch": ("delaykit_lab.models.snntorch_net", "SnnTorchNet", ("fc_in", "lif.recurrent")),
    "norse": ("delaykit_lab.models.norse_net", "NorseNet", ("cell.input", "cell.recurrent")),
}


@dataclasses.dataclass(frozen=True)
class Variant:
    """One of the networks compared.

    Args:
        name: short name, for files.
        title: name in tables and pictures.
        delays: whether the input and the recurrent connection have axonal delays.
        learn: whether the delays are trained.
        whole: whether they are whole steps in every forward pass.
    """

    name: str
    title: str
    delays: bool
    learn: bool = False
    whole: bool = False


VARIANTS = (
    Variant("bare", "no delays", delays=False),
    Variant("frozen", "frozen random delays", delays=True),
    Variant("learned", "learned delays", delays=True, learn=True),
    Variant("whole", "learned, whole steps", delays=True, learn=True, whole=True),
)


def delay_of(variant: Variant, granularity: Granularity, max_delay: int) -> dk.FreeDelay:
    """Describe the delays of a variant that has them.

    Example:
        >>> delay_of(VARIANTS[1], "axonal", 25).learn
        False
    """
    rounding = "straight-through" if variant.whole else "none"
    return dk.FreeDelay(granularity, max_delay=max_delay, init="integers", learn=variant.learn, rounding=rounding)


def builder(library: str, task: Task, seed: int) -> Callable[[int], nn.Module]:
    """Return a function that makes the library's net with a given number of hidden neurons.

    The weights come from ``seed``; torch's global generator is left as it was.

    Raises:
        ConfigError: the library is unknown or not installed.
    """
    if library not in LIBRARIES:
        raise dk.ConfigError("library", repr(library), f"one of {', '.join(LIBRARIES)}", "name one of them")
    if importlib.util.find_spec(library) is None:
        raise dk.ConfigError("library", f"{library} not installed", "an installed library", f"pip install {library}")
    module, name, _ = LIBRARIES[library]
    network = getattr(importlib.import_module(module), name)

    def build(hidden: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return network(task.channels, hidden, task.classes)

    return build


def add_delays_(
    net: nn.Module, library: str, variant: Variant, max_delay: int, example: Tensor, seed: int
) -> nn.Module:
    """Wrap the input and the recurrent connection of ``net`` in place; nothing to do for the bare variant."""
    if variant.delays:
        rules = dict.fromkeys(LIBRARIES[library][2], delay_of(variant, "axonal", max_delay))
        dk.wrap_(net, rules, example=example, generator=torch.Generator().manual_seed(seed))
    return net


def make_optimizer(net: nn.Module, variant: Variant, lr: float, delay_lr: float) -> torch.optim.Optimizer:
    """AdamW with a learning rate for weights and one, in steps, for delays, which stay within their bounds."""
    if not variant.delays:
        return torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=1e-5)
    optimizer = torch.optim.AdamW(dk.param_groups(net, lr=lr, delay_lr=delay_lr, weight_decay=1e-5))
    dk.attach(optimizer, net)
    return optimizer


def delays_of(net: nn.Module) -> dict[str, Tensor]:
    """Delays in steps of every wrapped connection, by the connection's name; none of a bare net."""
    if not any(isinstance(module, dk.PointDelay) for module in net.modules()):
        return {}
    return {name: values.flatten() for name, values in dk.status(net).delays.items()}


def count_numbers(net: nn.Module) -> int:
    """Count the weights, biases and delays of a net, whether they are trained or frozen."""
    weights = sum(value.numel() for name, value in net.named_parameters() if ".dk." not in f".{name}")
    return weights + sum(values.numel() for values in delays_of(net).values())


def equal_size(build: Callable[[int], nn.Module], numbers: int, hidden: int) -> int:
    """Find the smallest hidden size >= ``hidden`` whose bare net has at least ``numbers`` parameters.

    Example:
        >>> equal_size(lambda hidden: nn.Linear(hidden, 10), numbers=95, hidden=8)
        9
    """
    while count_numbers(build(hidden)) < numbers:
        hidden += 1
    return hidden
