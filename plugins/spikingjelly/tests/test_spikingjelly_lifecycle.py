"""Wrapping takes nothing away: copies, files, undoing, base checkpoints, time constants."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

import delaykit as dk

RULES = {"*": dk.FreeDelay("axonal", max_delay=6, init=2.5)}


def make(mode: str = "m", seed: int = 0) -> Any:
    torch.manual_seed(seed)
    net: Any = nn.Sequential(
        layer.SeqToANNContainer(nn.Linear(4, 6)) if mode == "m" else nn.Linear(4, 6),
        neuron.ParametricLIFNode(decay_input=False, step_mode=mode),
        layer.Linear(6, 3, step_mode=mode),
        neuron.LIFNode(decay_input=False, step_mode=mode),
    )
    with torch.no_grad():
        net[2].weight.mul_(6.0)
    return net.double()


def spikes(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3.0 * (torch.rand(16, 2, 4, generator=generator) < 0.4).double()


def run(net: Any, x: Tensor) -> Tensor:
    functional.reset_net(net)
    out = net(x) if net[1].step_mode == "m" else torch.stack([net(step) for step in x])
    assert 0.02 < float(out.detach().mean()) < 0.4
    return out


def wrap(net: Any) -> Any:
    return dk.wrap_(net, RULES, example=lambda: run(net, spikes()))


@pytest.mark.parametrize("mode", ["s", "m"])
def test_zero_delay_changes_no_bit(mode: str) -> None:
    net = make(mode).float()
    bare = run(net, spikes().float())
    dk.wrap_(net, {"*": dk.FreeDelay("axonal", max_delay=6, init=0)}, example=lambda: run(net, spikes().float()))
    assert torch.equal(run(net, spikes().float()), bare)


@pytest.mark.parametrize("mode", ["s", "m"])
def test_unwrap_gives_the_same_objects_back(mode: str) -> None:
    net = make(mode)
    bare, before = run(net, spikes()), [(id(m), type(m), sorted(m.__dict__)) for m in net.modules()]
    wrap(net)
    assert not torch.equal(run(net, spikes()), bare)
    dk.unwrap_(net)
    assert [(id(m), type(m), sorted(m.__dict__)) for m in net.modules()] == before
    assert torch.equal(run(net, spikes()), bare)


@pytest.mark.parametrize("mode", ["s", "m"])
def test_disabled_is_the_bare_net(mode: str) -> None:
    net = make(mode)
    bare = run(net, spikes())
    wrap(net)
    with dk.disabled(net):
        assert torch.equal(run(net, spikes()), bare)


@pytest.mark.parametrize("mode", ["s", "m"])
def test_files_bring_the_delays_back(mode: str, tmp_path: Path) -> None:
    net = wrap(make(mode))
    with torch.no_grad():
        net[2].dk.delay.delay.add_(0.25)
    dk.save(net, tmp_path / "delays")
    other = make(mode)
    dk.load(other, tmp_path / "delays")
    whole = run(net, spikes())
    assert torch.equal(run(other, spikes()), whole)
    functional.reset_net(other)
    pieces = [other(p) if mode == "m" else torch.stack([other(x) for x in p]) for p in spikes().split([5, 4, 7])]
    assert torch.equal(torch.cat(pieces), whole)


def test_a_base_checkpoint_loads_strict() -> None:
    net, base = wrap(make()), make(seed=5).state_dict()
    net.load_state_dict(base, strict=True)
    assert all(torch.equal(net.state_dict()[key], value) for key, value in base.items())


@pytest.mark.parametrize("mode", ["s", "m"])
def test_a_copy_of_a_running_net_is_a_net_of_its_own(mode: str) -> None:
    net = wrap(make(mode))
    wanted = run(net, spikes())
    functional.reset_net(net)
    twin = copy.deepcopy(net)
    run(net, spikes(1))  # the original goes its way
    assert torch.equal(run(twin, spikes()), wanted)
    run(twin, spikes()).sum().backward()
    assert twin[2].dk.delay.delay.grad is not None and net[2].dk.delay.delay.grad is None


@pytest.mark.parametrize("mode", ["s", "m"])
def test_wrap_copies_a_net_that_holds_a_graph(mode: str) -> None:
    """After a run with gradients a node's membrane hangs on its graph, which deepcopy alone refuses."""
    net = make(mode)
    bare = run(net, spikes())
    assert net[1].v.requires_grad
    twin = dk.wrap(net, RULES, example=spikes() if mode == "m" else spikes()[0])
    assert torch.equal(run(net, spikes()), bare)
    assert not torch.equal(run(twin, spikes()), bare)


def test_time_constants_on_the_synapses_of_a_lif() -> None:
    pytest.importorskip("delaykit_hetsyn", reason="needs the plugin delaykit-hetsyn")
    from delaykit_hetsyn import HetSyn

    net = nn.Sequential(nn.Linear(4, 3), neuron.LIFNode(tau=4.0, decay_input=False)).double()
    with torch.no_grad():
        net[0].weight.mul_(2.0)
    bare = torch.stack([net(x) for x in spikes()])
    functional.reset_net(net)
    dk.wrap_(net, {"0": HetSyn()}, example=lambda: [net(x) for x in spikes()])
    found = torch.stack([net(x) for x in spikes()])
    assert bool(bare.any()) and torch.equal(found, bare)  # it begins with the leak of the neuron


def test_time_constants_on_a_neuron_without_a_leak_are_refused() -> None:
    pytest.importorskip("delaykit_hetsyn", reason="needs the plugin delaykit-hetsyn")
    from delaykit_hetsyn import HetSyn

    net = nn.Sequential(nn.Linear(4, 3), neuron.QIFNode()).double()
    plan = dk.plan(net, {"0": HetSyn()}, example=lambda: [net(x) for x in spikes()])
    assert "QIFNode" in str(plan.issues[0])


def test_plan_leaves_the_membranes_as_they_were() -> None:
    net = make("s")
    run(net, spikes())
    membrane = net[1].v
    values = membrane.clone()
    dk.plan(net, RULES, example=lambda: [net(x) for x in spikes()])
    assert net[1].v is membrane and torch.equal(membrane, values)


@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_fused_run_calls_a_model_as_its_step_mode_says(mode: str, wrapped: bool) -> None:
    """Single steps are called once a step, from rest; a model in multi-step mode is called as it is."""
    net, x = make(mode), 6 * torch.rand(8, 3, 4, generator=torch.Generator().manual_seed(1)).double()

    def own() -> Tensor:
        functional.reset_net(net)
        return torch.stack([net(step) for step in x]) if mode == "s" else net(x)

    if wrapped:
        dk.wrap_(net, RULES, example=own)
    wanted = own()
    assert wanted.any()
    functional.reset_net(net)
    fast = dk.fused(net, example=x)
    functional.reset_net(net)
    torch.testing.assert_close(fast(x), wanted, rtol=0, atol=1e-9)
    assert fast.loop == ("outside" if mode == "s" else "inside")
