"""A membrane that is handed on without its graph cuts the line before it at that very step, or it is refused."""

from __future__ import annotations

import pytest
import torch
from rigs import snn
from torch import Tensor, nn

import delaykit as dk

DELAY, STEPS, CUT = 2.5, 9, 4
CUTS = {
    "detached": lambda v: v.detach(),
    "detached clone": lambda v: v.detach().clone(),
    "cloned": lambda v: v.clone(),
    "as it is": lambda v: v,
}


class Step(nn.Module):
    """One step a call."""

    each = 1

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 3, bias=False)
        self.lif = snn.Leaky(0.5, threshold=99.0)
        with torch.no_grad():
            self.fc.weight.copy_(torch.arange(1.0, 7.0).reshape(3, 2))

    def forward(self, x: Tensor, mem: Tensor) -> Tensor:
        return self.lif(self.fc(x), mem)[1]


class Pieces(Step):
    """Some steps a call."""

    each = 2

    def forward(self, x: Tensor, mem: Tensor) -> Tensor:
        for frame in x:
            mem = super().forward(frame, mem)
        return mem


class Modules(Step):
    """The model itself is never called."""

    def alone(self, x: Tensor, mem: Tensor) -> Tensor:
        return self.lif(self.fc(x), mem)[1]


def frames() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(STEPS, 4, 2, generator=generator) < 0.5).double()
    return x[: STEPS // 2 * 2]


def run(net: Step, x: Tensor, cut, detach=lambda: None) -> list[Tensor]:
    mem, out, call = net.lif.reset_mem(), [], net.alone if isinstance(net, Modules) else net
    for start in range(0, len(x), net.each):
        if start == CUT:
            mem = cut(mem)
            detach()
        mem = call(x[start] if net.each == 1 else x[start : start + net.each], mem)
        out.append(mem)
    return out


def by_queue(x: Tensor, weight: Tensor, delay: Tensor, granularity: str, cut) -> list[Tensor]:
    """Say what a queue before (or, dendritic, behind) the weight gives, whose content is cut with the membrane."""
    size = 2 if granularity != "dendritic" else 3
    queue = [torch.zeros(4, size, dtype=torch.float64)] * 4
    mem, out, part = torch.zeros(4, 3, dtype=torch.float64), [], delay - 2
    for t, frame in enumerate(x):
        if t == CUT:
            mem, was = cut(mem), mem
            if was.requires_grad and not mem.requires_grad:
                queue = [entry.detach() for entry in queue]
        queue = [frame if size == 2 else frame @ weight.t(), *queue[:-1]]
        late = (1 - part) * queue[2] + part * queue[3]
        mem = 0.5 * mem + (late @ weight.t() if size == 2 else late)
        out.append(mem)
    return out


def gradients(out: list[Tensor], wanted: list[Tensor]) -> list[Tensor]:
    later = out[len(out) // 2 :]  # what follows the cut, and only that: truncated BPTT
    loss = sum((k + 1) * y.square().sum() for k, y in enumerate(later))
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for g, w in zip(found, wanted, strict=True)]


def wrapped(kind: type[Step], granularity: str) -> Step:
    net = kind().double()
    delay = dk.FreeDelay(granularity, max_delay=5, init=DELAY)
    return dk.wrap_(net, {"fc": delay}, example=lambda: run(net, frames(), lambda v: v))


def expected(net: Step, x: Tensor, granularity: str, cut) -> tuple[list[Tensor], list[Tensor]]:
    weight = net.fc.weight.detach().clone().requires_grad_()
    delay = torch.tensor(DELAY, dtype=torch.float64, requires_grad=True)
    x = x.detach().clone().requires_grad_()
    want = by_queue(x, weight, delay, granularity, cut)[net.each - 1 :: net.each]
    return want, gradients(want, [x, weight, delay])


@pytest.mark.parametrize("granularity", ["layer", "axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("kind", [Step, Pieces])
@pytest.mark.parametrize("cut", CUTS)
def test_the_line_is_cut_with_the_membrane(kind, granularity, cut):
    net, x = wrapped(kind, granularity), frames().requires_grad_()
    want, grads = expected(net, x, granularity, CUTS[cut])
    got = run(net, x, CUTS[cut])
    assert all(torch.allclose(a, b) for a, b in zip(got, want, strict=True))
    delay = net.fc.dk.delay.delay
    found = gradients(got, [x, net.fc.weight, delay])
    for one, two in zip([*found[:2], found[2].sum()], grads, strict=True):
        torch.testing.assert_close(one.double(), two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [Step, Pieces])
def test_segments_are_trained_one_after_the_other(kind):
    net, x = wrapped(kind, "axonal"), frames()
    mem, before = net.lif.reset_mem(), None
    for start in range(0, len(x), 4):
        for k in range(start, start + 4, net.each):
            mem = net(x[k] if net.each == 1 else x[k : k + net.each], mem if k > start else mem.detach())
        net.zero_grad()
        mem.sum().backward()
        before = net.fc.weight.grad
    assert before is not None and bool(before.any())


@pytest.mark.parametrize("granularity", ["axonal", "dendritic", "synaptic"])
def test_modules_that_are_called_by_themselves_say_how_to_cut(granularity):
    net, x = wrapped(Modules, granularity), frames().requires_grad_()
    with pytest.raises(dk.HistoryError, match=r"dk\.detach"):
        run(net, x, CUTS["detached"])
    want, grads = expected(net, x, granularity, CUTS["detached"])
    got = run(net, x, CUTS["detached"], detach=lambda: dk.detach(net))
    assert all(torch.allclose(a, b) for a, b in zip(got, want, strict=True))
    for one, two in zip(gradients(got, [x, net.fc.weight]), grads, strict=False):
        torch.testing.assert_close(one.double(), two, rtol=1e-5, atol=1e-6)


def test_an_edited_membrane_without_its_graph_is_refused_or_cut_by_hand():
    net, x = wrapped(Step, "axonal"), frames().requires_grad_()
    edit = lambda v: (0.9 * v).detach()  # noqa: E731
    with pytest.raises(dk.HistoryError, match=r"dk\.detach"):
        run(net, x, edit)
    want, grads = expected(net, x, "axonal", edit)
    got = run(net, x, edit, detach=lambda: dk.detach(net))
    assert all(torch.allclose(a, b) for a, b in zip(got, want, strict=True))
    for one, two in zip(gradients(got, [x, net.fc.weight]), grads, strict=False):
        torch.testing.assert_close(one.double(), two, rtol=1e-5, atol=1e-6)
