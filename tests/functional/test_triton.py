"""The Triton kernels equal plain torch: on a cuda device, or without one in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from delaykit.arrivals import Kernel, Linear, Triangle
from delaykit.functional.decay_tape.operator import SynapseTape
from delaykit.functional.delay_line import delay_line
from delaykit.functional.delayed_linear import delayed_linear
from delaykit.functional.dispatch import backend
from delaykit.functional.filtered_linear import filtered_linear
from delaykit.functional.running_sum import torch as portable
from delaykit.functional.step_tape.operator import LinearTape
from tests.functional.judging import GPU as DEVICE
from tests.functional.judging import HAS_TRITON, INTERPRETED
from tests.functional.judging import needs_triton as runs

KERNELS = [Linear(), Triangle(4.0)]
ROOMS = ("test_operators.py", "test_running_sum.py", "recurrence/test_recurrence_triton.py")  # and this one


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed")
@pytest.mark.skipif(INTERPRETED or DEVICE == "cuda", reason="the other tests run here themselves")
def test_these_files_in_the_interpreter() -> None:
    rooms = [str(Path(__file__).parent / name) for name in ROOMS]
    judged = "test_triton or recurrence_triton or (judge and gpu)"
    options = ["-q", "-p", "no:cacheprovider", "-m", "slow or not slow", "-k", judged]
    command = [sys.executable, "-m", "pytest", *options, __file__, *rooms]
    done = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "passed" in done.stdout, done.stdout[-3000:]


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.rand(shape, generator=generator, dtype=torch.float64)).to(DEVICE).requires_grad_()


def assert_backends_agree(operator, *inputs: Tensor) -> None:  # type: ignore[no-untyped-def]
    results = []
    for name in ("gpu", "torch"):
        with backend(name):
            out = operator(*inputs)
            cotangent = torch.cos(torch.arange(out.numel(), dtype=out.dtype, device=out.device)).reshape(out.shape)
            results.append((out, *torch.autograd.grad(out, inputs, cotangent)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=1e-11)


@runs
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (1, 5)])
@pytest.mark.parametrize("space", [(), (2, 3)])
def test_delay_line(kernel: Kernel, shape: tuple[int, int], space: tuple[int, ...]) -> None:
    inputs = random(13, 3, 5, *space), random(*shape, seed=1, scale=15.0)
    assert_backends_agree(lambda x, delays: delay_line(x, kernel.taps(delays)), *inputs)


@runs
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("shape", [(1, 5), (4, 1), (4, 5)])
def test_delayed_linear(kernel: Kernel, shape: tuple[int, int]) -> None:
    inputs = random(13, 3, 5), random(4, 5, seed=1), random(*shape, seed=2, scale=15.0), random(4, seed=3)
    assert_backends_agree(lambda x, w, delays, bias: delayed_linear(x, w, kernel.taps(delays), bias), *inputs)


@runs
@pytest.mark.parametrize("shape", [(1, 5), (4, 1), (4, 5)])
def test_filtered_linear(shape: tuple[int, int]) -> None:
    assert_backends_agree(filtered_linear, random(9, 3, 5), random(4, 5, seed=1), random(*shape, seed=2))


@runs
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("shape", [(1, 5), (4, 1), (4, 5)])
def test_a_time_loop(kernel: Kernel, shape: tuple[int, int]) -> None:
    def loop(x: Tensor, weight: Tensor, delays: Tensor) -> Tensor:
        tape = LinearTape(kernel.taps(delays), weight, None)
        return torch.stack([tape.step(step) for step in x])

    assert_backends_agree(loop, random(7, 3, 5), random(4, 5, seed=1), random(*shape, seed=2, scale=5.0))


@runs
def test_a_time_loop_of_synapses_that_decay() -> None:
    def loop(x: Tensor, decay: Tensor, weight: Tensor) -> Tensor:
        tape = SynapseTape(decay, weight, None, None)
        return torch.stack([tape.step(step) for step in x])

    assert_backends_agree(loop, random(7, 3, 5), random(4, 5, seed=1), random(4, 5, seed=2))


@runs
def test_sequences_longer_than_a_block() -> None:
    """More numbers in a row than a program handles, in each of the kernels."""
    inputs = random(130, 5, 3), random(2, 3, seed=1), random(2, 3, seed=2, scale=100.0)
    assert_backends_agree(lambda x, w, delays: delayed_linear(x, w, Linear().taps(delays)), *inputs)
    assert_backends_agree(
        lambda x, d: delay_line(x, Triangle(3.0).taps(d)), random(130, 5, 3), random(1, 3, scale=90.0)
    )


@runs
@pytest.mark.parametrize("reverse", [False, True])
def test_running_sum(reverse: bool) -> None:
    from delaykit.functional.running_sum import triton as gpu

    x, decay = random(7, 3, 5).detach(), random(5, seed=1).detach()
    for factor in (None, decay):
        expected = portable.running_sum(x, factor, reverse)
        torch.testing.assert_close(gpu.running_sum(x, factor, reverse), expected, atol=1e-13, rtol=0)


@runs
@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3)])
def test_empty_sequences(shape: tuple[int, ...]) -> None:
    x, weight = (
        torch.ones(shape, device=DEVICE, requires_grad=True),
        torch.ones(2, 3, device=DEVICE, requires_grad=True),
    )
    with backend("gpu"):
        for taps_of in ((1, 3), (2, 3)):
            out = delayed_linear(x, weight, Linear().taps(torch.ones(taps_of, device=DEVICE)))
            assert out.shape == (*shape[:2], 2)
            out.sum().backward()
