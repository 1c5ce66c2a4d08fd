"""Wrong arguments, over the whole public API of the core: told in full, before anything is touched."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.testing.messages import check_told

snn = pytest.importorskip("snntorch", reason="rolls neurons out")
norse = pytest.importorskip("norse.torch", reason="rolls cells out")

FREE = dk.FreeDelay("axonal", max_delay=3)
MATRIX = torch.zeros(3, 3)


def bare():
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))


def net(config=FREE):
    return dk.wrap_(bare(), {"0": dk.At(config, reset="manual")})


def sgd(model=None):
    return torch.optim.SGD((net() if model is None else model).parameters(), lr=0.1)


def entered(manager):
    with manager:
        pass


def wraps(value, name="0", **options):
    return lambda: dk.wrap_(bare(), {name: value}, **options)


def rolls(currents, neuron=None, mask=None):
    return lambda: dk.rollout(snn.RLeaky(0.9, linear_features=3) if neuron is None else neuron, currents, mask)


def after_a_step(act):
    def run():
        model = net()
        model(torch.rand(2, 3))
        return act(model)

    return run


RULES = {
    "At option": lambda: dk.At(FREE, rest="auto"),
    "At reset": lambda: dk.At(FREE, reset="roots"),
    "At time_dim": lambda: dk.At(FREE, time_dim=True),
    "At time_dim float": lambda: dk.At(FREE, time_dim=0.0),
    "At word": lambda: dk.At("axonal"),
    "At class": lambda: dk.At(dk.FreeDelay),
    "At At": lambda: dk.At(dk.At(FREE)),
    "At None": lambda: dk.At(None),
    "At nothing": lambda: dk.At(reset="manual"),
    "Recurrent option": lambda: dk.Recurrent(FREE, wieght="zeros"),
    "Recurrent bias word": lambda: dk.Recurrent(FREE, bias="yes"),
    "Recurrent bias tensor": lambda: dk.Recurrent(FREE, bias=torch.zeros(3)),
    "Recurrent bias number": lambda: dk.Recurrent(FREE, bias=1),
    "Recurrent weight": lambda: dk.Recurrent(FREE, weight="eye"),
    "Recurrent weight None": lambda: dk.Recurrent(FREE, weight=None),
    "Recurrent weight list": lambda: dk.Recurrent(FREE, weight=[[1.0]]),
    "Recurrent weight vector": lambda: dk.Recurrent(FREE, weight=torch.zeros(3)),
    "Recurrent weight oblong": lambda: dk.Recurrent(FREE, weight=torch.zeros(3, 2)),
    "Recurrent weight nan": lambda: dk.Recurrent(FREE, weight=MATRIX / 0),
    "Recurrent weight integers": lambda: dk.Recurrent(FREE, weight=MATRIX.long()),
    "Recurrent weight meta": lambda: dk.Recurrent(FREE, weight=MATRIX.to("meta")),
    "Recurrent reset": lambda: dk.Recurrent(FREE, reset="never"),
    "Recurrent class": lambda: dk.Recurrent(dk.FreeDelay),
    "TimeConstants": lambda: dk.TimeConstants("membran"),
    "TimeConstants per": lambda: dk.TimeConstants("membrane", per="row"),
    "TimeConstants option": lambda: dk.TimeConstants("membrane", par="layer"),
    "TimeConstants on a connection": wraps(dk.TimeConstants("membrane")),
    "FreeDelay without a name": lambda: dk.FreeDelay("axonal", 25),
    "rule list": lambda: dk.wrap_(bare(), [FREE]),
    "rule None": lambda: dk.wrap_(bare(), None),
    "rule empty": lambda: dk.wrap_(bare(), {}),
    "rule number for a name": wraps(FREE, 0),
    "rule no such name": wraps(FREE, "fc1"),
    "rule word": wraps("axonal"),
    "rule class": wraps(dk.FreeDelay),
    "rule nothing": wraps(None),
    "rule empty tuple": wraps(()),
    "rule two delays": wraps(dk.At(FREE, FREE, reset="manual")),
    "rule delays of another size": wraps(dk.At(dk.FreeDelay("axonal", init=[1.0, 2.0]), reset="manual")),
    "rule no example": wraps(FREE),
    "rule Recurrent on a connection": wraps(dk.Recurrent(FREE)),
}
MODELS = {
    "wrap swapped": lambda: dk.wrap_({"0": FREE}, bare()),
    "wrap class": lambda: dk.wrap_(nn.Linear, {"0": FREE}),
    "wrap example word": wraps(FREE, example="x"),
    "wrap example width": wraps(FREE, example=torch.rand(2, 4)),
    "wrap example raises": wraps(FREE, example=lambda: 1 / 0),
    "wrap example meta": wraps(FREE, example=torch.rand(2, 3, device="meta")),
    "wrap generator": wraps(dk.At(FREE, reset="manual"), generator=3),
    "wrap twice": lambda: dk.wrap_(net(), {"0": dk.At(FREE, reset="manual")}),
    "wrap another's plan": lambda: dk.wrap_(bare(), dk.plan(bare(), {"0": dk.At(FREE, reset="manual")})),
    "status class": lambda: dk.status(nn.Linear),
    "status bare": lambda: dk.status(bare()),
    "unwrap bare": lambda: dk.unwrap_(bare()),
    "finalize bare": lambda: dk.finalize_(bare()),
    "reset bare": lambda: dk.reset(bare()),
    "reset rows words": lambda: dk.reset(net(), rows=["yes"]),
    "reset rows floats": lambda: dk.reset(net(), rows=torch.ones(2)),
    "reset rows of another batch": after_a_step(lambda model: dk.reset(model, rows=torch.ones(3, dtype=torch.bool))),
    "step of another batch": after_a_step(lambda model: model(torch.rand(5, 3))),
    "step of another dtype": after_a_step(lambda model: model(torch.rand(2, 3).double())),
    "save a folder": lambda: dk.save(net(), "."),
    "save the folder above": lambda: dk.save(net(), ".."),
    "save nowhere": lambda: dk.save(net(), ""),
    "save None": lambda: dk.save(net(), None),
    "save number": lambda: dk.save(net(), 3),
    "save with_model": lambda: dk.save(net(), "x", with_model="yes"),
    "save bare": lambda: dk.save(bare(), "x"),
    "save swapped": lambda: dk.save("x", net()),
    "load a folder": lambda: dk.load(bare(), "."),
    "load missing": lambda: dk.load(bare(), "no/such/checkpoint"),
    "load swapped": lambda: dk.load("x", bare()),
    "load None": lambda: dk.load(bare(), None),
    "load into None": lambda: dk.load(None, "x"),
    "load into a list": lambda: dk.load([bare()], "x"),
    "load into a class": lambda: dk.load(nn.Linear, "x"),
}
TRAINING = {
    "param_groups word": lambda: dk.param_groups(net(), lr="..."),
    "param_groups None": lambda: dk.param_groups(net(), lr=None),
    "param_groups weight_decay": lambda: dk.param_groups(net(), lr=0.1, weight_decay="big"),
    "param_groups negative decay": lambda: dk.param_groups(net(), lr=0.1, weight_decay=-1.0),
    "param_groups params": lambda: dk.param_groups(net(), lr=0.1, params=[]),
    "param_groups bare": lambda: dk.param_groups(bare(), lr=0.1),
    "param_groups class": lambda: dk.param_groups(nn.Linear, lr=0.1),
    "advance_ word": lambda: dk.advance_(net(), "..."),
    "advance_ epoch": lambda: dk.advance_(net(), 3),
    "advance_ tensor": lambda: dk.advance_(net(), torch.tensor(0.5)),
    "attach swapped": lambda: dk.attach(net(), sgd()),
    "attach None": lambda: dk.attach(None, net()),
    "attach list of None": lambda: dk.attach([None], net()),
    "attach no optimizer": lambda: dk.attach([], net()),
    "attach word": lambda: dk.attach("adam", net()),
    "attach groups": lambda: dk.attach(dk.param_groups(net(), lr=0.1), net()),
    "attach bare": lambda: dk.attach(sgd(), bare()),
    "attach of before": lambda: dk.attach(sgd(bare()), net()),
    "discretized step": lambda: entered(dk.discretized(net(), step="1")),
    "discretized step 0": lambda: entered(dk.discretized(net(), step=0)),
    "discretized max_delay": lambda: entered(dk.discretized(net(), max_delay=-1)),
    "discretized bits": lambda: entered(dk.discretized(net(), bits=0)),
    "discretized bits float": lambda: entered(dk.discretized(net(), bits=2.5)),
}
SEQUENCE = torch.ones(4, 2, 3)
RUNS = {
    "rollout lists": rolls([[1.0]]),
    "rollout integers": rolls(SEQUENCE.long()),
    "rollout no batch": rolls(SEQUENCE[0]),
    "rollout width": rolls(torch.ones(4, 2, 4)),
    "rollout meta": lambda: rolls(SEQUENCE.to("meta"))(),
    "rollout sparse": lambda: rolls(SEQUENCE.to_sparse())(),
    "rollout mask word": rolls(SEQUENCE, mask="x"),
    "rollout mask size": rolls(SEQUENCE, mask=torch.ones(4)),
    "rollout net": rolls(SEQUENCE, bare()),
    "rollout class": rolls(SEQUENCE, snn.Leaky),
    "rollout cell width": rolls(torch.ones(4, 2, 5), norse.LIFRecurrentCell(3, 3)),
    "fused None": lambda: dk.fused(None),
    "fused class": lambda: dk.fused(nn.Linear),
    "fused check": lambda: dk.fused(net(), check="never"),
    "fused check 0": lambda: dk.fused(net(), check=0),
    "fused check None": lambda: dk.fused(net(), check=None),
    "fused loop": lambda: dk.fused(net(), loop="around"),
    "fused example": lambda: dk.fused(net(), example="x"),
    "backend": lambda: entered(dk.backend("cuda")),
    "backend None": lambda: entered(dk.backend(None)),
    "resolve": lambda: dk.resolve("delay", "fre"),
    "resolve kind": lambda: dk.resolve("dely", "free"),
    "resolve None": lambda: dk.resolve("delay", None),
    "components": lambda: dk.components("delays"),
    "citation": lambda: dk.citation("frre"),
    "citation None": lambda: dk.citation(None),
    "citation style": lambda: dk.citation("free", style="apa"),
    "fit_hardware_": lambda: dk.fit_hardware_(net(), "loihy"),
    "fit_hardware_ None": lambda: dk.fit_hardware_(net(), None),
    "fit_hardware_ swapped": lambda: dk.fit_hardware_("loihi", net()),
    "to_nir None": lambda: dk.to_nir(None, SEQUENCE),
    "to_nir example": lambda: dk.to_nir(net(), "x", 1.0),
    "to_nir dt_ms": lambda: dk.to_nir(net(), SEQUENCE, "1 ms"),
    "to_nir reset": lambda: dk.to_nir(net(), SEQUENCE, 1.0, reset="none"),
    "from_nir None": lambda: dk.from_nir(None),
    "from_nir missing": lambda: dk.from_nir("no/such/graph.nir"),
    "Target": lambda: dk.Target("mine", "far"),
}
CALLS = RULES | MODELS | TRAINING | RUNS


@pytest.mark.parametrize("case", CALLS)
def test_a_wrong_call_is_told_in_full(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_told(CALLS[case])
    assert list(tmp_path.iterdir()) == []
