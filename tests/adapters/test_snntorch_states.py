"""snnTorch models whose state the caller keeps, segments of a sequence, and uses that are refused with advice."""

from __future__ import annotations

import hand
import pytest
import torch
from hand import HIDDEN, POST, PRE
from torch import nn

snn = pytest.importorskip("snntorch", reason="wraps snntorch models")
from snntorch import utils  # noqa: E402
from snntorch_nets import TWO, Net, ResetMem, call, leaky, outer_loop, sequential  # noqa: E402

import delaykit as dk  # noqa: E402


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


class TwoWindows(TwoSequences):
    """The neurons' own reset begins each; the hand-made lines have to be told."""

    def forward(self, x):
        first = ResetMem.forward(self, x)
        for module in self.modules():
            if isinstance(module, hand.HandDelayed):
                module.clear()
        return torch.cat([first, ResetMem.forward(self, x.flip(-1))])


@pytest.mark.parametrize("which", hand.DELAYS)
def test_two_sequences_begun_by_the_neurons_reset_are_exact(which):
    hand.check(TwoWindows, call, TWO, which)


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
        hand.assert_same(*outputs)
        for name in grads[1]:
            hand.assert_same(grads[0][name], grads[1][name], what=name)


def test_mixed_precision_by_mistake_is_named():
    net = ResetMem()
    dk.wrap_(net, {"fc1": dk.FreeDelay("axonal", init=2)}, example=hand.spikes_in().float())
    with pytest.raises(dk.ShapeError, match="fc1.*float64.*float32"):
        net(hand.spikes_in())
    assert net(hand.spikes_in().float()).shape == (hand.TIME, hand.BATCH, POST)
