"""Weights that hooks compute before forward, modules with a forward of their own: their own product, or refused."""

from __future__ import annotations

import copy

import pytest
import torch
from rigs import arrivals, currents, late, leaky, ones, snn, spikes
from torch import nn
from torch.nn.utils import prune, weight_norm

import delaykit as dk


def neuron(seed=0):
    torch.manual_seed(seed)
    return snn.RLeaky(0.9, linear_features=4, threshold=0.3)


def steps(lif, x):
    (spk, mem), out = lif.reset_mem(), []
    for step in x:
        spk, mem = lif(step, spk, mem)
        out.append(mem)
    return torch.stack(out)


HOOKS = {
    "prune": lambda m: prune.l1_unstructured(m, "weight", amount=0.5),
    "weight_norm": lambda m: weight_norm(m),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("delayed", [False, True])
@pytest.mark.parametrize("hook", HOOKS)
def test_rollout_reads_a_weight_behind_its_hook(hook, delayed):
    """The stored weight is stale after a change of what it is computed from; the step loop sees the new one."""
    lif, x = neuron(), 0.5 * torch.rand(8, 2, 4)
    if delayed:
        net = nn.Sequential(lif)
        dk.wrap_(net, {"0.recurrent": dk.At(late(2), reset="manual")})
    HOOKS[hook](lif.recurrent)
    with torch.no_grad():
        name = "weight_orig" if hook == "prune" else "weight_v"
        getattr(lif.recurrent, name).mul_(-1.5)
        _, got = dk.rollout(lif, x)
        if delayed:
            dk.reset(net)
        torch.testing.assert_close(got, steps(lif, x))


class Binary(nn.Conv1d):
    """A convolution whose forward uses the sign of its weight."""

    def forward(self, x):
        return self._conv_forward(x, self.weight.sign(), self.bias)


class Centred(nn.Conv1d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2), keepdim=True)
        return self._conv_forward(x, weight, self.bias)


class Scaled(nn.Conv1d):
    """Not linear in the input: its output is divided by its own size."""

    def forward(self, x):
        y = super().forward(x)
        return y / (1 + y.abs().amax())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["axonal", "dendritic"])
@pytest.mark.parametrize("layer", [Binary, Centred, Scaled])
def test_a_convolution_with_a_forward_of_its_own(layer, kind, bias):
    """Its own product is delayed, or it is refused as a Linear of that kind is."""
    torch.manual_seed(0)
    net = nn.Sequential(layer(2, 2, 1, bias=bias), leaky(init_hidden=True))
    bare = layer(2, 2, 1, bias=bias)
    bare.load_state_dict(net[0].state_dict())
    try:
        dk.wrap_(net, {"0": late(2, kind)}, example=torch.rand(1, 2, 3))
    except dk.WrapError as error:
        assert "forward of its own" in str(error)
        return
    x = torch.rand(6, 1, 2, 3)
    net[1].reset_mem()
    with torch.no_grad(), currents(net[0]) as seen:
        for step in x:
            net(step)
        silence = bare(torch.zeros_like(x[0])) if kind == "axonal" else net[0].bias
        want = [bare(step) for step in x[:-2]]
        torch.testing.assert_close(seen[2:], want)
        start = silence.reshape(1, -1, 1).expand_as(want[0]) if bias and kind == "dendritic" else 0 * want[0]
        if kind == "dendritic":
            torch.testing.assert_close(seen[0], start)


def test_a_linear_with_a_forward_of_its_own_is_refused_without_advice_that_cannot_be_followed():
    """A binary Linear has nothing "it adds" that could be moved into another module."""

    class BinaryLinear(nn.Linear):
        def forward(self, x):
            return nn.functional.linear(x, self.weight.sign(), self.bias)

    net = nn.Sequential(BinaryLinear(2, 2), leaky(init_hidden=True))
    with pytest.raises(dk.WrapError, match="parametriz") as caught:
        dk.wrap_(net, {"0": late(2)}, example=torch.rand(1, 2))
    assert "what it adds" not in str(caught.value)


def test_dendritic_delays_on_a_transposed_convolution_with_bias():
    net = nn.Sequential(nn.ConvTranspose1d(1, 1, 1), leaky(init_hidden=True))
    with torch.no_grad():
        net[0].weight.fill_(1.0), net[0].bias.fill_(0.25)
    dk.wrap_(net, {"0": late(2, "dendritic")}, example=torch.zeros(1, 1, 1))
    net[1].reset_mem()
    with currents(net[0]) as seen:
        for step in spikes(5, 1).unsqueeze(-1):
            net(step)
    assert arrivals(seen) == {0: 0.25, 1: 0.25, 2: 0.25, 3: 1.25, 4: 0.25}
    x = spikes(5, 1).unsqueeze(-1)
    with dk.disabled(net):
        torch.testing.assert_close(net[0](x[1]), torch.full((1, 1, 1), 1.25))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("way", ["weight_norm", "parametrize"])
def test_unwrapping_behind_a_parametrization(way):
    """Wrap first, then weight_norm or a parametrization, as the plan says; and back in either order."""
    net = nn.Sequential(nn.Linear(2, 2), leaky(init_hidden=True))
    dk.wrap_(net, {"0": late(2)}, example=torch.zeros(1, 2))
    if way == "weight_norm":
        weight_norm(net[0])
    else:
        nn.utils.parametrizations.spectral_norm(net[0])
    x = torch.rand(1, 2)
    net(x)
    dk.unwrap_(net)
    assert net(x).shape == (1, 2) and not hasattr(net[0], "dk")


def test_pruned_weights_in_a_step_loop():
    """The hook computes the weight before every call: the step loop follows it."""
    net = nn.Sequential(ones(), leaky(init_hidden=True))
    dk.wrap_(net, {"0": late(2, "synaptic")}, example=torch.zeros(1, 1))
    prune.identity(net[0], "weight")
    net[1].reset_mem()
    with torch.no_grad(), currents(net[0]) as seen:
        for t, step in enumerate(spikes(5, 0)):
            if t == 2:
                net[0].weight_orig.fill_(3.0)
            net(step)
    assert arrivals(seen) == {2: 3.0}


def test_rollout_reads_a_weight_that_a_parametrization_changes_at_every_step():
    """Spectral norm in training takes one step of its power iteration at each read."""
    lif, x = neuron(), 0.5 * torch.rand(8, 2, 4)
    nn.utils.parametrizations.spectral_norm(lif.recurrent, n_power_iterations=1)
    start = {k: v.clone() for k, v in lif.recurrent.state_dict().items()}
    with torch.no_grad():
        _, got = dk.rollout(lif, x)
        lif.recurrent.load_state_dict(start)
        torch.testing.assert_close(got, steps(lif, x))


def test_rollout_calls_the_hooks_that_a_loop_calls():
    lif, calls = neuron(), []
    lif.recurrent.register_forward_hook(lambda *_: calls.append(1))
    dk.rollout(lif, torch.rand(8, 2, 4))
    assert len(calls) == 8


@pytest.mark.parametrize("space", [1, 2, 3])
def test_dendritic_delays_on_strided_transposed_convolutions(space):
    """The product alone, with stride, padding, groups and dilation: that of the layer without its bias."""
    torch.manual_seed(0)
    kind = getattr(nn, f"ConvTranspose{space}d")
    options = {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2, "dilation": 2}
    layer, twin = kind(2, 2, 3, **options), kind(2, 2, 3, **options)
    twin.load_state_dict(layer.state_dict())
    net = nn.Sequential(layer, leaky(init_hidden=True))
    x = torch.rand(3, 1, 2, *[4] * space)
    dk.wrap_(net, {"0": late(2, "dendritic")}, example=x[0])
    net[1].reset_mem()
    with torch.no_grad():
        net(x[0]), net(x[1])
        torch.testing.assert_close(net[0](x[2]), twin(x[0]))


def test_unwrapping_behind_a_parametrization_leaves_copies_alone():
    """Copies share the class that parametrize made: giving it back to one must not unwrap the other."""
    net = nn.Sequential(ones(), leaky(init_hidden=True))
    dk.wrap_(net, {"0": late(2)}, example=torch.zeros(1, 1))
    nn.utils.parametrize.register_parametrization(net[0], "weight", nn.Identity())
    twin = copy.deepcopy(net)
    dk.unwrap_(net)
    assert not hasattr(net[0], "dk") and dk.status(twin).sites[0].name == "0"
    nn.utils.parametrize.remove_parametrizations(net[0], "weight")
    assert type(net[0]) is nn.Linear and type(net) is nn.Sequential
    twin[1].reset_mem()
    with torch.no_grad(), currents(twin[0]) as seen:
        for step in spikes(4, 0):
            twin(step)
    assert arrivals(seen) == {2: 1.0}
    nn.utils.parametrize.remove_parametrizations(twin[0], "weight")
    assert type(dk.unwrap_(twin)[0]) is nn.Linear


def test_unwrapping_a_parametrized_cell_and_root():
    norse = pytest.importorskip("norse.torch", reason="wraps norse models")
    cell = norse.LIFRecurrentCell(2, 3)
    dk.wrap_(cell, {"recurrent": late(2)}, example=lambda: [cell(torch.zeros(1, 2), None), None])
    nn.utils.parametrize.register_parametrization(cell, "recurrent_weights", nn.Identity())
    cell(torch.ones(1, 2), None)
    dk.unwrap_(cell)
    cell(torch.ones(1, 2), None)
    nn.utils.parametrize.remove_parametrizations(cell, "recurrent_weights")
    assert type(cell) is norse.LIFRecurrentCell


class Noisy(nn.Linear):
    """Another product in training than in evaluation."""

    def forward(self, x):
        return super().forward(x) * (2.0 if self.training else 1.0)


class DropConnect(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x, nn.functional.dropout(self.weight, 0.2, self.training), self.bias)


class Squashed(nn.Linear):
    """Its product where that is zero, as in an example of zeros."""

    def forward(self, x):
        return super().forward(x).tanh()


class Plain(nn.Linear):
    def forward(self, x):
        return super().forward(x)


@pytest.mark.parametrize("example", [torch.zeros(1, 4), torch.ones(1, 4)])
@pytest.mark.parametrize("layer", [Noisy, DropConnect, Squashed])
def test_a_linear_that_is_its_product_in_the_example_alone_is_refused(layer, example):
    net = nn.Sequential(layer(4, 3, bias=False), leaky(init_hidden=True)).train()
    state = torch.get_rng_state()
    with pytest.raises(dk.WrapError, match="forward of its own"):
        dk.wrap_(net, {"0": late(2, "axonal")}, example=example)
    assert net[0].training and torch.equal(torch.get_rng_state(), state)
    dk.wrap_(nn.Sequential(Plain(4, 3), leaky(init_hidden=True)), {"0": late(2, "axonal")}, example=example)


def test_rollout_refuses_hooks_that_see_what_each_call_is_given():
    lif = snn.RLeaky(0.8, linear_features=4)
    lif.register_full_backward_hook(lambda module, inputs, outputs: None)
    with pytest.raises(dk.ConfigError, match="backward hooks"):
        dk.rollout(lif, torch.zeros(3, 2, 4))


@pytest.mark.parametrize("hook", ["its weight", "every module"])
def test_rollout_hears_hooks_of_gradients_and_of_all_modules(hook):
    torch.manual_seed(0)
    lif, x = snn.RLeaky(0.8, threshold=0.5, linear_features=4), (torch.rand(9, 2, 4) < 0.4).float()
    half = lambda module, *gradients: tuple(None if g is None else 0.5 * g for g in gradients[0])  # noqa: E731
    everywhere = nn.modules.module.register_module_forward_hook
    handle = {
        "its weight": lambda: lif.recurrent.register_full_backward_pre_hook(half),
        "every module": lambda: everywhere(lambda m, i, o: 0.5 * o if isinstance(m, nn.Linear) else None),
    }[hook]()

    def loop():
        spk, mem = lif.reset_mem()
        out = []
        for step in x:
            spk, mem = lif(step, spk, mem)
            out.append(mem)
        return torch.stack(out)

    def gradient(membranes):
        lif.zero_grad()
        membranes.square().sum().backward()
        return membranes.detach(), lif.recurrent.weight.grad.clone()

    try:
        torch.testing.assert_close(gradient(dk.rollout(lif, x)[1]), gradient(loop()))
    finally:
        handle.remove()
