"""Cuts in step mode: a current that lingers there is a constant that goes on decaying; later spikes train the weight.

The judge is the plain recurrence, with a number for each synapse:

    y[t] = b + sum_i (w x[t] + (r - leak) I[t - 1]),      I[t] = r I[t - 1] + w x[t],      I = I.detach() at a cut
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

import delaykit as dk
from delaykit_hetsyn import HetSyn
from delaykit_hetsyn.groups import shares
from tests.functional.judging import live_bytes

TIME, BATCH, PRE, POST = 12, 2, 3, 2
X = (torch.rand(TIME, BATCH, PRE, generator=torch.Generator().manual_seed(0)) < 0.5).double()
KINDS = {name: HetSyn(name, tau=("uniform", 2.0, 20.0), dt_ms=1.0) for name in
         ("synaptic", "dendritic", "axonal", "layer")}  # fmt: skip
KINDS["groups"] = HetSyn(tau=("uniform", 2.0, 20.0), dt_ms=1.0, groups=4)
WAYS = [("snntorch", "membrane"), ("snntorch", "clone"), ("snntorch", "dk.detach"), ("norse", "tree_map"),
        ("norse", "dk.detach"), ("readout", "dk.detach")]  # fmt: skip
SEGMENTS = {"one cut": (5,), "several": (2, 3, 7, 11)}


class Judge:
    """One connection, as the equations say."""

    def __init__(self, connection: nn.Module, delayed: str | None) -> None:
        part = connection.dk.heterogeneity
        self.weight, self.bias, self.r = (copy.deepcopy(p) for p in (connection.weight, connection.bias, part.r))
        leak = part.leak()
        self.leak = 0.0 if leak is None else leak.detach()
        self.shared, self.delayed = None if part.shared is None else part.shared.double(), delayed
        self.current = torch.zeros(1, BATCH, POST, PRE).double()
        self.spikes, self.late = torch.zeros(BATCH, PRE).double(), torch.zeros(BATCH, POST).double()

    def parameters(self) -> list[Tensor]:
        return [self.weight, self.bias, self.r]

    def step(self, x: Tensor) -> Tensor:
        r, share = self.r, 1.0
        if self.shared is not None:
            r, share = self.shared.reshape(-1, 1, 1, 1), shares(self.r, self.shared).unsqueeze(1)
        if self.delayed in ("axonal", "synaptic"):
            x, self.spikes = self.spikes, x
        made = self.weight * share * x.unsqueeze(1)
        y = (made + (r - self.leak) * self.current).sum((0, 3))
        self.current = r * self.current + made
        if self.delayed == "dendritic":
            y, self.late = self.late, y
        return y + self.bias

    def cut(self) -> None:
        self.current, self.spikes, self.late = self.current.detach(), self.spikes.detach(), self.late.detach()


def first_of(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return the current; a connection that carries its history gives that, too."""
    return output[0] if isinstance(output, tuple) else output


class Wrapped:
    """The same connection of a model, in front of a neuron that never fires."""

    def __init__(self, library: str, how: str, kind: str, delayed: str | None) -> None:
        torch.manual_seed(0)
        parts = (KINDS[kind], *([dk.FreeDelay(delayed, max_delay=3, init=1)] if delayed else []))
        self.library, self.how, self.state = library, how, None
        if library == "norse":
            norse = pytest.importorskip("norse.torch", reason="wraps Norse models")
            net = norse.SequentialState(nn.Linear(PRE, POST), norse.LICell()).double()
            at = dk.At(*parts)
            example = lambda: [net(X[0], None), None]  # noqa: E731
        elif library == "snntorch":
            snn = pytest.importorskip("snntorch", reason="wraps snnTorch models")
            net = nn.Sequential(nn.Linear(PRE, POST), snn.Leaky(0.8, init_hidden=True, threshold=99.0)).double()
            at, example = dk.At(*parts), X[0]
        else:
            net, at, example = nn.Sequential(nn.Linear(PRE, POST)).double(), dk.At(*parts, reset="manual"), X[0]
        self.net = dk.wrap_(net, {"0": at}, example=example)
        self.seen: list[Tensor] = []
        self.net[0].register_forward_hook(lambda module, args, output: self.seen.append(first_of(output)))
        if library == "snntorch":
            self.net[1].reset_mem()

    def parameters(self) -> list[Tensor]:
        return [self.net[0].weight, self.net[0].bias, self.net[0].dk.heterogeneity.r]

    def step(self, x: Tensor) -> Tensor:
        if self.library == "norse":
            _, self.state = self.net(x, self.state)
        else:
            self.net(x)
        return self.seen.pop()

    def cut(self) -> None:
        if self.how == "dk.detach":
            dk.detach(self.net)
        elif self.how == "tree_map":
            self.state = tree_map(lambda v: v.detach(), self.state)
        else:
            membrane = self.net[1].mem.detach()
            self.net[1].mem = membrane.clone() if self.how == "clone" else membrane
        if self.how == "dk.detach" and self.library == "norse":
            self.state = tree_map(lambda v: v.detach(), self.state)


def loss_of(outputs: list[Tensor], first: int) -> Tensor:
    scale = torch.rand(TIME, BATCH, POST, generator=torch.Generator().manual_seed(7)).double()
    return (torch.stack(outputs) * scale[first : first + len(outputs)]).square().sum()


def gradients(run: Judge | Wrapped) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in run.parameters()]


def in_segments(run: Judge | Wrapped, x: Tensor, cuts: tuple[int, ...], rate: float | None) -> list[Tensor]:
    """Train behind each segment, or, without a rate, once behind all of them; return outputs and gradients."""
    optimizer, found, losses = torch.optim.SGD(run.parameters(), lr=rate or 0.0), [], []
    for first, end in zip((0, *cuts), (*cuts, TIME), strict=True):
        if first:
            run.cut()
        outputs = [run.step(row) for row in x[first:end]]
        found += [y.detach().clone() for y in outputs]
        losses.append(loss_of(outputs, first))
        if rate is not None:
            losses.pop().backward()
            found += gradients(run)
            optimizer.step()
            optimizer.zero_grad()
    if losses:
        sum(losses).backward()
        found += gradients(run)
    return [*found, *([x.grad.clone()] if x.requires_grad else [])]


def agree(one: list[Tensor], two: list[Tensor]) -> None:
    assert len(one) == len(two)
    for mine, true in zip(one, two, strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-9, atol=1e-11)


def given(into_inputs: bool) -> Tensor:
    return X.clone().requires_grad_(into_inputs)


@pytest.mark.parametrize("into_inputs", [False, True])
@pytest.mark.parametrize(("cuts", "rate"), [("one cut", None), ("several", None), ("several", 1e-4)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("library", "how"), WAYS)
def test_gradients_count_the_spikes_since_the_cut(library, how, kind, cuts, rate, into_inputs):
    net = Wrapped(library, how, kind, None)
    judge = Judge(net.net[0], None)
    agree(*(in_segments(run, given(into_inputs), SEGMENTS[cuts], rate) for run in (net, judge)))


@pytest.mark.parametrize("rate", [None, 1e-4])
@pytest.mark.parametrize("delayed", ["axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("kind", ["synaptic", "dendritic", "axonal", "layer"])
def test_delays_beside_decays_read_a_cut_alike(kind, delayed, rate):
    net = Wrapped("snntorch", "membrane", kind, delayed)
    judge = Judge(net.net[0], delayed)
    net.net[0].dk.delay.delay.requires_grad_(False)
    agree(*(in_segments(run, given(False), SEGMENTS["several"], rate) for run in (net, judge)))


@pytest.mark.parametrize("quiet", [range(5), (0, 1, 5, 6, 9)], ids=["warm-up", "pauses"])
@pytest.mark.parametrize("delayed", [None, "axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("library", ["snntorch", "norse"])
def test_what_a_step_without_gradients_leaves_is_a_constant(library, kind, delayed, quiet):
    if kind == "groups" and delayed:
        pytest.skip("groups take no delay")
    net = Wrapped(library, "", kind, delayed)
    found, judge = [], Judge(net.net[0], delayed)
    for run in (net, judge):
        x, outputs = given(True), []
        for t, row in enumerate(x):
            with torch.set_grad_enabled(t not in quiet):
                y = run.step(row.detach() if t in quiet else row)
            outputs += [] if t in quiet else [y]
        loss_of(outputs, 0).backward()
        found.append([*outputs, *gradients(run), x.grad])
    agree(*found)


@pytest.mark.parametrize("rate", [0.0, 1e-4])
@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow_with_the_number_of_cuts(kind, rate):
    net, held = Wrapped("snntorch", "membrane", kind, None), []
    optimizer = torch.optim.SGD(net.parameters(), lr=rate)
    for k in range(30):
        torch.stack([net.step(x) for x in X[:3]]).square().mean().backward()
        optimizer.step()
        net.cut()
        held += [live_bytes()] if k in (9, 19, 29) else []  # the first cleans up
    assert held[2] <= held[1]


@pytest.mark.parametrize("kind", [*KINDS, "synaptic delays"])
def test_a_weight_replaced_while_currents_lead_back_to_it_is_refused(kind):
    delayed = "synaptic" if kind not in KINDS else None
    net = Wrapped("snntorch", "membrane", kind if kind in KINDS else "synaptic", delayed)
    for x in X[:4]:
        net.step(x)
    net.net[0].weight = nn.Parameter(2 * net.net[0].weight.detach())
    with pytest.raises(dk.HistoryError, match="weight that changed"):
        net.step(X[4])
