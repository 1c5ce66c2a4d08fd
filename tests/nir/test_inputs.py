"""A graph begins with what the model is called with: what the model does to it first is refused; names of nodes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("nir", reason="writes NIR graphs")
snn = pytest.importorskip("snntorch", reason="wraps snnTorch models")

from nir_nets import louder_, spikes  # noqa: E402

import delaykit as dk  # noqa: E402
from delaykit.testing.nets.reference import surrogate_spike  # noqa: E402

OPTIONS = {"threshold": 0.7, "reset_mechanism": "zero", "reset_delay": False, "spike_grad": surrogate_spike}
X = spikes(12, 3, 4, seed=1)
WHOLE = dk.FreeDelay("axonal", max_delay=5, init=2.0)


class Loop(nn.Module):
    """One layer and its neurons, after something that is done to the whole input."""

    def __init__(self, first=lambda x: x, again=None) -> None:
        super().__init__()
        self.fc, self.lif, self.first, self.again = nn.Linear(4, 4), snn.Leaky(0.8, **OPTIONS), first, again

    def forward(self, x):
        mem, out = self.lif.init_leaky(), []
        for step in self.first(x):
            spk, mem = self.lif(self.fc(step), mem)
            out.append(spk)
        return torch.stack(out)


def loop(*args, x=X):
    torch.manual_seed(0)
    return dk.wrap_(louder_(Loop(*args).double(), 4.0), {"fc": WHOLE}, example=x)


def assert_same(net, x=X, runs=None, twin_input=None):
    """Compare the graph's spikes with the model's; return the names of the nodes."""
    graph = dk.to_nir(net, runs or x, 1.0)
    with torch.no_grad():
        wanted, found = net(x) if runs is None else runs(), dk.from_nir(graph)(X if twin_input is None else twin_input)
    assert wanted.sum() > 10 and torch.equal(found.reshape(wanted.shape), wanted)
    return list(graph.nodes)


CHANGES = {
    "scaled": lambda x: x * 0.5 + 0.25,
    "flipped": lambda x: x.flip(-1),
    "reversed": lambda x: x.flip(0),
    "rolled": lambda x: x.roll(1, 0),
    "masked": lambda x: x * torch.tensor([1.0, 0, 1, 1]).to(x),
    "in place": lambda x: x.mul_(0.5),
    "drawn": lambda x: torch.bernoulli(x * 0.5),
}


@pytest.mark.parametrize("how", ["tensor", "callable", "forward"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_a_model_does_to_its_input_is_refused(change, how):
    net, x = loop(CHANGES[change], x=X.clone()), X.clone()
    example = {"tensor": x, "callable": lambda: net(x), "forward": lambda: net.forward(x)}[how]
    with pytest.raises(dk.ConfigError, match="fc, the first layer: found input that is not what the model was called"):
        dk.to_nir(net, example, 1.0)


PASSES = {
    "as it is": (lambda x: x, X),
    "batch first": (lambda x: x.transpose(0, 1), X.transpose(0, 1)),
    "time last": (lambda x: x.movedim(-1, 0), X.movedim(0, -1)),
    "other type": (lambda x: x.double(), X.to(torch.uint8)),
    "flat features": (lambda x: x.flatten(2), X.reshape(12, 3, 2, 2)),
    "one current": (lambda x: x.expand(12, *x.shape), X[0]),
}


@pytest.mark.parametrize("case", PASSES)
def test_the_same_numbers_in_another_form_are_written(case):
    first, x = PASSES[case]
    assert_same(loop(first, x=x), x, twin_input=X[:1].expand(12, 3, 4) if case == "one current" else None)


class Stepped(nn.Sequential):
    """Layers that are called once a step, after whatever stands before them."""

    def __init__(self, *before: nn.Module, change=None, features=4) -> None:
        lif = snn.Leaky(0.8, init_hidden=True, **OPTIONS)
        super().__init__(*before, nn.Linear(features, 4), lif)
        self.change = change

    def forward(self, x):
        return super().forward(x if self.change is None else self.change(x))

    def run(self, x):
        self[-1].reset_mem()
        return torch.stack([self(step) for step in x])


def stepped(*before, change=None, features=4, x=X):
    torch.manual_seed(0)
    net = louder_(Stepped(*before, change=change, features=features).double(), 4.0)
    net.eval()
    return dk.wrap_(net, {str(len(before)): WHOLE}, example=lambda: net.run(x))


def test_a_change_at_every_second_step_is_refused():
    count = iter(range(1000))
    net = stepped(change=lambda v: v * (next(count) % 2))
    with pytest.raises(dk.ConfigError, match="the first layer: found input that is not"):
        dk.to_nir(net, lambda: net.run(X), 1.0)


def trained_norm():
    norm = nn.BatchNorm1d(4).double()
    for _ in range(9):
        norm(torch.rand(64, 4).double() * 3 + 1)
    return norm.eval()


BEFORE = {"BatchNorm1d": trained_norm, "Threshold": lambda: nn.Threshold(0.5, 0.3), "ReLU": nn.ReLU}


@pytest.mark.parametrize("kind", BEFORE)
def test_layers_of_torch_before_the_first_are_refused_by_name(kind):
    net = stepped(BEFORE[kind]())
    with pytest.raises(dk.ConfigError, match=rf"0 \({kind}\) between the model's input and 1"):
        dk.to_nir(net, lambda: net.run(X), 1.0)
    net[2].reset_mem()
    with pytest.raises(dk.ConfigError, match=rf"0 \({kind}\) between"):  # called apart
        dk.to_nir(net, lambda: [net[2](net[1](net[0](step))) for step in X], 1.0)


@pytest.mark.parametrize("functional", [False, True])
def test_dropout_in_training_is_refused_and_in_eval_mode_is_nothing(functional):
    drop = (lambda v: nn.functional.dropout(v, 0.5, net.training)) if functional else None
    net = stepped(nn.Identity() if functional else nn.Dropout(0.5), change=None)
    net.change = drop
    assert_same(net, runs=lambda: net.run(X))
    net.train()
    with pytest.raises(dk.ConfigError, match="dropout that is in training mode.*net.eval()"):
        dk.to_nir(net, lambda: net.run(X), 1.0)


def test_reshaping_layers_first_are_nodes():
    x = spikes(12, 3, 1, 4, 4, seed=1)
    for net in (stepped(nn.Flatten(), features=16, x=x), stepped(nn.AvgPool2d(2), nn.Flatten(), x=x)):
        assert "layer_0" in assert_same(net, runs=lambda net=net: net.run(x), twin_input=x)


def test_a_model_that_is_called_with_no_tensor_is_refused():
    net = loop(lambda x: X[:x], x=12)
    with pytest.raises(dk.ConfigError, match="called with no tensor"):
        dk.to_nir(net, lambda: net(12), 1.0)


def test_layers_that_are_called_apart_begin_the_graph():
    net = stepped()
    graph = dk.to_nir(net, lambda: [net[1](net[0](step)) for step in X], 1.0)
    assert list(graph.nodes) == ["input", "layer_0_delay", "layer_0", "layer_1", "output"]


class Named(nn.Module):
    """Linear layers and neurons under given names, one behind the other."""

    def __init__(self, *pairs: tuple[str, str]) -> None:
        super().__init__()
        self.pairs = pairs
        for one, two in pairs:
            for path, module in ((one, nn.Linear(4, 4)), (two, snn.Leaky(0.8, init_hidden=True, **OPTIONS))):
                inside, _, name = path.rpartition(".")
                if inside and not hasattr(self, inside):
                    self.add_module(inside, nn.Module())
                self.get_submodule(inside).add_module(name, module)

    def forward(self, v):
        for one, two in self.pairs:
            v = self.get_submodule(two)(self.get_submodule(one)(v))
        return v

    def run(self, x):
        for _, two in self.pairs:
            self.get_submodule(two).reset_mem()
        return torch.stack([self(step) for step in x])


@pytest.mark.parametrize(
    ("pairs", "names"),
    [
        ([("input", "output")], ["input_2", "output_2"]),
        ([("fc", "lif"), ("output", "out")], ["output_2"]),
        ([("a.0", "a.1"), ("a_0", "a_1")], ["a_0", "a_0_2", "a_1", "a_1_2"]),
        ([("f", "l"), ("f_delay", "l2")], ["f_delay", "f_delay_2"]),
        ([("f/g", "l"), ("l_spikes", "l2")], ["f_g", "l_spikes"]),
    ],
)
def test_every_node_has_a_name_of_its_own(pairs, names):
    torch.manual_seed(0)
    net = louder_(Named(*pairs).double(), 4.0)
    dk.wrap_(net, {one: WHOLE for one, _ in pairs}, example=lambda: net.run(X))
    found = assert_same(net, runs=lambda: net.run(X))
    assert set(names) <= set(found) and {"input", "output"} <= set(found)
