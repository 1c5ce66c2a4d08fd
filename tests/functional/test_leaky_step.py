"""Laws of leaky_step: the judge's values and gradients, any size, which chip takes it, what it leaves to others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from delaykit.functional import dispatch
from delaykit.functional.dispatch import backend
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.leaky_step import Leak, kernel_for, leaky_step
from delaykit.functional.surrogates import ARCTAN, FAST_SIGMOID, Slope
from tests.functional.judging import DTYPES, WITHOUT_TRITON, assert_judged, drawn, needs_numba


class Fires(torch.autograd.Function):
    """Spikes whose derivative is a closed form."""

    @staticmethod
    def forward(ctx, x: Tensor, slope: Slope) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope = slope
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.slope(ctx.saved_tensors[0]), None


def judged(slope: Slope, reset: str) -> LIFDynamics:
    return LIFDynamics(0.8, 0.5, lambda x: Fires.apply(x, slope), reset=reset, reset_spares_input=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", WITHOUT_TRITON)
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_equals_the_judge(reset: str, name: str, dtype: torch.dtype) -> None:
    """Outputs of three steps, one after the other, and the gradient of each input."""
    leak = Leak(np.float32(0.8), np.float32(0.5), reset)

    def run(drives: Tensor, membrane: Tensor) -> tuple[Tensor, ...]:
        out = []
        for drive in drives:
            membrane, resets = leaky_step(drive, membrane, leak)
            out += [membrane, resets]
        return tuple(out)

    drives, start = drawn(3, 4, 7) - 0.1, drawn(4, 7, seed=1)
    assert_judged(name, dtype, run, drives, start)
    assert all(0 < float(resets.mean()) < 1 for resets in run(drives, start)[1::2])


def test_a_chip_with_a_kernel_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry in the table of operators is all it takes: no other file knows of chips."""
    x, leak, seen = torch.zeros(2, 3), Leak(np.float32(0.5), np.float32(1.0), "none"), []

    def kernel(drive: Tensor, membrane: Tensor, *neuron: object) -> tuple[Tensor, Tensor]:
        seen.append(neuron)
        return drive + membrane, torch.zeros_like(drive)

    monkeypatch.setattr(dispatch, "_NATIVE", {"cpu": "new_chip"})
    assert kernel_for(x, x) is None
    monkeypatch.setitem(dispatch._found, ("leaky_step", "new_chip"), kernel)
    assert kernel_for(x, x) is kernel
    assert leaky_step(x + 1, x, leak)[0].tolist() == (x + 1).tolist()
    assert seen == [tuple(leak)]


@needs_numba
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("slope", [Slope(ARCTAN, 1.5, 2.0), Slope(FAST_SIGMOID, 1.0, 25.0)], ids=["arctan", "sigmoid"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 5, 3), (4, 64)])
def test_equals_the_described_neuron(reset: str, slope: Slope, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    drives = 2.4 * torch.rand(12, *shape, generator=generator) - 1.1
    weights = torch.randn(2, 12, *shape, generator=generator)
    found, told = [], []
    for at_once, out in ((True, found), (False, told)):
        x = drives.clone() if at_once else drives.double()
        x.requires_grad_()
        start = (0.3 * torch.ones(shape)).to(x).requires_grad_()
        state, spikes, membranes = (None, start), [], []
        for drive in x:
            if at_once:
                after, _ = leaky_step(drive, state[1], Leak(np.float32(0.8), np.float32(0.5), reset))
                fired, state = Fires.apply(after - 0.5, slope), (None, after)
            else:
                fired, state = judged(slope, reset).step(drive, state)
            spikes.append(fired)
            membranes.append(state[1])
        s, v = torch.stack(spikes), torch.stack(membranes)
        ((s * weights[0]).sum() + (v * weights[1]).sum()).backward()
        out += [s, v, x.grad, start.grad]
    assert 0 < float(found[0].detach().mean()) < 1
    assert torch.equal(found[0].double(), told[0])
    for one, other in zip(found[1:], told[1:], strict=True):
        torch.testing.assert_close(one.double(), other, atol=2e-5, rtol=2e-5)


def test_outputs_may_be_written_to() -> None:
    """A membrane clamped in place has the gradient of its edit, and a reset that is written to changes none."""
    drive, start = torch.tensor([0.2, 0.7, 1.4], requires_grad=True), torch.tensor([1.0, 0.1, 1.0], requires_grad=True)
    after, resets = leaky_step(drive, start, Leak(np.float32(0.5), np.float32(0.5), "zero"))
    assert resets.tolist() == [1.0, 0.0, 1.0]
    after.mul_(2.0)
    resets.zero_()
    after.sum().backward()
    assert drive.grad.tolist() == [2.0, 2.0, 2.0]
    assert start.grad.tolist() == [0.0, 1.0, 0.0]


def test_numbers_that_are_none_stay_none() -> None:
    leak = Leak(np.float32(0.5), np.float32(1.0), "none")
    after, resets = leaky_step(torch.tensor([torch.nan, torch.inf, 0.0]), torch.tensor([0.0, 0.0, -0.0]), leak)
    assert after.isnan().tolist() == [True, False, False]
    assert resets.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_second_derivatives(reset: str) -> None:
    """Of a function of the membrane that is no line: those of the equation written out."""
    drive = torch.tensor([0.2, 0.7, 1.4], requires_grad=True)
    start = torch.tensor([1.0, 0.1, 1.0], requires_grad=True)
    after, resets = leaky_step(drive, start, Leak(np.float32(0.5), np.float32(0.5), reset))
    kept = 0.5 * (1 - resets) if reset == "zero" else 0.5
    told = kept * start + drive - (0.5 * resets if reset == "subtract" else 0)
    found = []
    for membrane in (after, told):
        first = torch.autograd.grad(membrane.pow(3).sum(), (drive, start), create_graph=True)
        found.append([*first, *torch.autograd.grad(first[0].pow(2).sum() + first[1].sum(), (drive, start))])
    torch.testing.assert_close(found[0], found[1])


@needs_numba
def test_what_others_have_to_run() -> None:
    x = torch.zeros(2, 4)
    assert kernel_for(x, x) is not None
    for other in (x.double(), x.t(), torch.zeros(2, 3), x.to("meta"), x.to_sparse()):
        assert kernel_for(other, other if other.shape == (2, 4) else x) is None
    with backend("torch"):
        assert kernel_for(x, x) is None
    with torch.overrides.BaseTorchFunctionMode():
        assert kernel_for(x, x) is None
    assert not torch.func.vmap(lambda row: torch.tensor(kernel_for(row, row) is not None))(x).any()
    with torch.autograd.forward_ad.dual_level():
        assert kernel_for(x, x) is None
