"""Two layers that share a population's positions, trained in segments of one sequence, by hand.

The judge keeps every past input: ``I[t] = b + sum_k w max(0, 1 - |k - d|) x[t - k]`` with ``d = sqrt(0.01 + |r_post -
r_pre|^2)``; at a cut what has come becomes a constant, and from the optimizer's step on the new positions count.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

import delaykit as dk
from delaykit_spatial import Spatial
from tests.networks.hand import spike

SIZES, TIME, BATCH = (5, 6, 3), 18, 2
X = (torch.rand(TIME, BATCH, SIZES[0], generator=torch.Generator().manual_seed(0)) < 0.6).double()


class Late(nn.Module):
    """A Linear whose synapses are as late as its neurons are apart."""

    def __init__(self, fc: nn.Linear, before: Tensor, behind: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(p.detach().clone()) for p in (fc.weight, fc.bias))
        self.before, self.behind, self.past = before, behind, []

    def forward(self, x: Tensor) -> Tensor:
        self.past.insert(0, x)
        d = (0.01 + (self.behind.unsqueeze(1) - self.before).square().sum(-1)).sqrt()
        taps = [late @ (self.weight * (1 - (k - d).abs()).clamp(min=0)).T for k, late in enumerate(self.past)]
        return sum(taps, self.bias)

    def cut(self) -> None:
        self.past = [x.detach() for x in self.past]


def chain(library: str, *layers: nn.Module) -> nn.Module:
    """Put neurons behind two layers."""
    if library == "norse":
        norse = pytest.importorskip("norse.torch", reason="wraps Norse models")
        return norse.SequentialState(layers[0], norse.LIFCell(), layers[1], norse.LICell()).double()
    snn = pytest.importorskip("snntorch", reason="wraps snnTorch models")
    neurons = [
        snn.Leaky(0.9, init_hidden=True, spike_grad=spike, threshold=t, output=o)
        for t, o in ((0.4, False), (99.0, True))
    ]
    return nn.Sequential(layers[0], neurons[0], layers[1], neurons[1]).double()


def trained(library: str, net: nn.Module, leaves: list[Tensor]) -> list[Tensor]:
    """Learn behind every six steps of one sequence; return membranes and gradients."""
    found, state, optimizer = [], None, torch.optim.SGD(leaves, lr=1e-3)
    scale = torch.rand(TIME, BATCH, SIZES[-1], generator=torch.Generator().manual_seed(1)).double()
    if library == "snntorch":
        net[1].reset_mem(), net[3].reset_mem()
    for piece, weigh in zip(X.split(6), scale.split(6), strict=True):
        out = []
        for x in piece:
            if library == "norse":
                y, state = net(x, state)
            else:
                y = net(x)[1]
            out.append(y)
        optimizer.zero_grad()
        (weigh * torch.stack(out)).square().sum().backward()
        found += [y.detach() for y in out] + [p.grad.clone() for p in leaves]
        optimizer.step()
        if library == "norse":
            state = tree_map(lambda v: None if v is None else v.detach(), state)
        else:
            for neuron in (net[1], net[3]):
                neuron.mem = neuron.mem.detach()
        for module in net.modules():
            if isinstance(module, Late):
                module.cut()
    return found


@pytest.mark.parametrize("library", ["snntorch", "norse"])
def test_positions_shared_by_two_layers_learn_in_the_middle_of_a_sequence(library):
    torch.manual_seed(0)
    one, two = (nn.Linear(i, j) for i, j in zip(SIZES, SIZES[1:], strict=False))
    with torch.no_grad():
        for fc in (one, two):
            fc.weight.abs_().mul_(6.0 if library == "norse" else 2.0)
    net = chain(library, one, two)
    rules = {
        "0": Spatial(2, pre="input", post="hidden", scale=2.0), "2": Spatial(2, pre="hidden", post="out", scale=2.0)
    }  # fmt: skip
    dk.wrap_(net, rules, example=(lambda: net(X[0], None)) if library == "norse" else X[0])
    places = [one.dk.delay.pre_positions, one.dk.delay.post_positions, two.dk.delay.post_positions]
    assert two.dk.delay.pre_positions is places[1]
    twins = [nn.Parameter(p.detach().clone()) for p in places]
    hand = chain(library, Late(one, *twins[:2]), Late(two, *twins[1:]))
    found = trained(library, net, [*places, one.weight, one.bias, two.weight, two.bias])
    wanted = trained(library, hand, [*twins, hand[0].weight, hand[0].bias, hand[2].weight, hand[2].bias])
    for mine, true in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-9, atol=1e-10)
    assert all(bool(g.any()) for g in wanted[-7:]), "somebody learns nothing"
