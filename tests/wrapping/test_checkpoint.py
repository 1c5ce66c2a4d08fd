"""``dk.save`` and ``dk.load``: round trips, and files that are truncated, foreign, newer or hostile."""

from __future__ import annotations

import json
import os
import pathlib
import pickle

import hand
import pytest
import torch
from hand import HIDDEN, POST, PRE
from safetensors.torch import save_file
from torch import nn

import delaykit as dk

snn = pytest.importorskip("snntorch", reason="wraps snntorch models")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.rlif = nn.Linear(PRE, HIDDEN), snn.RLeaky(beta=0.8, linear_features=HIDDEN)
        self.fc2, self.lif2 = nn.Linear(HIDDEN, POST), snn.Leaky(beta=0.8)

    def forward(self, x):
        (spk1, mem1), mem2, out = self.rlif.reset_mem(), self.lif2.reset_mem(), []
        for step in x:
            spk1, mem1 = self.rlif(self.fc1(step), spk1, mem1)
            _, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(mem2)
        return torch.stack(out)


RULES = {
    "fc1": dk.FreeDelay("axonal", kernel="triangle", spread=2.0, spread_decay=0.9),
    "fc2": dk.FreeDelay("synaptic", max_delay=7),
    "rlif.recurrent": dk.FreeDelay("dendritic", learn=False),
    "lif2": dk.Recurrent(dk.FreeDelay("layer"), bias=True),
}


def example():
    return hand.spikes_in(rate=0.6).float()


def delayed():
    net = dk.wrap_(Net(), RULES, example=example())
    dk.advance_(net, 0.05)
    return net


@pytest.fixture
def saved(tmp_path):
    net = delayed()
    dk.save(net, tmp_path / "run" / "delays")
    return net, tmp_path / "run" / "delays"


@pytest.mark.parametrize("given", ["bare", "wrapped"])
def test_round_trip(saved, given):
    net, path = saved
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


def test_saving_writes_two_files_and_no_weights(saved):
    net, path = saved
    assert sorted(p.name for p in path.parent.iterdir()) == ["delays.json", "delays.safetensors"]
    assert path.with_suffix(".safetensors").stat().st_size < 4000
    assert "fc1.weight" not in path.with_suffix(".safetensors").read_bytes().decode("latin1")


def test_saving_a_bare_model_is_refused(tmp_path):
    with pytest.raises(dk.CheckpointError, match="dk.wrap_"):
        dk.save(Net(), tmp_path / "x")
    assert not list(tmp_path.iterdir())


def edit(path, change):
    file = path.with_suffix(".json")
    meta = json.loads(file.read_text())
    change(meta)
    file.write_text(json.dumps(meta))


def rewrite(path, tensors):
    """Replace the tensors and make the digest fit, as somebody with a plan would."""
    import hashlib

    file = path.with_suffix(".safetensors")
    save_file(tensors, file)
    edit(path, lambda m: m.update(sha256=hashlib.sha256(file.read_bytes()).hexdigest()))


def tensors_of(path):
    from safetensors.torch import load_file

    return load_file(path.with_suffix(".safetensors"))


class Hostile:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of a checkpoint was run')",)


def truncate(file, keep):
    file.write_bytes(file.read_bytes()[: int(keep * file.stat().st_size)])


def first(meta):
    return meta["sites"][0]


DAMAGE = {
    "json missing": lambda p: p.with_suffix(".json").unlink(),
    "tensors missing": lambda p: p.with_suffix(".safetensors").unlink(),
    "json truncated": lambda p: truncate(p.with_suffix(".json"), 0.5),
    "json empty": lambda p: truncate(p.with_suffix(".json"), 0),
    "tensors truncated": lambda p: truncate(p.with_suffix(".safetensors"), 0.7),
    "tensors empty": lambda p: truncate(p.with_suffix(".safetensors"), 0),
    "tensors changed": lambda p: p.with_suffix(".safetensors").write_bytes(
        p.with_suffix(".safetensors").read_bytes()[:-1] + b"\x01"
    ),
    "json is pickle": lambda p: p.with_suffix(".json").write_bytes(pickle.dumps(Hostile())),
    "tensors are pickle": lambda p: (
        p.with_suffix(".safetensors").write_bytes(pickle.dumps(Hostile())),
        edit(p, lambda m: m.update(sha256=__import__("hashlib").sha256(pickle.dumps(Hostile())).hexdigest())),
    ),
    "json is binary": lambda p: p.with_suffix(".json").write_bytes(b"\xff\xfe\x00\x01"),
    "json is a list": lambda p: p.with_suffix(".json").write_text("[]"),
    "json nests too deep": lambda p: p.with_suffix(".json").write_text("[" * 100_000),
    "foreign json": lambda p: p.with_suffix(".json").write_text('{"model": "bert"}'),
    "newer format": lambda p: edit(p, lambda m: m.update(format=99)),
    "format of another type": lambda p: edit(p, lambda m: m.update(format="1")),
    "format true": lambda p: edit(p, lambda m: m.update(format=True)),
    "format zero": lambda p: edit(p, lambda m: m.update(format=0)),
    "sites no list": lambda p: edit(p, lambda m: m.update(sites={"a": 1})),
    "sites empty": lambda p: edit(p, lambda m: m.update(sites=[])),
    "site name no string": lambda p: edit(p, lambda m: first(m).update(site=3)),
    "site name a pattern": lambda p: edit(p, lambda m: first(m).update(site="*")),
    "site unknown": lambda p: edit(p, lambda m: first(m).update(site="fc77")),
    "site a path": lambda p: edit(p, lambda m: first(m).update(site="../../etc/passwd")),
    "reset unknown": lambda p: edit(p, lambda m: first(m).update(reset="whenever")),
    "reset a list": lambda p: edit(p, lambda m: first(m).update(reset=["root"])),
    "time_dim a string": lambda p: edit(p, lambda m: first(m).update(time_dim="0")),
    "streams too many": lambda p: edit(p, lambda m: first(m).update(streams=10**9)),
    "follows nothing": lambda p: edit(p, lambda m: first(m).update(reset="follow", follows=None)),
    "asked a string": lambda p: edit(p, lambda m: first(m).update(asked="yes")),
    "streams a string": lambda p: edit(p, lambda m: first(m).update(streams="many")),
    "component unknown": lambda p: edit(p, lambda m: first(m)["components"][0].update(name="quantum")),
    "component a path": lambda p: edit(p, lambda m: first(m)["components"][0].update(name="os:system")),
    "component kind a dict": lambda p: edit(p, lambda m: first(m)["components"][0].update(kind={})),
    "component no kind": lambda p: edit(p, lambda m: first(m)["components"][0].update(kind="adapter", name="torch")),
    "component no dict": lambda p: edit(p, lambda m: first(m).update(components=["free"])),
    "config field unknown": lambda p: edit(p, lambda m: first(m)["components"][0]["config"].update(__class__="os")),
    "config value of another type": lambda p: edit(
        p, lambda m: first(m)["components"][0]["config"].update(max_delay=[25])
    ),
    "config value unhashable": lambda p: edit(p, lambda m: first(m)["components"][0]["config"].update(kernel={"a": 1})),
    "config value NaN": lambda p: edit(p, lambda m: first(m)["components"][0]["config"].update(max_delay=float("nan"))),
    "config init a dict": lambda p: edit(p, lambda m: first(m)["components"][0]["config"].update(init={"a": 1})),
    "alias unknown": lambda p: edit(p, lambda m: m["aliases"].update({"fc1.dk.delay.delay": "elsewhere"})),
    "alias no string": lambda p: edit(p, lambda m: m["aliases"].update({"fc1.dk.delay.delay": [1]})),
    "recurrent no dict": lambda p: edit(p, lambda m: m["sites"][-1].update(recurrent=3)),
    "recurrent without size": lambda p: edit(p, lambda m: m["sites"][-1].pop("pre")),
    "recurrent size huge": lambda p: edit(p, lambda m: m["sites"][-1].update(pre=10**9)),
    "recurrent size negative": lambda p: edit(p, lambda m: m["sites"][-1].update(pre=-4)),
    "recurrent size a string": lambda p: edit(p, lambda m: m["sites"][-1].update(pre="many")),
    "tensor missing": lambda p: rewrite(p, dict(list(tensors_of(p).items())[1:])),
    "tensor unknown": lambda p: rewrite(p, {**tensors_of(p), "fc1.weight": torch.zeros(HIDDEN, PRE)}),
    "tensor of another shape": lambda p: rewrite(p, {k: v.repeat(*[2] * v.ndim, 2) for k, v in tensors_of(p).items()}),
    "tensor of integers": lambda p: rewrite(p, {k: v.long() for k, v in tensors_of(p).items()}),
    "tensor NaN": lambda p: rewrite(p, {k: v * float("nan") for k, v in tensors_of(p).items()}),
    "delay negative": lambda p: rewrite(p, {k: v.abs() * -1 - 1 for k, v in tensors_of(p).items()}),
    "delay too large": lambda p: rewrite(p, {k: v + 1e6 for k, v in tensors_of(p).items()}),
}


NOT_READ = {"site name a pattern", "site unknown", "site a path", "component unknown", "component a path"}
NOT_READ |= {k for k in DAMAGE if k.startswith(("config", "recurrent size huge", "recurrent size negative"))}
CASES = [(damage, False) for damage in DAMAGE] + [(damage, True) for damage in DAMAGE if damage not in NOT_READ]


@pytest.mark.parametrize(("damage", "wrapped"), CASES)
def test_damaged_files_are_refused_and_the_model_is_unchanged(saved, damage, wrapped):
    _, path = saved
    DAMAGE[damage](path)
    net = delayed() if wrapped else Net()
    before = hand.photograph(net)
    with pytest.raises(dk.CheckpointError) as caught:
        dk.load(net, path)
    assert "delays" in str(caught.value) and caught.value.found
    after = hand.photograph(net)
    if wrapped:
        hand.same_photograph(before, after)
    else:
        assert before[0] == after[0] and list(before[1]) == list(after[1])


@pytest.mark.parametrize("overwrites", [True, False])
@pytest.mark.parametrize("stop", range(4))
def test_an_interrupted_save_loses_nothing(tmp_path, monkeypatch, stop, overwrites):
    """The earlier checkpoint is there until the new one is; where there is none, nothing half-written is read."""
    net, path = delayed(), tmp_path / "delays"
    earlier = net.fc1.dk.delay.delay.detach().clone()
    if overwrites:
        dk.save(net, path)
    with torch.no_grad():
        net.fc1.dk.delay.delay.mul_(0.5)
    done = []

    def until_stopped(real):
        def act(*arguments):
            if len(done) == stop:
                raise KeyboardInterrupt
            done.append(1)
            return real(*arguments)

        return act

    monkeypatch.setattr(pathlib.Path, "write_bytes", until_stopped(pathlib.Path.write_bytes))
    monkeypatch.setattr(os, "replace", until_stopped(os.replace))
    with pytest.raises(KeyboardInterrupt):
        dk.save(net, path)
    monkeypatch.undo()
    new = stop == 3  # the tensors are in place
    if new or overwrites:
        found = dk.load(Net(), path).fc1.dk.delay.delay
        assert torch.equal(found, 0.5 * earlier if new else earlier)
    else:
        with pytest.raises(dk.CheckpointError):
            dk.load(Net(), path)
    dk.save(net, path)
    assert torch.equal(dk.load(Net(), path).fc1.dk.delay.delay, 0.5 * earlier)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["delays.json", "delays.safetensors"]


def test_newer_format_says_so(saved):
    _, path = saved
    edit(path, lambda m: m.update(format=99))
    with pytest.raises(dk.CheckpointError, match="newer delaykit"):
        dk.load(Net(), path)


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


def test_a_followed_neuron_that_is_not_there_is_refused(saved):
    _, path = saved
    edit(path, lambda m: first(m).update(reset="follow", follows="nobody"))
    with pytest.raises(dk.CheckpointError, match="nobody"):
        dk.load(Net(), path)
