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
from delaykit.testing.faults.steady_costs import living
from delaykit_hetsyn import HetSyn
from delaykit_hetsyn.groups import shares

TIME, BATCH, PRE, POST = 12, 2, 3, 2
X = (torch.rand(TIME, BATCH, PRE, generator=torch.Generator().manual_seed(0)) < 0.5).double()
KINDS = {name: HetSyn(name, tau=("uniform", 2.0, 20.0), dt_ms=1.0) for name in
         ("synaptic", "dendritic", "axonal", "layer")}  # fmt: skip
KINDS["groups"] = HetSyn(tau=("uniform", 2.0, 20.0), dt_ms=1.0, groups=4)
KINDS["frozen"] = HetSyn(tau=("uniform", 2.0, 20.0), dt_ms=1.0, frozen=0.5)
WAYS = [("snntorch", "membrane"), ("snntorch", "clone"), ("snntorch", "dk.detach"), ("norse", "tree_map"),
        ("norse", "dk.detach"), ("readout", "dk.detach"), ("own leaks", "membrane")]  # fmt: skip
SEGMENTS = {"one cut": (5,), "several": (2, 3, 7, 11)}


class Judge:
    """One connection, as the equations say."""

    def __init__(self, connection: nn.Module, delayed: str | None) -> None:
        part = connection.dk.heterogeneity
        self.weight, self.bias, self.r = (copy.deepcopy(p) for p in (connection.weight, connection.bias, part.r))
        leak = part.leak()
        self.leak = (
            torch.zeros(1, 1).double() if leak is None else leak.detach().clone().requires_grad_(leak.requires_grad)
        )
        self.frozen = torch.zeros_like(self.r) if part.frozen is None else part.frozen.double()
        self.shared, self.delayed = None if part.shared is None else part.shared.double(), delayed
        post, pre = self.weight.shape
        self.current = torch.zeros(1, BATCH, post, pre).double()
        self.spikes, self.late = torch.zeros(BATCH, pre).double(), torch.zeros(BATCH, post).double()

    def parameters(self) -> list[Tensor]:
        return [self.weight, self.bias, self.r, *([self.leak] if self.leak.requires_grad else [])]

    def step(self, x: Tensor) -> Tensor:
        r, share = self.frozen * self.r.detach() + (1 - self.frozen) * self.r, 1.0
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

    def steps(self, rows: Tensor) -> list[Tensor]:
        return [self.step(row) for row in rows]

    def cut(self) -> None:
        self.current, self.spikes, self.late = self.current.detach(), self.spikes.detach(), self.late.detach()


def first_of(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return the current; a connection that carries its history gives that, too."""
    return output[0] if isinstance(output, tuple) else output


class Wrapped:
    """The same connection of a model, in front of a neuron that never fires."""

    def __init__(
        self, library: str, how: str, kind: str, delayed: str | None = None, pre: int = PRE, post: int = POST
    ) -> None:
        torch.manual_seed(0)
        parts = (KINDS[kind], *([dk.FreeDelay(delayed, max_delay=3, init=1)] if delayed else []))
        self.library, self.how, self.state, first = library, how, None, X[0, :, :pre]
        if library == "norse":
            norse = pytest.importorskip("norse.torch", reason="wraps Norse models")
            net = norse.SequentialState(nn.Linear(pre, post), norse.LICell()).double()
            at = dk.At(*parts)
            example = lambda: [net(first, None), None]  # noqa: E731
        elif library == "readout":
            net, at, example = nn.Sequential(nn.Linear(pre, post)).double(), dk.At(*parts, reset="manual"), first
        else:
            snn = pytest.importorskip("snntorch", reason="wraps snnTorch models")
            own = library == "own leaks"
            beta = torch.linspace(0.5, 0.9, post) if own else 0.8
            neuron = snn.Leaky(beta, learn_beta=own, init_hidden=True, threshold=99.0)
            net, at, example = nn.Sequential(nn.Linear(pre, post), neuron).double(), dk.At(*parts), first
        self.net = dk.wrap_(net, {"0": at}, example=example)
        self.seen: list[Tensor] = []
        self.net[0].register_forward_hook(lambda module, args, output: self.seen.append(first_of(output)))
        if library in ("snntorch", "own leaks"):
            self.net[1].reset_mem()

    def parameters(self) -> list[Tensor]:
        leak = [self.net[1].beta] if self.library == "own leaks" else []
        return [self.net[0].weight, self.net[0].bias, self.net[0].dk.heterogeneity.r, *leak]

    def step(self, x: Tensor) -> Tensor:
        if self.library == "norse":
            _, self.state = self.net(x, self.state)
        else:
            self.net(x)
        return self.seen.pop()

    def steps(self, rows: Tensor) -> list[Tensor]:
        return [self.step(row) for row in rows]

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


class Loop(nn.Module):
    """A neuron that steps through what it is given."""

    def __init__(self, neuron: nn.Module) -> None:
        super().__init__()
        self.neuron = neuron

    def forward(self, currents: Tensor) -> Tensor:
        return torch.stack([self.neuron(current) for current in currents])


class InPieces(Wrapped):
    """The same connection, which is given all steps between two cuts at once."""

    def __init__(self, library: str, kind: str) -> None:
        torch.manual_seed(0)
        if library == "norse":
            norse = pytest.importorskip("norse.torch", reason="wraps Norse models")
            net = norse.SequentialState(nn.Linear(PRE, POST), norse.LI())
        else:
            snn = pytest.importorskip("snntorch", reason="wraps snnTorch models")
            net = nn.Sequential(nn.Linear(PRE, POST), Loop(snn.Leaky(0.8, init_hidden=True, threshold=99.0)))
        self.net, self.library, self.how = net.double(), library, "dk.detach"
        dk.wrap_(net, {"0": dk.At(KINDS[kind], time_dim=0)}, example=X)
        self.seen, self.state = [], None
        net[0].register_forward_hook(lambda module, args, output: self.seen.append(first_of(output)))
        if library == "snntorch":
            net[1].neuron.reset_mem()

    def steps(self, rows: Tensor) -> list[Tensor]:
        if self.library == "norse":
            _, self.state = self.net(rows, self.state)
        else:
            self.net(rows)
        return list(self.seen.pop())


def loss_of(outputs: list[Tensor], first: int) -> Tensor:
    scale = torch.rand(TIME, BATCH, POST, generator=torch.Generator().manual_seed(7)).double()
    return (torch.stack(outputs) * scale[first : first + len(outputs), :, : outputs[0].shape[1]]).square().sum()


def gradients(run: Judge | Wrapped) -> list[Tensor]:
    return [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in run.parameters()]


def in_segments(run: Judge | Wrapped, x: Tensor, cuts: tuple[int, ...], rate: float | None) -> list[Tensor]:
    """Train behind each segment, or, without a rate, once behind all of them; return outputs and gradients."""
    optimizer, found, losses = torch.optim.SGD(run.parameters(), lr=rate or 0.0), [], []
    for first, end in zip((0, *cuts), (*cuts, TIME), strict=True):
        if first:
            run.cut()
        outputs = run.steps(x[first:end])
        found += [y.detach().clone() for y in outputs]
        losses.append(loss_of(outputs, first))
        if rate is not None:
            losses.pop().backward()
            found += [one.clone() for one in gradients(run)]
            optimizer.step()
            optimizer.zero_grad()
    if losses:
        sum(losses).backward()
        found += gradients(run)
    return [*found, *([x.grad.clone()] if x.requires_grad else [])]


def assert_agree(one: list[Tensor], two: list[Tensor]) -> None:
    assert len(one) == len(two)
    for mine, true in zip(one, two, strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-9, atol=1e-11)


def given(into_inputs: bool) -> Tensor:
    return X.clone().requires_grad_(into_inputs)


@pytest.mark.parametrize(
    ("cuts", "rate", "into_inputs"), [("one cut", None, True), ("several", None, False), ("several", 1e-4, True)]
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("library", "how"), WAYS)
def test_gradients_count_the_spikes_since_the_cut(library, how, kind, cuts, rate, into_inputs):
    net = Wrapped(library, how, kind)
    judge = Judge(net.net[0], None)
    assert_agree(*(in_segments(run, given(into_inputs), SEGMENTS[cuts], rate) for run in (net, judge)))


@pytest.mark.parametrize(("rate", "into_inputs"), [(None, True), (1e-4, False)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("library", ["snntorch", "norse"])
def test_pieces_of_a_sequence_are_cut_alike(library, kind, rate, into_inputs):
    net = InPieces(library, kind)
    judge = Judge(net.net[0], None)
    assert_agree(*(in_segments(run, given(into_inputs), SEGMENTS["several"], rate) for run in (net, judge)))


@pytest.mark.parametrize(("pre", "post"), [(1, 2), (3, 1), (1, 1)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("library", ["snntorch", "readout", "own leaks"])
def test_one_input_or_one_output_reads_a_cut_alike(library, kind, pre, post):
    net = Wrapped(library, "dk.detach", kind, None, pre, post)
    judge, cuts = Judge(net.net[0], None), SEGMENTS["several"]
    assert_agree(*(in_segments(run, X[..., :pre].clone().requires_grad_(), cuts, 1e-4) for run in (net, judge)))


@pytest.mark.parametrize(("rate", "into_inputs"), [(None, True), (1e-4, False)])
@pytest.mark.parametrize("delayed", ["axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("kind", ["synaptic", "dendritic", "axonal", "layer"])
@pytest.mark.parametrize("library", ["snntorch", "own leaks"])
def test_delays_beside_decays_read_a_cut_alike(library, kind, delayed, rate, into_inputs):
    net = Wrapped(library, "membrane", kind, delayed)
    judge = Judge(net.net[0], delayed)
    net.net[0].dk.delay.delay.requires_grad_(False)
    assert_agree(*(in_segments(run, given(into_inputs), SEGMENTS["several"], rate) for run in (net, judge)))


@pytest.mark.parametrize("quiet", [range(5), (0, 1, 5, 6, 9)], ids=["warm-up", "pauses"])
@pytest.mark.parametrize(
    ("kind", "delayed"),
    [(kind, delayed) for kind in KINDS for delayed in (None, "axonal", "dendritic", "synaptic")
     if kind != "groups" or not delayed],
)  # fmt: skip
@pytest.mark.parametrize(
    ("library", "without"),
    [("snntorch", torch.no_grad), ("snntorch", torch.inference_mode), ("norse", torch.inference_mode),
     ("own leaks", torch.no_grad)],
)  # fmt: skip
def test_what_a_step_without_gradients_leaves_is_a_constant(library, kind, delayed, quiet, without):
    net = Wrapped(library, "", kind, delayed)
    found, judge = [], Judge(net.net[0], delayed)
    for run in (net, judge):
        x, outputs = given(True), []
        for t, row in enumerate(x):
            if t in quiet:
                with without() if run is net else torch.no_grad():
                    run.step(row.detach())
            else:
                outputs.append(run.step(row))
        loss_of(outputs, 0).backward()
        found.append([*outputs, *gradients(run), x.grad])
    assert_agree(*found)


@pytest.mark.usefixtures("young_heap")
@pytest.mark.parametrize("rate", [0.0, 1e-4])
@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow_with_the_number_of_cuts(kind, rate):
    net, held = Wrapped("snntorch", "membrane", kind), []
    optimizer = torch.optim.SGD(net.parameters(), lr=rate)
    for k in range(30):
        torch.stack([net.step(x) for x in X[:3]]).square().mean().backward()
        optimizer.step()
        net.cut()
        held += [living()] if k in (9, 19, 29) else []  # the first cleans up
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
