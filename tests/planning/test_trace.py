"""``dk.plan`` looks and leaves no trace; ``dk.unwrap_`` gives the very same model back."""

from __future__ import annotations

import random
import subprocess
import sys

import hand
import numpy as np
import pytest
import torch
from hand import HIDDEN, POST, PRE
from torch import nn

import delaykit as dk

snn = pytest.importorskip("snntorch", reason="wraps snntorch models")
norse = pytest.importorskip("norse.torch", reason="wraps norse models")
from snntorch import utils  # noqa: E402


class Busy(nn.Module):
    """A model with everything that an example run could leave a trace in."""

    def __init__(self):
        super().__init__()
        self.fc1, self.norm, self.drop = nn.Linear(PRE, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.Dropout(0.5)
        self.lif = snn.Leaky(beta=0.8)
        self.rlif = snn.RLeaky(beta=0.8, linear_features=HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, POST)
        self.register_buffer("steps", torch.zeros(()))
        self.log, self.counts, self.last = [], {"calls": 0}, None
        self.drop.eval()  # a mixture of train flags

    def forward(self, x):
        self.counts["calls"] += 1
        mem, (spk2, mem2), out = self.lif.reset_mem(), self.rlif.reset_mem(), []
        for step in x:
            spk, mem = self.lif(self.norm(self.fc1(step)) + torch.rand(()) + random.random() + np.random.rand(), mem)
            spk2, mem2 = self.rlif(self.drop(spk), spk2, mem2)
            out.append(self.fc2(spk2))
            self.steps += 1
            self.log.append(float(self.steps))
        self.last = out[-1]
        return torch.stack(out)


def hidden():
    net = nn.Sequential(nn.Linear(PRE, HIDDEN), snn.Leaky(beta=0.8, init_hidden=True), nn.Linear(HIDDEN, POST))
    return net.append(snn.Leaky(beta=0.8, init_hidden=True))


def outer_loop(net, x):
    utils.reset(net)
    return torch.stack([net(step) for step in x])


def norse_chain():
    return norse.SequentialState(
        nn.Linear(PRE, HIDDEN), norse.LIFRecurrentCell(HIDDEN, HIDDEN), nn.Linear(HIDDEN, POST), norse.LICell()
    )


def carried(net, x):
    state, out = None, []
    for step in x:
        y, state = net(step, state)
        out.append(y)
    return torch.stack(out)


MODELS = {
    "busy": (Busy, lambda net, x: net(x), {"fc*": dk.FreeDelay(), "rlif.recurrent": dk.FreeDelay("synaptic")}),
    "hidden": (hidden, outer_loop, {"0": dk.FreeDelay(), "2": dk.FreeDelay("dendritic")}),
    "norse": (norse_chain, carried, {"*": dk.FreeDelay("axonal")}),
}


@pytest.mark.parametrize("model", MODELS)
def test_plan_leaves_no_trace(model):
    build, run, rules = MODELS[model]
    net, x = build(), hand.spikes_in().float()
    run(net, x)  # the model holds the state of a finished run, with its graph
    before, numpy_state = hand.photograph(net), np.random.get_state()[1].copy()
    plan = dk.plan(net, rules, example=lambda: run(net, x[:5, :2]))
    plan.check()
    assert str(plan).count("\n") == len(plan.sites) + len(plan.warnings)
    hand.same_photograph(before, hand.photograph(net))
    assert (np.random.get_state()[1] == numpy_state).all()


@pytest.mark.parametrize("model", MODELS)
def test_unwrapping_gives_the_same_model_back(model):
    build, run, rules = MODELS[model]
    net, x = build().eval(), hand.spikes_in().float()
    run(net, x)  # neurons gain attributes at their first step
    before = {path: (id(m), type(m), sorted(m.__dict__)) for path, m in net.named_modules()}
    parameters = {name: id(p) for name, p in net.named_parameters()}
    keys = list(net.state_dict())
    dk.wrap_(net, rules, example=lambda: run(net, x))
    run(net, x).sum().backward()
    dk.unwrap_(net)
    assert before == {path: (id(m), type(m), sorted(m.__dict__)) for path, m in net.named_modules()}
    assert parameters == {name: id(p) for name, p in net.named_parameters()} and keys == list(net.state_dict())


@pytest.mark.parametrize("model", MODELS)
def test_base_checkpoints_load_strictly(model):
    build, run, rules = MODELS[model]
    net, other, x = build(), build(), hand.spikes_in().float()
    checkpoint = other.state_dict()
    dk.wrap_(net, rules, example=lambda: run(net, x))
    delays = {k: v.clone() for k, v in net.state_dict().items() if ".dk." in k}
    net.load_state_dict(checkpoint, strict=True)
    after = net.state_dict()
    assert delays and all(torch.equal(after[k], v) for k, v in delays.items())
    assert all(torch.equal(after[k], v) for k, v in checkpoint.items())
    assert set(checkpoint) == set(other.state_dict())  # the caller's dict is left alone, too
    partial = {**checkpoint, next(iter(delays)): next(iter(delays.values()))}
    if len(delays) > 1:
        with pytest.raises(RuntimeError, match="Missing key"):
            net.load_state_dict(partial, strict=True)


@pytest.mark.parametrize("model", MODELS)
def test_wrap_makes_an_independent_copy(model):
    build, run, rules = MODELS[model]
    net, x = build().eval(), hand.spikes_in().float()
    run(net, x)
    before = hand.photograph(net)
    zero = {name: dk.FreeDelay(rule.granularity, init=0) for name, rule in rules.items()}
    twin = dk.wrap(net, dk.plan(net, zero, example=lambda: run(net, x)))
    hand.same_photograph(before, hand.photograph(net))
    if model != "busy":  # its forward draws random numbers
        torch.testing.assert_close(run(twin, x), run(net, x), rtol=0, atol=0)
    run(twin, x).sum().backward()
    assert all(p.grad is None for p in net.parameters())
    assert any(p.grad is not None for n, p in twin.named_parameters() if ".dk." in n)


def test_a_plan_does_not_import_the_compiler() -> None:
    """It takes seconds. Where a model is compiled it is there already, and the plan stays outside of it."""
    code = (
        "import sys, torch, snntorch as snn, delaykit as dk\n"
        "net = torch.nn.Sequential(torch.nn.Linear(3, 2), snn.Leaky(0.9, init_hidden=True))\n"
        "rules = {'0': dk.FreeDelay(max_delay=2)}\n"
        "run = lambda: [net(step) for step in torch.rand(4, 2, 3)]\n"
        "plan = dk.plan(net, rules, example=run)\n"
        "assert 'torch._dynamo' not in sys.modules\n"
        "net[1].compile(backend='eager')\n"
        "assert 'torch._dynamo' in sys.modules\n"
        "assert str(dk.plan(net, rules, example=run)) == str(plan)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)
