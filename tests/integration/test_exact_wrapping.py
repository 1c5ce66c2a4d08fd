"""Exact gradients in wrapped models: those of continuous time, with the library's own values."""

from __future__ import annotations

import continuous
import numpy as np
import pytest
import torch
from continuous import cosine
from exact_nets import (
    CLOSE,
    COEFFICIENTS,
    UNTIL,
    Chain,
    NorseNet,
    OneNeuron,
    Pieces,
    SynapticNet,
    TwoLayers,
    cells,
    compare,
    drawn,
    exact,
    found_slopes,
    grid,
    slopes_of,
    snn,
    spikes_in,
    wrapped_chain,
)
from torch import nn

import delaykit as dk
from delaykit.testing.nets import input_spikes, tiny_nets

# --- continuous time


def calm(seed, span):
    """Whether no neuron of a random net fires within ``span`` ms of an arrival at it or of the end."""
    weight, delay, inputs = drawn(seed)
    spikes, _ = continuous.run(weight, delay, inputs, UNTIL)
    first = weight.shape[1] - weight.shape[0]
    events = [*inputs, *((first + j, at) for at, j in spikes)]
    gaps = [abs(at - t - delay[j, s]) for at, j in spikes for s, t in events if weight[j, s]]
    return min(*gaps, UNTIL - spikes[-1][0]) > span


CALM = {dt: [seed for seed in range(24) if calm(seed, 2 * dt)] for dt in CLOSE}


@pytest.mark.parametrize("kind", [SynapticNet, NorseNet])
@pytest.mark.parametrize(
    ("dt", "part"),
    [(0.1, slice(None)), (0.02, slice(1)), pytest.param(0.02, slice(1, None), marks=pytest.mark.slow)],
    ids=["coarse", "fine", "fine, the rest"],
)
def test_all_calm_nets_agree_with_finite_differences_of_continuous_time(kind, dt, part):
    """Those of 24 nets in which two steps, to which a library rounds its events, change no order of events."""
    assert len(CALM[0.1]) == 3 and len(CALM[0.02]) == 11
    for seed in CALM[dt][part]:
        weight, delay, inputs = drawn(seed)
        cosines, same = compare(kind(weight, dt), weight, delay, inputs, dt)
        assert same and min(cosines) >= CLOSE[dt], seed


@pytest.mark.slow
@pytest.mark.parametrize(("dt", "above"), [(0.1, 15), (0.02, 20)])
def test_most_random_nets_agree_calm_or_not(dt, above):
    """All 24, none left out: a library's steps round spikes, resets and arrivals, and close events may swap."""
    good = 0
    for seed in range(24):
        weight, delay, inputs = drawn(seed)
        cosines, same = compare(SynapticNet(weight, dt), weight, delay, inputs, dt)
        good += same and min(cosines) >= CLOSE[dt]
    assert good >= above


def test_a_reset_to_zero_agrees_too():
    weight, delay, inputs = drawn(3)
    cosines, _ = compare(SynapticNet(weight, 0.02, "zero"), weight, delay, inputs, 0.02)
    assert min(cosines) >= 0.999


@pytest.mark.parametrize("kind", [SynapticNet, NorseNet])
def test_surrogate_gradients_do_not_agree(kind):
    """What the tests above would find if the switch did nothing."""
    weight, delay, inputs = drawn(3)
    cosines, _ = compare(kind(weight, 0.02), weight, delay, inputs, 0.02, "interp")
    assert cosines[1] < 0.9


@pytest.mark.parametrize("dt", CLOSE)
@pytest.mark.parametrize("seed", [7, pytest.param(9, marks=pytest.mark.slow)])
def test_gradients_cross_layers_by_the_times_of_spikes(seed, dt):
    random = np.random.default_rng(seed)
    weight, delay = np.zeros((5, 9)), np.full((5, 9), 1.0)
    weight[:2, :4], weight[2:, 4:6] = random.uniform(0.3, 0.5, (2, 4)), random.uniform(0.3, 0.8, (3, 2))
    delay[:2, :4], delay[2:, 4:6] = random.uniform(0.5, 3, (2, 4)), random.uniform(0.5, 3, (3, 2))
    inputs = [(m, float(at)) for m in range(4) for at in np.sort(random.uniform(0, 8, 3))]
    coefficients = np.array([0.0, 0.0, *COEFFICIENTS])
    wanted = continuous.slopes(weight, delay, inputs, UNTIL, coefficients)
    net = TwoLayers(weight, dt)
    # A spike is seen at the end of its step, and a connection in the same step delivers at its beginning: 1 is 0 ms.
    rules = {"fc1": exact(delay[:2, :4], dt), "fc2": exact(delay[2:, 4:6] + dt, dt)}
    dk.wrap_(net, rules, example=torch.zeros(2, 1, 4, dtype=torch.float64))
    loss = (net(grid(inputs, 4, UNTIL, dt))[0] * torch.tensor(COEFFICIENTS)).sum()
    for k, parameter in enumerate(("weight", "dk.delay.delay")):
        for site, rows, columns in (("fc1", slice(0, 2), slice(0, 4)), ("fc2", slice(2, 5), slice(4, 6))):
            (grad,) = torch.autograd.grad(loss, net.get_parameter(f"{site}.{parameter}"), retain_graph=True)
            assert cosine(grad.numpy(), wanted[k][rows, columns]) >= CLOSE[dt]


@pytest.mark.parametrize("how", ["given", "outside"])
def test_every_way_to_write_a_recurrence_has_the_same_gradient(how):
    weight, delay, inputs = drawn(4)
    found = {}
    for which in ("own", how):
        net = SynapticNet(weight, 0.1, how=which)
        net.wrap_(delay, 0.1)
        found[which] = found_slopes(net, grid(inputs, 4, UNTIL, 0.1))
    for one, two in zip(found["own"], found[how], strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-10, atol=1e-12)
    assert found[how][2] == 11


@pytest.mark.parametrize("granularity", ["layer", "axonal", "dendritic"])
def test_a_shared_delay_has_the_sum_of_its_synapses_gradients(granularity):
    weight, _, inputs = drawn(9)
    shape, dims = {"layer": ((), (0, 1)), "axonal": ((4,), (0,)), "dendritic": ((3,), (1,))}[granularity]
    shared = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 30
    rows = shared.reshape(-1, 1) if granularity == "dendritic" else shared
    found = []
    for name, init in ((granularity, shared), ("synaptic", rows.expand(3, 4).clone())):
        net = SynapticNet(weight, 0.1)
        config = dk.FreeDelay(name, max_delay=100, init=init, estimator="exact")
        rules = {"fc": config, "lif.recurrent": exact(np.full((3, 3), 1.5), 0.1)}
        dk.wrap_(net, rules, example=torch.zeros(2, 1, 4, dtype=torch.float64))
        membrane, _ = net(grid(inputs, 4, UNTIL, 0.1))
        found.append(torch.autograd.grad(membrane.sum(), [net.fc.dk.delay.delay, net.fc.weight]))
    torch.testing.assert_close(found[0][0], found[1][0].sum(dims), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-10, atol=1e-12)


# --- the library's values


@pytest.mark.parametrize("name", cells())
def test_values_are_the_librarys_to_the_bit(name):
    torch.manual_seed(1)
    net, x = OneNeuron(cells()[name]()), spikes_in()
    with torch.no_grad():
        bare = net(x)
    rules = {"fc": dk.FreeDelay("axonal", init=0.0, estimator="exact")}
    if "R" in name:
        rules["neuron.recurrent"] = dk.FreeDelay("axonal", init=0.0, estimator="exact")
    dk.wrap_(net, rules, example=x)
    found = net(x)
    assert torch.equal(found, bare) and 0.01 < bare[..., :8].mean() < 0.6
    found.sum().backward()
    assert torch.isfinite(net.fc.dk.delay.delay.grad).all() and net.fc.dk.delay.delay.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["Synaptic", "RSynaptic zero", "LIFCell", "LIFRecurrentCell"])
def test_whole_delays_have_the_values_of_interpolation(name):
    found = []
    for estimator in ("exact", "interp", "none"):
        torch.manual_seed(1)
        net, x = OneNeuron(cells()[name]()), spikes_in()
        generator = torch.Generator().manual_seed(5)
        config = dk.FreeDelay("synaptic", max_delay=8, init="integers", estimator=estimator)
        rules = {"fc": config} | ({"neuron.recurrent": config} if "R" in name else {})
        found.append(dk.wrap_(net, rules, example=x, generator=generator)(x))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)
    assert torch.equal(found[1], found[2])


def test_readouts_keep_their_surrogate():
    """The value of a spike goes to the surrogate as ever, its time by the rule: the first step has no reset."""
    grads = {}
    for estimator in ("exact", "interp"):
        torch.manual_seed(1)
        net = OneNeuron(snn.Synaptic(0.7, 0.8))
        dk.wrap_(net, {"fc": dk.FreeDelay("axonal", init=0.0, estimator=estimator)}, example=spikes_in())
        out = net(torch.ones(1, 1, 6))
        (grads[estimator],) = torch.autograd.grad(out[0, 0, :8].sum(), net.fc.weight)
    torch.testing.assert_close(grads["exact"], grads["interp"])
    assert grads["exact"].abs().min() > 0


# --- sequences


def test_whole_sequences_have_the_gradients_of_steps():
    x, found = spikes_in(40).double(), []
    for whole in (False, True):
        net = Pieces(whole)
        rules = {"fc*": dk.FreeDelay("synaptic", max_delay=6, estimator="exact")}
        dk.wrap_(net, rules, example=x, generator=torch.Generator().manual_seed(3))
        spikes, membrane = net(x)
        assert 0.01 < spikes.mean() < 0.4
        found.append((spikes, membrane, *torch.autograd.grad(membrane.sum() + spikes.sum(), list(net.parameters()))))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-10)


def test_hidden_states_stepped_from_outside_have_the_gradients_of_a_loop_inside():
    inside, x = wrapped_chain(), spikes_in()
    wanted = slopes_of(inside, x)
    torch.manual_seed(2)
    bare = Chain(snn.RSynaptic(0.8, 0.9, linear_features=8), snn.Synaptic(0.7, 0.8))
    for neuron in (bare.lif1, bare.lif2):
        neuron.init_hidden = True
    net = nn.Sequential(bare.fc1, bare.lif1, bare.fc2, bare.lif2)
    config = dk.FreeDelay("synaptic", max_delay=6, estimator="exact")
    rules = {"0": config, "2": config, "1.recurrent": config}

    def run():
        bare.lif1.reset_mem(), bare.lif2.reset_mem()
        for step in x:
            last = net(step)
        return torch.cat([last, bare.lif2.mem], -1)

    dk.wrap_(net, rules, example=run)
    pairs = (("fc1", "0"), ("lif1", "1"), ("fc2", "2"))
    theirs = {k.replace(a, b): v for a, b in pairs for k, v in inside.state_dict().items() if k.startswith(f"{a}.")}
    net.load_state_dict(theirs | {k: v for k, v in net.state_dict().items() if k not in theirs})
    for _ in range(2):  # a first and a repeated sequence
        names, parameters = zip(*net.named_parameters(), strict=True)
        found = dict(zip(names, torch.autograd.grad(run().sum(), parameters), strict=True))
        for (name, _), grad in zip(inside.named_parameters(), wanted, strict=True):
            for a, b in pairs:
                name = name.replace(a, b, 1) if name.startswith(f"{a}.") else name
            torch.testing.assert_close(found[name], grad, rtol=1e-5, atol=1e-5)


def test_truncated_sequences_have_the_values_of_whole_ones_and_end_the_gradient():
    (tiny,) = (net for net in tiny_nets("norse") if net.name == "norse-cell-loop")
    config, x = dk.FreeDelay("synaptic", max_delay=5, estimator="exact"), input_spikes(24)
    found = []
    for length in (24, 8):
        net = tiny.build()
        rules = {site: config for site in tiny.segment_sites}
        dk.wrap_(net, rules, example=x, generator=torch.Generator().manual_seed(1))
        parts = list(tiny.segments(net, x, length))
        grads = [torch.autograd.grad(p.membranes.sum(), net.cell.dk["input"].delay.delay)[0] for p in parts]
        found.append((torch.cat([p.membranes.detach() for p in parts]), sum(grads)))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-10, atol=1e-10)
    assert torch.isfinite(found[1][1]).all() and not torch.allclose(found[0][1], found[1][1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("granularity", ["axonal", "dendritic", "synaptic"])
def test_a_gpu_gives_the_gradients_of_the_cpu(granularity):
    weight, _, inputs = drawn(9)
    found = []
    for device in ("cpu", "cuda"):
        net, config = SynapticNet(weight, 0.1), dk.FreeDelay(granularity, max_delay=60, estimator="exact")
        x, generator = grid(inputs, 4, UNTIL, 0.1), torch.Generator().manual_seed(0)
        dk.wrap_(net, {"fc": config, "lif.recurrent": config}, example=x, generator=generator).to(device)
        membrane, _ = net(x.to(device))
        found.append([g.cpu() for g in torch.autograd.grad(membrane.sum(), net.parameters_of_time())])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)
