"""Layers of spiking neurons in a row, and a readout."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from delaykit import attach, checks
from delaykit.errors import ConfigError
from delaykit.interfaces import ComponentConfig, Delay
from delaykit_timing.events import Events
from delaykit_timing.layer import MultiSpikeLIF, PotentialReadout


class TimingOutput(NamedTuple):
    """What a network did.

    Args:
        scores: potentials of the readout at the end of the window, ``(sample, class)``.
        hidden: events of each hidden layer, with its potentials.
    """

    scores: Tensor
    hidden: tuple[Events, ...]


@checks.annotated
class TimingNet(nn.Module):
    """Hidden layers of :class:`MultiSpikeLIF` and one :class:`PotentialReadout`.

    Args:
        sizes: numbers of neurons, input and readout included, e.g. ``(784, 400, 10)``.
        delay: a delay component for every connection; None: none.
        readout: options of the readout in place of the common ones, e.g. ``{"weight_std": 0.1}``.
        **options: options of every layer.

    Raises:
        ConfigError: fewer than two sizes, or an option out of range.

    Example:
        >>> from delaykit_timing import latency_encode
        >>> net = TimingNet((4, 8, 2), tau_synapse=0.8, generator=torch.Generator().manual_seed(0))
        >>> net(latency_encode(torch.rand(3, 4))).scores.shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        delay: ComponentConfig | None = None,
        readout: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if not isinstance(sizes, (tuple, list)) or len(sizes) < 2:
            raise ConfigError("TimingNet.sizes", checks.shown(sizes), "an input and an output size", "(784, 400, 10)")
        if readout is not None and not isinstance(readout, dict):
            fix = "pass e.g. readout={'tau_synapse': 2.0}"
            raise ConfigError("TimingNet.readout", checks.shown(readout), "options of the readout by name", fix)
        layers = list(inspect.signature(MultiSpikeLIF.__init__).parameters)[3:]
        for given in (options, readout or {}):
            checks.known("TimingNet", map(str, given), [name for name in layers if name != "delay"])
        pairs = list(zip(sizes, sizes[1:], strict=False))
        self.hidden = nn.ModuleList(MultiSpikeLIF(*pair, delay=delay, **options) for pair in pairs[:-1])
        fires = {"single_spike", "max_spikes", "threshold"}
        common = {name: value for name, value in options.items() if name not in fires} | (readout or {})
        self.readout = PotentialReadout(*pairs[-1], delay=delay, **common)

    def forward(self, events: Events) -> TimingOutput:
        """Run one window."""
        activity = []
        for layer in self.hidden:
            events = layer(events)
            activity.append(events)
        return TimingOutput(self.readout(events), tuple(activity))


@checks.annotated
def project_after_steps(optimizer: torch.optim.Optimizer, net: nn.Module) -> RemovableHandle:
    """Project every delay of a network back into its bounds after each optimizer step; there may be none.

    With delays, :func:`delaykit.attach` does it.

    Args:
        optimizer: the optimizer that trains the network.
        net: any module that holds event layers.

    Returns:
        A handle; ``handle.remove()`` stops the projection.

    Raises:
        TrainingError: a trainable delay is in no group of the optimizer.

    Example:
        >>> from delaykit import FreeDelay
        >>> layer = MultiSpikeLIF(2, 1, delay=FreeDelay("axonal", max_delay=5), dt=0.1)
        >>> _ = project_after_steps(torch.optim.Adam(layer.parameters()), layer)
    """
    if any(isinstance(module, Delay) for module in net.modules()):
        return attach(optimizer, net)
    return RemovableHandle(OrderedDict())  # of no hook
