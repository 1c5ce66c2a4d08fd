"""``dk.save`` and ``dk.load``: round trips, both formats, and what is refused when it is saved."""

from __future__ import annotations

import hand
import pytest
import torch
from hand import HIDDEN, POST
from torch import nn

import delaykit as dk
from delaykit.testing.stored_checkpoints import rewrite_checkpoint

snn = pytest.importorskip("snntorch", reason="wraps snntorch models")

from checkpoint_nets import RULES, Net, delayed, example  # noqa: E402


@pytest.fixture
def saved(tmp_path):
    net = delayed()
    dk.save(net, tmp_path / "run" / "delays")
    return net, tmp_path / "run" / "delays"


@pytest.mark.parametrize("form", [1, 2])
@pytest.mark.parametrize("given", ["bare", "wrapped"])
def test_round_trip(saved, given, form):
    net, path = saved
    if form == 1:
        rewrite_checkpoint(path, lambda meta, tensors: None, form)
        assert path.with_suffix(".json").exists()
    other = Net()
    if given == "wrapped":
        dk.wrap_(other, RULES, example=example())
    assert dk.load(other, path) is other
    other.load_state_dict({k: v for k, v in net.state_dict().items()})
    torch.testing.assert_close(other(example()), net(example()), rtol=0, atol=0)
    extras = {k: v for k, v in net.state_dict().items() if ".dk." in k}
    again = Net()
    dk.load(again, path)
    assert all(torch.equal(again.state_dict()[k], v) for k, v in extras.items()) and len(extras) >= 8
    assert str(dk.status(again)).split()[0] == str(dk.status(net)).split()[0]


def test_saving_writes_one_file_and_no_weights(saved):
    net, path = saved
    assert [p.name for p in path.parent.iterdir()] == ["delays.safetensors"]
    assert path.with_suffix(".safetensors").stat().st_size < 8000
    assert "fc1.weight" not in path.with_suffix(".safetensors").read_bytes().decode("latin1")


def test_the_weights_go_along_on_wish(tmp_path):
    net = delayed()
    dk.save(net, tmp_path / "all", with_model=True)
    fresh = Net()
    assert not torch.equal(fresh.fc1.weight, net.fc1.weight)
    dk.load(fresh, tmp_path / "all")
    assert all(torch.equal(fresh.state_dict()[k], v) for k, v in net.state_dict().items())
    torch.testing.assert_close(fresh(example()), net(example()), rtol=0, atol=0)


def test_shared_weights_are_written_once(tmp_path):
    net = Net()
    net.again = nn.Linear(net.fc2.in_features, net.fc2.out_features)
    net.again.weight = net.fc2.weight
    dk.wrap_(net, RULES, example=example())
    dk.save(net, tmp_path / "one", with_model=True)
    content = (tmp_path / "one.safetensors").read_bytes()
    assert content.count(b'"again.weight"') == 1  # in the plan, as another name
    assert b'"again.weight": "fc2.weight"' in content or b'"again.weight":"fc2.weight"' in content


def test_saving_over_a_checkpoint_of_the_first_format_leaves_one_file(saved):
    net, path = saved
    rewrite_checkpoint(path, lambda meta, tensors: None, 1)
    dk.save(net, path)
    assert [p.name for p in path.parent.iterdir()] == ["delays.safetensors"]


def test_saving_a_bare_model_is_refused(tmp_path):
    with pytest.raises(dk.CheckpointError, match="dk.wrap_"):
        dk.save(Net(), tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", [".", "", "..", "/", None, 3, "a\0b", "a\0/b"])
@pytest.mark.parametrize("act", [dk.save, dk.load])
def test_what_names_no_file_is_refused(act, path):
    with pytest.raises(dk.CheckpointError, match="file name"):
        act(delayed(), path)


def test_a_name_may_be_as_long_as_the_file_system_has_it(tmp_path):
    for name in ("n" * 243, "ñ" * 121):  # 255 bytes with the ending
        dk.save(delayed(), tmp_path / name)
        dk.load(delayed(), tmp_path / name)
    with pytest.raises(dk.CheckpointError, match="too long"):
        dk.save(delayed(), tmp_path / ("n" * 244))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_part_of_a_wrapped_model_says_which_is_wrapped(tmp_path):
    outer = nn.Sequential(delayed())
    with pytest.raises(dk.CheckpointError, match=r"net\.0"):
        dk.save(outer, tmp_path / "x")
    with pytest.raises(dk.CheckpointError, match="pass the model first"):
        dk.save(tmp_path / "x", tmp_path / "x")


@torch.no_grad()
def one_nan(net):
    net.fc1.dk.delay.delay[2] = float("nan")


@torch.no_grad()
def one_beyond(net):
    net.fc1.dk.delay.delay[2] = 1e6


def wrapped_apart():
    net = nn.Sequential(delayed(), nn.Linear(POST, 2))
    return dk.wrap_(net, {"1": dk.At(dk.FreeDelay("axonal"), reset="manual")})


def replaced():
    net = delayed()
    net.fc2 = nn.Linear(HIDDEN, POST)
    return net


def damaged(act):
    net = delayed()
    act(net)
    return net


UNREADABLE = {
    "NaN delay": (lambda: damaged(one_nan), "fc1.dk.delay.delay"),
    "delay beyond its range": (lambda: damaged(one_beyond), "fc1"),
    "wrapped apart": (wrapped_apart, "apart"),
    "layer replaced": (replaced, "fc2"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_could_not_be_loaded_is_not_saved(case, tmp_path):
    make, told = UNREADABLE[case]
    with pytest.raises(dk.CheckpointError, match=told) as caught:
        dk.save(make(), tmp_path / "x")
    assert caught.value.expected and caught.value.fix
    assert not list(tmp_path.iterdir())


def test_a_compiled_model_is_saved_as_the_model_that_was_compiled(tmp_path):
    net = delayed()
    dk.save(torch.compile(net, backend="eager"), tmp_path / "x")
    assert torch.equal(dk.load(Net(), tmp_path / "x").fc1.dk.delay.delay, net.fc1.dk.delay.delay)
    again = torch.compile(delayed(), backend="eager")
    assert dk.load(again, tmp_path / "x") is again
    assert torch.equal(again.fc1.dk.delay.delay, net.fc1.dk.delay.delay)


class Square(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(4, 4), snn.Leaky(beta=0.8)

    def forward(self, x):
        mem, out = self.lif.reset_mem(), []
        for step in x:
            spikes, mem = self.lif(self.fc(step), mem)
            out.append(spikes)
        return torch.stack(out)


def square(config):
    return dk.wrap_(Square(), {"fc": config}, example=torch.zeros(3, 1, 4))


def nothing():
    """A connection without any component, as earlier versions took it and files may hold it."""
    rule = dk.At(dk.FreeDelay("layer"))
    object.__setattr__(rule, "components", ())
    return rule


OTHERS = {
    "granularity": (dk.FreeDelay("axonal"), dk.FreeDelay("dendritic")),
    "kernel": (
        dk.FreeDelay("axonal", kernel="triangle", spread=2.0),
        dk.FreeDelay("axonal", kernel="gaussian", spread=2.0),
    ),
    "max_delay": (dk.FreeDelay("axonal", max_delay=25), dk.FreeDelay("axonal", max_delay=30)),
    "estimator": (dk.FreeDelay("axonal"), dk.FreeDelay("axonal", estimator="none")),
    "nothing": (dk.FreeDelay("layer"), nothing()),
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_component_is_refused_with_both_named(what, tmp_path):
    one, other = OTHERS[what]
    dk.save(square(one), tmp_path / "x")
    net = square(other)
    before = hand.photograph(net)
    with pytest.raises(dk.CheckpointError) as caught:
        dk.load(net, tmp_path / "x")
    hand.same_photograph(before, hand.photograph(net))
    told = str(caught.value)
    assert "fc" in told and "bare model" in told
    if what != "nothing":
        assert repr(getattr(one, what)) in told and repr(getattr(other, what)) in told


def test_where_a_training_begins_plays_no_part(tmp_path):
    net = square(dk.FreeDelay("axonal", init=3.5))
    dk.save(net, tmp_path / "x")
    other = dk.load(square(dk.FreeDelay("axonal", init="half-normal", scale=2.0)), tmp_path / "x")
    assert torch.equal(other.fc.dk.delay.delay, net.fc.dk.delay.delay)


def test_another_model_is_refused(saved):
    _, path = saved

    class Wider(Net):
        def __init__(self):
            super().__init__()
            self.fc2 = nn.Linear(HIDDEN, POST + 1)

    net = Wider()
    before = hand.photograph(net)
    with pytest.raises(dk.CheckpointError):
        dk.load(net, path)
    assert before[0] == hand.photograph(net)[0]


class Twice(torch.nn.Module):
    """One layer for two streams, stepped from outside: nothing but the checkpoint knows how it lives in time."""

    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(hand.PRE, hand.PRE)
        self.a, self.b = (snn.Leaky(beta=0.7, init_hidden=True) for _ in range(2))

    def forward(self, x):
        return self.b(self.fc(self.a(self.fc(x))))


def test_a_followed_shared_layer_loads_into_a_bare_model_without_an_example(tmp_path):
    net, spikes = Twice(), example()
    with torch.no_grad():
        net.fc.weight.fill_(0.4)  # so that both neurons fire
    dk.wrap_(net, {"fc": dk.FreeDelay("axonal", max_delay=5)}, example=lambda: [net(x) for x in spikes[:3]])
    dk.save(net, tmp_path / "twice")
    other = Twice()
    dk.load(other, tmp_path / "twice")
    other.load_state_dict(net.state_dict())
    outputs = []
    for model in (net, other):
        for _ in range(2):
            for neuron in (model.a, model.b):
                neuron.reset_mem()
            outputs.append(torch.stack([model(x) for x in spikes]))
    assert outputs[0].any() and all(torch.equal(outputs[0], output) for output in outputs[1:])
