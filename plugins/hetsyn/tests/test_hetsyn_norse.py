"""HetSyn around every neuron of Norse: what adds the input up is the sum of currents, by each cell's own Euler step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit_hetsyn import HetSyn

norse = pytest.importorskip("norse.torch", reason="needs Norse, the extra `norse`")
TIME, BATCH, PRE, POST, DT = 30, 3, 9, 6, 0.001

CELLS = {  # class: (state, factor of the sum of currents in it)
    "LIFCell": ("i", "alpha"), "LIFExCell": ("i", "alpha"), "LIFAdExCell": ("i", "alpha"), "LICell": ("i", "alpha"),
    "LIFRefracCell": ("i", "alpha"), "LIFAdExRefracCell": ("i", "alpha"), "LSNNCell": ("i", "one"),
    "LIFBoxCell": ("v", "rate"), "LIBoxCell": ("v", "rate"), "IAFCell": ("v", "one"),
}  # fmt: skip
RECURRENT = ("LIFRecurrentCell", "LIFExRecurrentCell", "LIFAdExRecurrentCell", "LIFRefracRecurrentCell",
             "LIFAdExRefracRecurrentCell", "LSNNRecurrentCell")  # fmt: skip


def spikes() -> Tensor:
    return (torch.rand(TIME, BATCH, PRE, generator=torch.Generator().manual_seed(1)) < 0.2).double()


def inner(cell: Any) -> Any:
    """Return the parameters of the LIF that a refractory cell has inside."""
    return getattr(cell.p, "lif", getattr(cell.p, "lif_adex", cell.p))


def quiet_(cell: Any) -> Any:
    """Put the threshold out of reach, so that nothing but the input moves the state."""
    p, far = inner(cell), torch.tensor(1e9, dtype=torch.float64)
    if p is not cell.p:
        name = "lif" if hasattr(cell.p, "lif") else "lif_adex"
        cell.p = cell.p._replace(**{name: p._replace(v_th=far)})
    elif hasattr(p, "v_th"):
        cell.p = p._replace(v_th=far)
    return cell


class Net(nn.Module):
    def __init__(self, cell: nn.Module, connected: bool = True) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.fc = nn.Linear(PRE, POST, bias=False) if connected else None
        self.cell = cell

    def forward(self, x: Tensor) -> list[Any]:
        state, states = None, []
        for step in x:
            _, state = self.cell(step if self.fc is None else self.fc(step), state)
            states.append(getattr(state, "lif", getattr(state, "lif_adex", state)))
        return states


def total(weight: Tensor, r: Tensor) -> Tensor:
    """Sum of currents, each with its own decay, ``(time, batch, post)``."""
    current: Any = 0.0
    out = []
    for z in spikes():
        current = r * current + weight * z.unsqueeze(1)
        out.append(current.sum(-1))
    return torch.stack(out)


def stir_(module: Any) -> Tensor:
    r = module.heterogeneity.r
    r.data = torch.rand(r.shape, generator=torch.Generator().manual_seed(2), dtype=r.dtype) * 0.95
    return r


@pytest.mark.parametrize("kind", list(CELLS))
def test_what_adds_the_input_up_is_the_sum_of_currents(kind: str) -> None:
    net = Net(quiet_(getattr(norse, kind)())).double()
    bare = net(spikes())
    dk.wrap_(net, {"fc": HetSyn()}, example=spikes()[:3])
    name, factor = CELLS[kind]
    for one, two in zip(net(spikes()), bare, strict=True):
        assert torch.equal(getattr(one, name), getattr(two, name))
    r = stir_(net.fc.dk)
    p = inner(net.cell)
    if factor == "one":
        scale = 1.0
    else:
        scale = float(DT * p.tau_mem_inv) if factor == "rate" else 1 - float(DT * p.tau_syn_inv)
    found = torch.stack([getattr(state, name) for state in net(spikes())])
    torch.testing.assert_close(found, scale * total(net.fc.weight, r), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", RECURRENT)
def test_inside_a_recurrent_cell_too(kind: str) -> None:
    net = Net(quiet_(getattr(norse, kind)(PRE, POST)), connected=False).double()
    dk.wrap_(net, {"cell.*": HetSyn()}, example=spikes()[:3])
    cell: Any = net.cell
    r = stir_(cell.dk["input"])
    found = torch.stack([state.i for state in net(spikes())])
    p = inner(cell)
    scale = 1.0 if kind.startswith("LSNN") else 1 - float(DT * p.tau_syn_inv)
    torch.testing.assert_close(found, scale * total(cell.input_weights, r), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["LIF", "LI"])
def test_a_neuron_that_runs_whole_sequences(kind: str) -> None:
    net = norse.SequentialState(nn.Linear(PRE, POST, bias=False), getattr(norse, kind)()).double()
    dk.wrap_(net, {"0": HetSyn()}, example=spikes())
    r = stir_(net[0].dk)
    _, state = net(spikes())
    alpha = 1 - float(DT * net[1].p.tau_syn_inv)
    last = state[1].i
    torch.testing.assert_close(last, alpha * total(net[0].weight, r)[-1], rtol=0, atol=1e-10)


def test_it_begins_at_norses_euler_decay_and_not_at_the_exponential() -> None:
    net = Net(norse.LIFCell()).double()
    dk.wrap_(net, {"fc": HetSyn()}, example=spikes()[:3])
    assert float(net.fc.dk.heterogeneity.r[0, 0].detach()) == pytest.approx(1 - DT * 200.0, abs=1e-7)
    taus = Net(norse.LIFCell()).double()
    dk.wrap_(taus, {"fc": HetSyn(tau=10.0)}, example=spikes()[:3])  # Norse knows the length of a step
    assert float(taus.fc.dk.heterogeneity.tau_ms().mean()) == pytest.approx(10.0, rel=1e-5)


@pytest.mark.parametrize("granularity", ["layer", "post"])
def test_time_constants_of_norse_neurons_are_registered_saved_moved_and_learned(
    granularity: str, tmp_path: Path
) -> None:
    net = Net(norse.LIFCell()).double()
    dk.wrap_(net, {"fc": HetSyn(granularity)}, example=spikes()[:3])
    name = "fc.dk.heterogeneity.r"
    assert name in dict(net.named_parameters()) and name in net.state_dict()
    optimizer = torch.optim.SGD(dk.param_groups(net, lr=0.1, delay_lr=0.1))
    dk.attach(optimizer, net)
    before = net.state_dict()[name].clone()
    net(spikes())[-1].v.pow(2).sum().backward()
    optimizer.step()
    assert bool((net.state_dict()[name] != before).all())
    dk.save(net, tmp_path / "extras")
    again = dk.load(Net(norse.LIFCell()).double(), tmp_path / "extras")
    assert torch.equal(again.state_dict()[name], net.state_dict()[name])
    assert net.float().state_dict()[name].dtype == torch.float32


def test_an_unlike_cell_is_refused_by_name() -> None:
    net = Net(norse.IzhikevichCell(norse.tonic_spiking) if hasattr(norse, "tonic_spiking") else _izhikevich())
    with pytest.raises(dk.WrapError, match=r"Izhikevich\w* 'cell' behind it"):
        dk.wrap_(net, {"fc": HetSyn()}, example=spikes().float()[:3])


def _izhikevich() -> nn.Module:
    from norse.torch.functional.izhikevich import tonic_spiking
    from norse.torch.module.izhikevich import IzhikevichCell

    return IzhikevichCell(tonic_spiking)
