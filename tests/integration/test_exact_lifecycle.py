"""What exact gradients owe to a wrapped net: copies, checkpoints, detours, training."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from exact_nets import Chain, OneNeuron, same, slopes_of, snn, spikes_in, wrapped_chain
from torch import nn

import delaykit as dk
from delaykit.attaching.exact_gradients.neurons import constants_of
from delaykit.functional.event_gradients.rule import rescale_gradient
from delaykit.testing.nets.reference import surrogate_spike


def test_copies_checkpoints_and_detours_keep_the_gradients(tmp_path):
    net, x = wrapped_chain(), spikes_in()
    wanted = slopes_of(net, x)
    dk.save(net, tmp_path / "exact")
    net.lif1.reset_mem(), net.lif2.reset_mem()  # snnTorch's states with a graph cannot be copied, wrapped or not
    twin = copy.deepcopy(net)
    assert same(slopes_of(twin, x), wanted)
    assert twin.fc1.dk.listener.module is twin.lif1 and twin.fc2.dk.listener.module is twin.lif2
    with dk.disabled(net):
        bare = slopes_of(net, x)
    with dk.discretized(net):
        assert same(slopes_of(net, x)[:2], wanted[:2])
    assert same(slopes_of(net, x), wanted)
    dk.unwrap_(net)
    unwrapped = dict(zip(dict(net.named_parameters()), slopes_of(net, x), strict=True))
    for (name, _), grad in zip(twin.named_parameters(), bare, strict=True):
        assert name not in unwrapped or torch.equal(grad, unwrapped[name])  # disabled: the library's own gradients
    dk.load(net, tmp_path / "exact")
    assert same(slopes_of(net, x), wanted)


def test_a_net_that_pickled_bare_pickles_with_exact_gradients():
    config = dk.FreeDelay("synaptic", max_delay=6, init=2.0, estimator="exact")
    net = OneNeuron(snn.RSynaptic(0.9, 0.8, linear_features=8, spike_grad=surrogate_spike))
    x = spikes_in()
    before = [type(m) for m in pickle.loads(pickle.dumps(net)).modules()]
    dk.wrap_(net, {"fc": config, "neuron.recurrent": config}, example=x)
    wanted = slopes_of(net, x)
    net.neuron.reset_mem()
    twin = pickle.loads(pickle.dumps(net))
    assert same(slopes_of(twin, x), wanted) and all(bool(g.any()) for g in wanted)
    assert twin.fc.dk.listener.module is twin.neuron
    dk.unwrap_(twin)
    assert [type(m) for m in twin.modules()] == before


@pytest.mark.parametrize("estimator", ["interp", "exact"])
@pytest.mark.parametrize("granularity", ["axonal", "dendritic", "synaptic"])
def test_an_empty_batch_runs_and_teaches_nothing(granularity, estimator):
    net = Chain(*(snn.Synaptic(0.9, 0.8, spike_grad=surrogate_spike) for _ in range(2)))
    dk.wrap_(net, {"fc*": dk.FreeDelay(granularity, max_delay=6, estimator=estimator)}, example=spikes_in())
    out = net(spikes_in(batch=4)[:, :0])
    out = out if torch.is_tensor(out) else out[0]
    out.sum().backward()
    assert 0 in out.shape and not any(bool(p.grad.any()) for p in net.parameters() if p.grad is not None)


def test_a_failed_wrap_leaves_no_trace(monkeypatch):
    net = Chain(snn.Synaptic(0.9, 0.8), snn.Synaptic(0.9, 0.8))
    before = {n: (type(m), sorted(m.__dict__)) for n, m in net.named_modules()}
    plan = dk.plan(net, {"fc*": dk.FreeDelay(estimator="exact")}, example=torch.zeros(3, 2, 6))
    monkeypatch.setattr("delaykit.wrapping.apply.retype_", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        dk.wrap_(net, plan)
    assert {n: (type(m), sorted(m.__dict__)) for n, m in net.named_modules()} == before


def test_a_rollout_runs_step_by_step():
    torch.manual_seed(0)
    neuron = snn.RSynaptic(0.8, 0.9, linear_features=5)
    config = dk.FreeDelay("synaptic", max_delay=4, estimator="exact")
    dk.wrap_(neuron, {"recurrent": config}, example=lambda: [neuron(torch.zeros(2, 5)) for _ in range(3)])
    currents = 0.4 * torch.rand(20, 2, 5)
    spikes, membrane = dk.rollout(neuron, currents)
    assert spikes.sum() > 5
    grads = torch.autograd.grad(membrane[-1].sum(), list(neuron.parameters()))
    neuron.reset_mem()
    for current in currents:
        spikes, _, mem = neuron(current)
    assert same(grads, torch.autograd.grad(mem.sum(), list(neuron.parameters())))


def test_rescaled_states_keep_values_and_histories_and_bound_the_gradient():
    torch.manual_seed(2)
    cell, x, found = snn.RSynaptic(0.8, 0.9, linear_features=6), spikes_in(60), []
    config = dk.FreeDelay("synaptic", max_delay=6, estimator="exact")
    generator = torch.Generator().manual_seed(1)
    dk.wrap_(cell, {"recurrent": config}, lambda: [cell(torch.zeros(2, 6)) for _ in range(3)], generator)
    for every in (1000, 5):
        spk, syn, mem = cell.reset_mem()
        drive = (0.5 * x).requires_grad_()
        for t, step in enumerate(drive):
            if t and t % every == 0:
                syn, mem = rescale_gradient(syn), rescale_gradient(mem)
            spk, syn, mem = cell(step, spk, syn, mem)
        found.append((mem.detach(), torch.autograd.grad(100 * mem.sum(), drive)[0]))
    assert torch.equal(found[0][0], found[1][0])
    assert found[1][1][:50].norm() < 0.5 * found[0][1][:50].norm()


def test_constants_that_change_are_read_anew():
    net, x = wrapped_chain(), spikes_in()
    before = slopes_of(net, x)
    with torch.no_grad():
        net.lif2.beta.fill_(0.5)
    after = slopes_of(net, x)
    fresh = wrapped_chain()
    fresh.lif2.beta = torch.tensor(0.5)
    assert same(after, slopes_of(fresh, x)) and not same(before, after)
    assert float(constants_of(net.fc2.dk.listener.adapter.dynamics(net.lif2)).beta) == 0.5


@pytest.mark.parametrize("change", [
    lambda lif: lif.graded_spikes_factor.data.fill_(2.0), lambda lif: setattr(lif, "reset_mechanism", "zero"),
])  # fmt: skip
def test_a_neuron_that_was_changed_to_another_kind_is_refused(change):
    net, x = wrapped_chain(), spikes_in()
    slopes_of(net, x)
    change(net.lif2)
    with pytest.raises(dk.ConfigError, match="changed after wrapping.*To go on"):
        slopes_of(net, x)


def test_every_delay_component_has_the_switch():
    delrec = pytest.importorskip("delaykit_delrec", reason="needs the plugin delaykit-delrec")
    torch.manual_seed(1)
    net, x = OneNeuron(snn.RSynaptic(0.7, 0.8, linear_features=8)), spikes_in()
    rules = {"fc": delrec.DCLS(9, estimator="exact"), "neuron.recurrent": delrec.DelRec(max_delay=9, estimator="exact")}
    dk.wrap_(net, rules, example=x)
    net(x).sum().backward()
    for part in (net.fc.dk.delay, net.neuron.recurrent.dk.delay):
        assert part.delay.grad.abs().sum() > 0 and part.taps().index.shape[0] == 1


@pytest.mark.slow
def test_training_with_exact_gradients_learns():
    torch.manual_seed(0)
    net, x = wrapped_chain(), spikes_in(30, 8)
    target = 0.3 * torch.randn(8, 8, generator=torch.Generator().manual_seed(8))
    optimizer = torch.optim.Adam(dk.param_groups(net, lr=2e-3, delay_lr=2e-2))
    dk.attach(optimizer, net)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = (net(x)[-1, :, 8:] - target).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss))
    assert min(losses[-10:]) < 0.8 * losses[0]


def test_with_none_weights_learn_and_delays_stay():
    torch.manual_seed(1)
    net, x = OneNeuron(snn.Leaky(0.9)), spikes_in()
    dk.wrap_(net, {"fc": dk.FreeDelay("axonal", max_delay=6, estimator="none")}, example=x)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = torch.optim.SGD(dk.param_groups(net, lr=0.1, delay_lr=0.1))
    dk.attach(optimizer, net)
    net(x).sum().backward()
    optimizer.step()
    assert torch.equal(net.fc.dk.delay.delay, before["fc.dk.delay.delay"])
    assert not torch.equal(net.fc.weight, before["fc.weight"])
