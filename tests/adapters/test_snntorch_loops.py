"""snnTorch models as people write their time loops, against delays written out by hand."""

from __future__ import annotations

import hand
import pytest
import torch
from hand import HIDDEN, POST, PRE
from torch import nn

snn = pytest.importorskip("snntorch", reason="wraps snntorch models")
from snntorch import utils  # noqa: E402
from snntorch_nets import TWO, Net, ResetMem, call, hidden, leaky, outer_loop, sequential  # noqa: E402


def sequential_with_output():
    return nn.Sequential(nn.Linear(PRE, HIDDEN), hidden(), nn.Linear(HIDDEN, POST), hidden(output=True))


def outer_loop_membrane(net, x):
    utils.reset(net)
    return torch.stack([net(step)[1] for step in x])


def outer_loop_reset_mem(net, x):
    for module in net.modules():
        if hasattr(module, "reset_mem"):
            module.reset_mem()
    return torch.stack([net(step) for step in x])


class InitLeaky(Net):
    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        out = []
        for t in range(x.size(0)):
            cur1 = self.fc1(x[t])
            spk1, mem1 = self.lif1(cur1, mem1)
            cur2 = self.fc2(spk1)
            _, mem2 = self.lif2(cur2, mem2)
            out.append(mem2)
        return torch.stack(out)


class ZerosByHand(Net):
    def forward(self, x):
        mem1 = torch.zeros(x.shape[1], HIDDEN, dtype=x.dtype)
        mem2 = torch.zeros(x.shape[1], POST, dtype=x.dtype)
        out = []
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(mem2)
        return torch.stack(out)


class BatchFirst(Net):
    def forward(self, x):
        x = x.transpose(0, 1)  # (batch, time, feature), as a data loader gives it
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        out = []
        for t in range(x.shape[1]):
            spk1, mem1 = self.lif1(self.fc1(x[:, t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(mem2)
        return torch.stack(out, dim=1)


class OneStep(nn.Module):
    """One forward a step, the state inside."""

    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(PRE, HIDDEN), hidden()
        self.fc2, self.lif2 = nn.Linear(HIDDEN, POST), hidden(output=True)

    def forward(self, step):
        return self.lif2(self.fc2(self.lif1(self.fc1(step))))[1]


class DuckTyped(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Linear(PRE, HIDDEN),
                leaky(),
                nn.Dropout(0.2),
                nn.Linear(HIDDEN, HIDDEN),
                leaky(),
                nn.Linear(HIDDEN, POST),
            ]
        )

    def forward(self, x):
        states = [layer.reset_mem() if hasattr(layer, "reset_mem") else None for layer in self.layers]
        out = []
        for step in x:
            for k, layer in enumerate(self.layers):
                if hasattr(layer, "reset_mem"):
                    step, states[k] = layer(step, states[k])
                else:
                    step = layer(step)
            out.append(step)
        return torch.stack(out)


class ExternalRecurrence(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.rec, self.lif1 = nn.Linear(PRE, HIDDEN), nn.Linear(HIDDEN, HIDDEN, bias=False), leaky()
        self.fc2, self.lif2 = nn.Linear(HIDDEN, POST), leaky(reset_mechanism="none")

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        spk1 = torch.zeros(x.shape[1], HIDDEN, dtype=x.dtype)
        out = []
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step) + self.rec(spk1), mem1)
            _, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(mem2)
        return torch.stack(out)


class MembranePassedOn(Net):
    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        out = []
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.fc2(mem1), mem2)
            out.append(spk2 + mem2)
        return torch.stack(out)


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.lif1 = nn.Conv2d(2, 3, 3, padding=1), leaky()
        self.conv2, self.lif2 = nn.Conv2d(3, 4, 2, bias=False), leaky()
        self.pool, self.fc, self.lif3 = nn.MaxPool2d(2), nn.Linear(4, POST), leaky()

    def forward(self, x):
        mem1, mem2, mem3 = self.lif1.init_leaky(), self.lif2.init_leaky(), self.lif3.init_leaky()
        out = []
        for step in x:
            spk1, mem1 = self.lif1(self.pool(self.conv1(step)), mem1)
            spk2, mem2 = self.lif2(self.pool(self.conv2(spk1)), mem2)
            _, mem3 = self.lif3(self.fc(spk2.flatten(1)), mem3)
            out.append(mem3)
        return torch.stack(out)


class Normalised(Net):
    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(HIDDEN), nn.Dropout(0.3)

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        out = []
        for step in x:
            spk1, mem1 = self.lif1(self.norm(self.fc1(step)), mem1)
            _, mem2 = self.lif2(self.fc2(self.drop(spk1)), mem2)
            out.append(mem2)
        return torch.stack(out)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(PRE, HIDDEN), leaky()
        self.fc2, self.lif2 = nn.Linear(HIDDEN, HIDDEN), leaky()
        self.skip, self.head = nn.Linear(PRE, POST), nn.Linear(HIDDEN, POST)

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        out = []
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1) + spk1, mem2)
            out.append(self.head(spk1 + spk2) + self.skip(step))
        return torch.stack(out)


class Block(nn.Module):
    def __init__(self, pre, post):
        super().__init__()
        self.fc, self.lif = nn.Linear(pre, post), hidden()

    def forward(self, x):
        return self.lif(self.fc(x))


class Nested(nn.Module):
    """Blocks in blocks; the loop and the reset are in the root's forward."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(Block(PRE, HIDDEN), nn.Sequential(Block(HIDDEN, HIDDEN)))
        self.head = nn.Linear(HIDDEN, POST)

    def forward(self, x):
        for module in self.modules():
            if isinstance(module, snn.Leaky):
                module.reset_mem()
        return torch.stack([self.head(self.body(step)) for step in x])


class CallOverridden(ResetMem):
    def __call__(self, x):
        return super().__call__(x) * 2.0


class CalledBlock(Block):
    def __call__(self, x):
        return super().__call__(x)


class LoopInCall(nn.Module):
    """No forward at all: the loop is in ``__call__``."""

    def __init__(self):
        super().__init__()
        self.block, self.head = CalledBlock(PRE, HIDDEN), nn.Linear(HIDDEN, POST)

    def __call__(self, x):
        self.block.lif.reset_mem()
        return torch.stack([self.head(self.block(step)) for step in x])


class MyLinear(nn.Linear):
    def forward(self, x):
        return super().forward(x)


class SubclassedLinear(ResetMem):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = MyLinear(PRE, HIDDEN), MyLinear(HIDDEN, POST)


class PositionalLoop(nn.Module):
    """The state is kept by the neuron and never handed over: ``lif(cur)`` with init_hidden=False."""

    def __init__(self):
        super().__init__()
        self.fc1, self.lif1, self.fc2 = nn.Linear(PRE, HIDDEN), leaky(), nn.Linear(HIDDEN, POST)

    def forward(self, x):
        self.lif1.reset_mem()
        return torch.stack([self.fc2(self.lif1(self.fc1(step))[0]) for step in x])


MODELS = {
    "sequential": (sequential, outer_loop, {"0": "axonal", "2": "axonal"}),
    "sequential-dendritic": (sequential, outer_loop, {"0": "dendritic", "2": "layer"}),
    "sequential-reset_mem": (sequential, outer_loop_reset_mem, {"0": "axonal", "2": "synaptic"}),
    "sequential-output": (sequential_with_output, outer_loop_membrane, {"0": "axonal", "2": "axonal"}),
    "reset_mem": (ResetMem, call, TWO),
    "reset_mem-dendritic": (ResetMem, call, {"fc1": "dendritic", "fc2": "dendritic"}),
    "reset_mem-synaptic": (ResetMem, call, {"fc1": "synaptic", "fc2": "synaptic"}),
    "reset_mem-layer": (ResetMem, call, {"fc1": "layer", "fc2": "layer"}),
    "reset_mem-one-site": (ResetMem, call, {"fc2": "axonal"}),
    "init_leaky": (InitLeaky, call, TWO),
    "zeros-by-hand": (ZerosByHand, call, TWO),
    "batch-first": (BatchFirst, call, TWO),
    "one-step": (OneStep, outer_loop, TWO),
    "one-step-last-site": (OneStep, outer_loop, {"fc2": "dendritic"}),
    "duck-typed": (DuckTyped, call, {"layers.0": "axonal", "layers.3": "synaptic", "layers.5": "axonal"}),
    "external-recurrence": (ExternalRecurrence, call, {"fc1": "axonal", "rec": "axonal", "fc2": "axonal"}),
    "external-recurrence-synaptic": (ExternalRecurrence, call, {"rec": "synaptic"}),
    "membrane": (MembranePassedOn, call, TWO),
    "normalised": (Normalised, call, TWO),
    "residual": (Residual, call, {"fc1": "axonal", "fc2": "axonal", "skip": "axonal", "head": "dendritic"}),
    "nested": (Nested, call, {"body.0.fc": "axonal", "body.1.0.fc": "axonal", "head": "axonal"}),
    "call-overridden": (CallOverridden, call, TWO),
    "loop-in-call": (LoopInCall, call, {"block.fc": "axonal", "head": "axonal"}),
    "subclassed-linear": (SubclassedLinear, call, TWO),
    "state-in-neuron": (PositionalLoop, call, TWO),
}


@pytest.mark.parametrize("which", hand.DELAYS)
@pytest.mark.parametrize("model", MODELS)
def test_delays_equal_shifting_by_hand(model, which):
    build, run, sites = MODELS[model]
    hand.check(build, run, sites, which)


@pytest.mark.parametrize("which", hand.DELAYS)
@pytest.mark.parametrize("kind", ["axonal", "dendritic"])
def test_convolutions(kind, which):
    sites = {"conv1": kind, "conv2": kind, "fc": "axonal"}
    hand.check(ConvNet, call, sites, which, shape=(2, 6, 6), rate=0.15)
