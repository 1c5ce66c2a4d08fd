"""``dk.rollout`` of wrapped recurrent neurons is the loop of single steps, gradients included, and is fused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit.functional.dispatch import backend
from delaykit.testing.nets.reference import surrogate_spike
from delaykit.wrapping import rollout as wrapping_rollout
from delaykit_hetsyn import HetSyn

snn = pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")
TIME, BATCH, PRE, POST = 25, 3, 5, 6


class Net(nn.Module):
    """The neuron in a loop, its states inside."""

    def __init__(self, neuron: Any) -> None:
        super().__init__()
        self.cell = neuron

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        steps, state = [], None
        if hasattr(self.cell, "reset_mem"):
            state = self.cell.reset_mem()
            for current in x:
                state = self.cell(current, *state)
                steps.append((state[0], state[-1]))
        else:
            for current in x:
                spikes, state = self.cell(current, state)
                steps.append((spikes, state.v))
        spikes, membranes = zip(*steps, strict=True)
        return torch.stack(spikes), torch.stack(membranes)


def neuron(kind: str) -> Any:
    options: dict[str, Any] = {"beta": 0.8, "threshold": 0.5, "spike_grad": surrogate_spike}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        if kind == "RLeaky":
            return snn.RLeaky(linear_features=POST, learn_beta=True, **options)
        if kind == "RSynaptic":
            return snn.RSynaptic(alpha=0.7, linear_features=POST, **options)
        norse = pytest.importorskip("norse.torch", reason="needs Norse, the extra `norse`")
        cell = norse.LIFRecurrentCell(PRE, POST)
        with torch.no_grad():
            cell.input_weights.mul_(4.0)
        return cell


def currents(kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    if kind == "LIFRecurrentCell":
        return (torch.rand(TIME, BATCH, PRE, generator=generator) < 0.5).double()
    return 0.4 * torch.randn(TIME, BATCH, POST, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("granularity", ["synaptic", "post", "pre"])
@pytest.mark.parametrize("kind", ["RLeaky", "RSynaptic", "LIFRecurrentCell"])
@pytest.mark.parametrize("chosen", ["cpu", "torch"])
def test_it_equals_the_loop(kind: str, granularity: str, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(neuron(kind)).double()
    dk.wrap_(net, {"cell.*": HetSyn(granularity)}, example=currents(kind)[:3])
    for module in net.modules():
        if hasattr(module, "r"):
            rest = torch.rand(module.r.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
            module.r.data = rest  # type: ignore[assignment]
    x = currents(kind).requires_grad_()
    leaves = [x, *(p for p in net.parameters() if p.requires_grad)]
    weights = torch.randn(2, TIME, BATCH, POST, generator=torch.Generator().manual_seed(4), dtype=torch.float64)

    def outcome(spikes: Tensor, membranes: Tensor) -> list[Tensor]:
        loss = (weights[0] * spikes).sum() + (weights[1] * membranes).sum()
        return [spikes, membranes, *torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)]

    wanted = outcome(*net(x))
    monkeypatch.setattr(wrapping_rollout, "_step_by_step", lambda *_: pytest.fail("not fused"))
    with backend(chosen):
        found = outcome(*dk.rollout(net.cell, x))
    assert 5 < float(wanted[0].detach().sum()) < TIME * BATCH * POST * 0.9
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)


def test_with_a_delay_besides_it_goes_step_by_step_and_is_right() -> None:
    net = Net(neuron("RLeaky")).double()
    parts = (dk.FreeDelay("axonal", max_delay=4, init=2.0), HetSyn())
    dk.wrap_(net, {"cell.recurrent": parts}, example=currents("RLeaky")[:3])
    net.cell.recurrent.dk.heterogeneity.r.data.fill_(0.5)
    for one, two in zip(dk.rollout(net.cell, currents("RLeaky")), net(currents("RLeaky")), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)
