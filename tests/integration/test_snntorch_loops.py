"""snnTorch models as people write their time loops, against delays written out by hand."""

from __future__ import annotations

import hand
import pytest
import torch
from hand import HIDDEN, POST, PRE, spike
from torch import nn

snn = pytest.importorskip("snntorch", reason="wraps snntorch models")
from snntorch import utils  # noqa: E402

import delaykit as dk  # noqa: E402


def leaky(**more):
    return snn.Leaky(**{"beta": 0.8, "spike_grad": spike, **more})


def hidden(**more):
    return leaky(init_hidden=True, **more)


def sequential():
    return nn.Sequential(nn.Linear(PRE, HIDDEN), hidden(), nn.Linear(HIDDEN, POST), hidden())


def sequential_with_output():
    return nn.Sequential(nn.Linear(PRE, HIDDEN), hidden(), nn.Linear(HIDDEN, POST), hidden(output=True))


def outer_loop(net, x):
    utils.reset(net)
    return torch.stack([net(step) for step in x])


def outer_loop_membrane(net, x):
    utils.reset(net)
    return torch.stack([net(step)[1] for step in x])


def outer_loop_reset_mem(net, x):
    for module in net.modules():
        if hasattr(module, "reset_mem"):
            module.reset_mem()
    return torch.stack([net(step) for step in x])


def call(net, x):
    return net(x)


class Net(nn.Module):
    """The tutorial's network: two Linears, two Leakys, the loop in forward."""

    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(PRE, HIDDEN), leaky()
        self.fc2, self.lif2 = nn.Linear(HIDDEN, POST), leaky()


class ResetMem(Net):
    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        out = []
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(spk2 + mem2)
        return torch.stack(out, dim=0)


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


TWO = {"fc1": "axonal", "fc2": "axonal"}
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


class LinearThenLoop(Net):
    """The Linear sees the whole sequence (time first), the loop is over the neuron only."""

    def forward(self, x):
        currents, mem1, mem2, out = self.fc1(x), self.lif1.reset_mem(), self.lif2.reset_mem(), []
        for current in currents:
            spk1, mem1 = self.lif1(current, mem1)
            _, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(mem2)
        return torch.stack(out)


class BatchFirstLinearThenLoop(Net):
    def forward(self, x):
        currents, mem1, mem2, out = self.fc1(x.transpose(0, 1)), self.lif1.reset_mem(), self.lif2.reset_mem(), []
        for t in range(currents.shape[1]):
            spk1, mem1 = self.lif1(currents[:, t], mem1)
            _, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(mem2)
        return torch.stack(out)


class AllCurrentsFirst(Net):
    """Layer by layer: each Linear and each neuron runs over the whole sequence before the next one."""

    def forward(self, x):
        for fc, lif in ((self.fc1, self.lif1), (self.fc2, self.lif2)):
            mem, spikes = lif.reset_mem(), []
            for current in fc(x):
                spk, mem = lif(current, mem)
                spikes.append(spk)
            x = torch.stack(spikes)
        return x


SEQUENCES = {
    "time-first": (LinearThenLoop, {"fc1": {"time_dim": 0}}),
    "batch-first": (BatchFirstLinearThenLoop, {"fc1": {"time_dim": 1}}),
    "layer-by-layer": (AllCurrentsFirst, {"fc1": {"time_dim": 0}, "fc2": {"time_dim": 0}}),
}


@pytest.mark.parametrize("which", hand.DELAYS)
@pytest.mark.parametrize("kind", ["axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("model", SEQUENCES)
def test_layer_over_the_whole_sequence(model, kind, which):
    build, options = SEQUENCES[model]
    net, *_ = hand.check(build, call, {"fc1": kind, "fc2": kind}, which, **options)
    assert net.fc1._dk.timing.time_dim == options["fc1"]["time_dim"]


class TwoNames(nn.Module):
    """One Linear under two names, used by one or the other."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(PRE, HIDDEN)
        self.encoder = nn.Sequential(self.fc1)
        self.lif1, self.fc2 = leaky(), nn.Linear(HIDDEN, POST)

    def forward(self, x):
        mem, out = self.lif1.reset_mem(), []
        for step in x:
            spk, mem = self.lif1(self.encoder(step), mem)
            out.append(self.fc2(spk))
        return torch.stack(out)


class Siamese(nn.Module):
    """One Linear called twice a step, for two streams with a neuron each (or one neuron with two states)."""

    def __init__(self, neurons=2):
        super().__init__()
        self.fc = nn.Linear(PRE, HIDDEN)
        self.left = leaky()
        self.right = leaky() if neurons == 2 else self.left

    def forward(self, x):
        mem_l = torch.zeros(x.shape[1], HIDDEN, dtype=x.dtype)
        mem_r = torch.zeros(x.shape[1], HIDDEN, dtype=x.dtype)
        out = []
        for step in x:
            spk_l, mem_l = self.left(self.fc(step), mem_l)
            spk_r, mem_r = self.right(self.fc(step.flip(-1)), mem_r)
            out.append(torch.cat([spk_l + mem_l, spk_r - mem_r], -1))
        return torch.stack(out)


@pytest.mark.parametrize("which", hand.DELAYS)
@pytest.mark.parametrize("site", ["fc1", "encoder.0"])
def test_layer_under_two_names_is_wrapped_once(site, which):
    net, *_ = hand.check(TwoNames, call, {site: "axonal"}, which)
    assert net.fc1 is net.encoder[0] and "dk" in net.fc1._modules
    assert len([p for n, p in net.named_parameters() if ".dk." in n]) == 1


@pytest.mark.parametrize("which", hand.DELAYS)
@pytest.mark.parametrize("kind", ["axonal", "synaptic"])
@pytest.mark.parametrize("neurons", [1, 2])
def test_layer_shared_by_two_streams(neurons, kind, which):
    net, *_ = hand.check(lambda: Siamese(neurons), call, {"fc": kind}, which, fc={"streams": 2})
    assert net.fc._dk.timing.streams == 2


class StateOutside(Net):
    """One forward a step; the caller keeps the membranes."""

    def forward(self, step, mem1, mem2):
        spk1, mem1 = self.lif1(self.fc1(step), mem1)
        spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
        return spk2, mem1, mem2


def carry_membranes(net, x):
    mem1 = torch.zeros(x.shape[1], HIDDEN, dtype=x.dtype)
    mem2 = torch.zeros(x.shape[1], POST, dtype=x.dtype)
    out = []
    for step in x:
        spk, mem1, mem2 = net(step, mem1, mem2)
        out.append(spk + mem2)
    return torch.stack(out)


class TwoSequences(ResetMem):
    """Two sequences in one forward, the contrastive way."""

    def forward(self, x):
        return torch.cat([ResetMem.forward(self, x), ResetMem.forward(self, x.flip(-1))])


class TwoSequencesReset(TwoSequences):
    def forward(self, x):
        first = ResetMem.forward(self, x)
        for module in self.modules():
            if isinstance(module, hand.HandDelayed):
                module.clear()
        if hasattr(self.fc1, "dk"):
            dk.reset(self)
        return torch.cat([first, ResetMem.forward(self, x.flip(-1))])


@pytest.mark.parametrize("which", hand.DELAYS)
def test_state_kept_outside_works_with_manual_resets(which):
    hand.check(StateOutside, carry_membranes, TWO, which, reset="manual", before=dk.reset)


@pytest.mark.parametrize("which", hand.DELAYS)
def test_two_sequences_in_one_forward_work_with_manual_resets(which):
    hand.check(TwoSequencesReset, call, TWO, which, reset="manual", before=dk.reset)


class ConstantInput(Net):
    """The Linear is called once, outside the loop, on an image."""

    def forward(self, image):
        mem1, mem2, out = self.lif1.reset_mem(), self.lif2.reset_mem(), []
        current = self.fc1(image)
        for _ in range(6):
            spk1, mem1 = self.lif1(current, mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(spk2)
        return torch.stack(out)


class SummedReadout(nn.Module):
    """The last Linear reads the spike count, after the loop."""

    def __init__(self):
        super().__init__()
        self.fc1, self.lif1, self.head = nn.Linear(PRE, HIDDEN), leaky(), nn.Linear(HIDDEN, POST)

    def forward(self, x):
        mem, total = self.lif1.reset_mem(), 0.0
        for step in x:
            spk, mem = self.lif1(self.fc1(step), mem)
            total = total + spk
        return self.head(total)


class Functional(Net):
    """Weights are used by F.linear, so the module is never called."""

    def forward(self, x):
        mem1, mem2, out = self.lif1.reset_mem(), self.lif2.reset_mem(), []
        for step in x:
            spk1, mem1 = self.lif1(nn.functional.linear(step, self.fc1.weight, self.fc1.bias), mem1)
            _, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(mem2)
        return torch.stack(out)


REFUSED = {
    "constant": (ConstantInput, lambda: torch.rand(3, PRE), "fc1", "outside the time loop"),
    "constant, batch == steps": (ConstantInput, lambda: torch.rand(6, PRE), "fc1", "outside the time loop"),
    "constant, batch == steps, two samples": (ConstantInput, lambda: torch.rand(6, 6, PRE), "fc1", "time loop"),
    "readout": (SummedReadout, lambda: hand.spikes_in().float(), "head", "outside the time loop"),
    "readout, batch == steps": (SummedReadout, lambda: hand.spikes_in(6, 6).float(), "head", "outside the time loop"),
    "functional": (Functional, lambda: hand.spikes_in().float(), "fc1", "torch.nn.functional"),
    "two sequences": (TwoSequences, lambda: hand.spikes_in().float(), "fc1", "manual"),
}


@pytest.mark.parametrize("model", REFUSED)
def test_refused_with_advice(model):
    build, example, site, advice = REFUSED[model]
    net = build()
    before = {name: type(m) for name, m in net.named_modules()}
    plan = dk.plan(net, {site: dk.FreeDelay("axonal", init=2)}, example=example())
    assert len(plan.issues) == 1 and advice in str(plan.issues[0]) and site in str(plan.issues[0]), plan
    with pytest.raises(dk.WrapError, match="left unchanged"):
        dk.wrap_(net, plan)
    assert before == {name: type(m) for name, m in net.named_modules()}


def test_state_kept_outside_is_refused_with_advice():
    net, x = StateOutside().double(), hand.spikes_in()
    plan = dk.plan(net, {"fc*": dk.FreeDelay("axonal", init=2)}, example=lambda: carry_membranes(net, x))
    assert len(plan.issues) == 2 and all("dk.reset(net)" in str(i) for i in plan.issues)


def test_readout_beside_the_loop_does_not_hinder_the_layers_in_it():
    class Rates(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = SummedReadout()

        def forward(self, x):
            return self.net(x)

    hand.check(Rates, call, {"net.fc1": "axonal"}, "mixed")


def test_truncated_backpropagation_keeps_the_spikes_and_cuts_the_graph():
    """Segments of 5 steps, each with its own backward: late spikes of the last segment still arrive."""
    nets = [sequential().double(), sequential().double()]
    sites = {"0": "axonal", "2": "synaptic"}
    made = hand.hand_made(nets[1], sites, "mixed")
    x = hand.spikes_in(20)
    hand.make_lively_(nets[1], outer_loop, x, made)
    hand.excite_like_(nets[0], nets[1], made)
    dk.wrap_(nets[0], hand.rules(sites), example=lambda: outer_loop(nets[0], x))
    hand.set_delays_(nets[0], made)
    for _ in range(2):
        outputs, grads = [], []
        for net in nets:
            utils.reset(net)
            hand.clear(made)
            out = []
            for segment in x.split(5):
                for module in net.modules():
                    if isinstance(module, snn.Leaky):
                        module.mem = module.mem.detach()
                for late in made.values():
                    late.detach()
                y = torch.stack([net(step) for step in segment])
                (y * torch.arange(1.0, POST + 1)).sum().backward()
                out.append(y.detach())
            outputs.append(torch.cat(out))
            grads.append(hand.named_gradients(net))
        hand.same(*outputs)
        for name in grads[1]:
            hand.same(grads[0][name], grads[1][name], what=name)


def test_mixed_precision_by_mistake_is_named():
    net = ResetMem()
    dk.wrap_(net, {"fc1": dk.FreeDelay("axonal", init=2)}, example=hand.spikes_in().float())
    with pytest.raises(dk.ShapeError, match="fc1.*float64.*float32"):
        net(hand.spikes_in())
    assert net(hand.spikes_in().float()).shape == (hand.TIME, hand.BATCH, POST)
