"""A neuron whose state goes on from call to call (``Neuron.goes_on``), of a library that nobody has heard of."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit.adapters import ADAPTER_API, Neuron, NeuronAdapter, Spot
from delaykit.testing import adapter_on_trial


class Counter(nn.Module):
    """A perfect integrator over ``(time, batch, neuron)`` that keeps its sum until ``clear``."""

    def __init__(self) -> None:
        super().__init__()
        self.sum: Tensor | None = None

    def clear(self) -> None:
        self.sum = None

    def forward(self, currents: Tensor) -> Tensor:
        sums = currents.cumsum(0) if self.sum is None else self.sum + currents.cumsum(0)
        self.sum = sums[-1].clone()
        return sums


class Deaf(Counter):
    """A neuron to which time means nothing."""


class CounterAdapter(NeuronAdapter):
    name = "counter"
    api = ADAPTER_API

    def find(self, path: str, module: nn.Module) -> tuple[list[Spot], Neuron | None]:
        if not isinstance(module, Counter):
            return [], None
        refusal = "it is deaf to time" if isinstance(module, Deaf) else ""
        return [], Neuron(path, module, self, "sequence", True, goes_on=True, refusal=refusal)

    def membrane(self, module: Any, state: Any = None) -> Tensor | None:
        return module.sum


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    with adapter_on_trial(CounterAdapter):
        yield


def make(granularity: str = "axonal", delay: float = 2.5, **options: Any) -> Any:
    net = nn.Sequential(nn.Linear(3, 2), Counter(), nn.Linear(2, 2)).double()
    rule = dk.At(dk.FreeDelay(granularity, max_delay=6, init=delay), **options)
    return dk.wrap_(net, {"*": rule}, example=torch.rand(4, 1, 3).double())


def inputs(time: int = 12, batch: int = 2) -> Tensor:
    return torch.randn(time, batch, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.mark.parametrize("granularity", ["layer", "axonal", "dendritic", "synaptic"])
def test_a_sequence_in_pieces_is_the_whole_sequence(granularity: str) -> None:
    net, x = make(granularity), inputs()
    assert {a.timing.policy for a in (s.attachment for s in dk.wrapped_sites(net))} == {"follow"}
    whole = net(x)
    for sizes in ([5, 7], [1] * 12, [3, 1, 8]):
        net[1].clear()
        torch.testing.assert_close(torch.cat([net(part) for part in x.split(sizes)]), whole, rtol=1e-12, atol=1e-12)


def test_gradients_flow_from_piece_to_piece() -> None:
    net, x = make(), inputs()
    parameters = list(net.parameters())
    whole = torch.autograd.grad(net(x).square().sum(), parameters)
    net[1].clear()
    pieces = torch.autograd.grad(sum(net(part).square().sum() for part in x.split(5)), parameters)
    torch.testing.assert_close(pieces, whole, rtol=1e-10, atol=1e-12)


def test_a_reset_and_another_batch_size_begin_anew() -> None:
    net, x = make(), inputs()
    first = net(x)
    net[1].clear()
    assert torch.equal(net(x), first)
    net[1].clear()
    net(inputs(batch=1))
    net[1].clear()
    assert torch.equal(net(x), first)


def test_a_detached_state_keeps_the_spikes_and_cuts_the_graph() -> None:
    net, x = make(), inputs()
    whole = net(x).detach()
    net[1].clear()
    net(x[:5]).sum().backward()
    net[1].sum = net[1].sum.detach_()
    rest = net(x[5:])
    rest.sum().backward()  # would fail if the first piece's graph were still there
    torch.testing.assert_close(rest.detach(), whole[5:], rtol=1e-12, atol=1e-12)


def test_root_means_that_every_call_is_a_sequence() -> None:
    net, x = make(reset="root"), inputs()
    net(x)
    net[1].clear()
    first = net(x)
    net(x)
    net[1].clear()
    assert torch.equal(net(x), first)


def test_a_neuron_that_refuses_delays_refuses_them_on_every_way() -> None:
    net = nn.Sequential(nn.Linear(3, 2), Deaf()).double()
    plan = dk.plan(net, {"0": dk.FreeDelay("axonal"), "1": dk.Recurrent(dk.FreeDelay())}, example=inputs(4))
    assert len(plan.issues) == 2 and all("deaf to time" in str(issue) for issue in plan.issues)


def test_a_model_is_copied_with_states_that_hang_on_a_graph_in_any_container() -> None:
    net = nn.Sequential(nn.Linear(3, 2), Counter()).double()
    net[1].kept = {"past": [net[0](inputs())]}
    with pytest.raises(RuntimeError):
        copy.deepcopy(net)
    twin = dk.wrap(net, {"0": dk.FreeDelay("axonal")}, example=inputs(4))
    assert torch.equal(twin[1].kept["past"][0], net[1].kept["past"][0])
