"""A method that the user replaced, on a neuron or on its class, is what runs: in rollout, and in a fused network."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

snn = pytest.importorskip("snntorch", reason="runs snnTorch neurons")
norse = pytest.importorskip("norse.torch", reason="runs Norse cells")

import delaykit as dk  # noqa: E402

Patch = Callable[[Any, pytest.MonkeyPatch], None]


def _base_sub(self: Any, *given: Tensor) -> Any:
    """Integrate otherwise, by the library's name."""
    drive = given[0]
    return 0.5 * self.mem + drive


def doubled(self: Any, drive: Tensor, *state: Tensor) -> Any:
    """Double the input."""
    return type(self).forward(self, 2 * drive, *state)


def method(name: str, own: Callable[..., Any]) -> Patch:
    return lambda neuron, monkeypatch: setattr(neuron, name, own)


PATCHES: dict[str, Patch] = {
    "fire": method("fire", lambda mem: (mem > 0.9).float()),
    "mem_reset": method("mem_reset", torch.zeros_like),
    "forward": lambda neuron, _: setattr(neuron, "forward", types.MethodType(doubled, neuron)),
    "state_function": lambda neuron, _: setattr(neuron, "state_function", types.MethodType(_base_sub, neuron)),
    "fire of the class": lambda _, m: m.setattr(snn.SpikingNeuron, "fire", lambda self, mem: (mem > 0.9).float()),
    "reset of the class": lambda _, m: m.setattr(snn.SpikingNeuron, "mem_reset", lambda self, mem: 0 * mem),
}


def steps(neuron: Any, x: Tensor) -> Tensor:
    """Call the neuron step by step, from rest."""
    state, out = neuron.reset_mem(), []
    state = state if isinstance(state, tuple) else (state,)
    for drive in x:
        spikes, *state = neuron(drive, *state)
        if isinstance(neuron, snn.RLeaky):
            state = [spikes, *state]
        out.append(spikes)
    return torch.stack(out)


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("kind", ["Leaky", "RLeaky"])
def test_rollout_steps_as_the_neuron_does(kind: str, patch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    neuron = getattr(snn, kind)(0.8, threshold=0.5, **({"linear_features": 4} if kind == "RLeaky" else {}))
    x = torch.rand(12, 3, 4)
    before = steps(neuron, x)
    assert torch.equal(before, dk.rollout(neuron, x)[0])
    PATCHES[patch](neuron, monkeypatch)
    after = steps(neuron, x)
    assert not torch.equal(before, after)
    assert torch.equal(after, dk.rollout(neuron, x)[0])


def test_a_norse_cell_with_an_activation_of_ones_own() -> None:
    cell, x = norse.LIFCell(), 20 * torch.rand(12, 3, 4, generator=torch.Generator().manual_seed(0))
    own = cell.activation
    cell.activation = lambda drive, state, p, dt: own(0.5 * drive, state, p, dt)
    state, out = None, []
    for drive in x:
        spikes, state = cell(drive, state)
        out.append(spikes)
    assert torch.stack(out).sum() > 0
    assert torch.equal(torch.stack(out), dk.rollout(cell, x)[0])


@pytest.mark.parametrize("patch", PATCHES)
def test_a_fused_network_hears_it_behind_its_proof(patch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.lif = nn.Linear(5, 4), snn.Leaky(0.8, threshold=0.3)

        def forward(self, x: Tensor) -> Tensor:
            mem, out = self.lif.reset_mem(), []
            for step in x:
                spikes, mem = self.lif(self.fc(step), mem)
                out.append(spikes)
            return torch.stack(out)

    torch.manual_seed(0)
    net, x = Net(), torch.rand(12, 3, 5)
    run = dk.fused(net, example=x)
    before = run(x)
    assert torch.equal(before, net(x))
    PATCHES[patch](net.lif, monkeypatch)
    assert not torch.equal(before, net(x))
    assert torch.equal(run(x), net(x))
