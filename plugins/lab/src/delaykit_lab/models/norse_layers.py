"""Layers of Norse's recurrent cells, ``norse:256,256``: the same network in the other library, ordinary code of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import delaykit as dk

STEP = 1e-3  # s: Norse's own step; a task's step, however long, is one of these


class NorseLayers(nn.Module):
    """Cells ``lif1 -> lif2 ... -> out``, each with its input weights; class scores are summed over time.

    Membranes decay by ``beta`` a step and synapses forget within one, so that a layer is that of ``rsnn:``, but that a
    spike resets to zero. Weights begin with the same spread, divided by the ``1 - beta`` with which Norse multiplies
    currents. Autapses, which Norse keeps at zero, are counted among a network's numbers.

    Args:
        channels: number of input channels.
        sizes: neurons of each layer.
        classes: number of classes.
        beta: decay of membranes a step, in [0, 1).

    Raises:
        ConfigError: Norse is not installed.

    Example:
        >>> net = NorseLayers(24, (16, 8), 9)
        >>> net(torch.zeros(58, 2, 24)).shape
        torch.Size([2, 9])
        >>> net.forward_sites, net.recurrent_sites
        (('lif1.input', 'lif2.input'), ('lif1.recurrent', 'lif2.recurrent'))
    """

    def __init__(self, channels: int, sizes: Sequence[int], classes: int, beta: float = 0.5) -> None:
        super().__init__()
        try:
            import norse.torch as norse
        except ModuleNotFoundError as error:
            if error.name not in ("norse", "norse.torch"):
                raise
            fix = "pip install delaykit-lab[norse], or use rsnn: of snnTorch"
            raise dk.ConfigError("model norse", "no Norse", "it", fix) from None
        self.depth = len(sizes)
        decay, forget = torch.tensor((1.0 - beta) / STEP), torch.tensor(1.0 / STEP)
        neuron = norse.LIFParameters(tau_syn_inv=forget, tau_mem_inv=decay, alpha=torch.tensor(5.0))
        for layer, size in enumerate(sizes, start=1):
            cell = norse.LIFRecurrentCell(channels, size, p=neuron, dt=STEP)
            bound = 3.0 / channels**0.5 / (1.0 - beta)
            with torch.no_grad():
                nn.init.uniform_(cell.input_weights, -bound, bound)
                nn.init.orthogonal_(cell.recurrent_weights, gain=0.5 / (1.0 - beta))
                cell.recurrent_weights.fill_diagonal_(0.0)  # Norse keeps autapses at zero
            self.add_module(f"lif{layer}", cell)
            channels = size
        self.out = nn.Linear(channels, classes)
        self.forward_sites = tuple(f"lif{layer}.input" for layer in range(1, self.depth + 1))
        self.recurrent_sites = tuple(f"lif{layer}.recurrent" for layer in range(1, self.depth + 1))
        self.whole_sites: tuple[str, ...] = ()

    def forward(self, spikes: Tensor) -> Tensor:
        """Scores ``(batch, class)`` of spikes ``(time, batch, channel)``."""
        return self.out(self.layers(spikes)[-1].sum(0))

    def layers(self, spikes: Tensor) -> list[Tensor]:
        """Return the spikes of the input and of each layer, ``(time, batch, neuron)``."""
        found = [spikes]
        for layer in range(1, self.depth + 1):
            found.append(dk.rollout(getattr(self, f"lif{layer}"), found[-1])[0])
        return found
