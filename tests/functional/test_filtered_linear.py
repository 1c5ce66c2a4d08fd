"""Laws of filtered_linear: its impulse response in every backend, decays of 0 and 1, memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from delaykit.errors import ShapeError
from delaykit.functional import reference
from delaykit.functional.dispatch import backend
from delaykit.functional.filtered_linear import filtered_linear
from delaykit.functional.filtered_linear import reference as judge
from delaykit.functional.filtered_linear import torch as portable
from tests.functional.judging import BACKENDS, DTYPES, assert_judged, drawn

TIME, BATCH, PRE, POST = 15, 3, 5, 4
SHAPES = {"layer": (1, 1), "axonal": (1, PRE), "dendritic": (POST, 1), "synaptic": (POST, PRE)}


def random(*shape: int, seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.rand(shape, generator=generator, dtype=torch.float64)).to(dtype).requires_grad_()


def spikes_of(density: float, dtype: torch.dtype = torch.float64) -> Tensor:
    kept = torch.rand(TIME, BATCH, PRE, generator=torch.Generator().manual_seed(3)) < density
    return (random(TIME, BATCH, PRE).detach() * kept).to(dtype).requires_grad_()


def value_and_gradients(out: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return (
        out,
        *torch.autograd.grad(out, inputs, torch.cos(torch.arange(out.numel(), dtype=out.dtype)).reshape(out.shape)),
    )


def assert_all_close(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float = 1e-12) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


def geometric(spikes: Tensor, weight: Tensor, decay: Tensor) -> Tensor:
    """The impulse response itself, w r^tau: a judge that shares no line with the operator or its own reference."""
    response = torch.stack([decay**tau for tau in range(TIME)], -1)
    return reference.causal_convolution(spikes, weight.unsqueeze(-1) * response)


@pytest.mark.parametrize("name", ["reference", "torch", "cpu"])
@pytest.mark.parametrize("granularity", SHAPES)
def test_decay_equals_its_impulse_response(name: str, granularity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portable, "CHUNK_NUMBERS", 2 * BATCH * PRE)  # several chunks of rows
    spikes, weight, bias = spikes_of(1.0), random(POST, PRE, seed=1), random(POST, seed=2)
    decay = random(*SHAPES[granularity], seed=5)
    with backend(name):
        found = value_and_gradients(filtered_linear(spikes, weight, decay, bias), spikes, weight, decay, bias)
    assert_all_close(found, value_and_gradients(geometric(spikes, weight, decay) + bias, spikes, weight, decay, bias))


@pytest.mark.parametrize("granularity", SHAPES)
@pytest.mark.parametrize("edge", [0.0, 1.0])
def test_decay_of_zero_and_one(granularity: str, edge: float) -> None:
    """Nothing divides by the decay, and the gradient at 0 is the current of the step before."""
    spikes, weight = spikes_of(1.0), random(POST, PRE, seed=1)
    decay = torch.full(SHAPES[granularity], edge, dtype=torch.float64, requires_grad=True)
    found = value_and_gradients(filtered_linear(spikes, weight, decay), spikes, weight, decay)
    judged = value_and_gradients(judge.filtered_linear(spikes, weight, decay), spikes, weight, decay)
    assert_all_close(found, judged)
    assert found[-1].abs().min() > 1e-3


@pytest.mark.parametrize("granularity", SHAPES)
def test_decay_gradcheck(granularity: str) -> None:
    shape = {"layer": (1, 1), "axonal": (1, 3), "dendritic": (2, 1), "synaptic": (2, 3)}[granularity]
    assert torch.autograd.gradcheck(filtered_linear, (random(5, 2, 3), random(2, 3, seed=1), random(*shape, seed=2)))


def test_decay_keeps_spikes_only() -> None:
    spikes, weight, decay = (
        torch.rand(30, 8, 20, requires_grad=True),
        torch.rand(10, 20, requires_grad=True),
        torch.rand(10, 20),
    )
    kept: set[int] = set()

    def keep(tensor: Tensor) -> Tensor:
        kept.add(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        filtered_linear(spikes, weight, decay)
    assert kept == {t.untyped_storage().data_ptr() for t in (spikes, weight, decay)}


@pytest.mark.parametrize("granularity", SHAPES)
def test_decay_compiles_without_a_graph_break(granularity: str) -> None:
    inputs = (spikes_of(1.0), random(POST, PRE, seed=1), random(*SHAPES[granularity], seed=4), random(POST, seed=2))
    compiled: Callable[..., Tensor] = torch.compile(filtered_linear, backend="aot_eager", fullgraph=True)
    assert_all_close(
        value_and_gradients(compiled(*inputs), *inputs), value_and_gradients(filtered_linear(*inputs), *inputs)
    )


@pytest.mark.parametrize("granularity", SHAPES)
def test_decay_stays_in_float32_under_autocast(granularity: str) -> None:
    spikes, weight = spikes_of(1.0, torch.float32), random(POST, PRE, dtype=torch.float32)
    decay, bias = random(*SHAPES[granularity], dtype=torch.float32), random(POST, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = filtered_linear(spikes.bfloat16(), weight, decay, bias)
    out.float().sum().backward()
    assert decay.grad.dtype == torch.float32
    torch.testing.assert_close(out.float(), filtered_linear(spikes, weight, decay, bias), atol=0.1, rtol=0.02)


@pytest.mark.parametrize(
    ("spikes", "weight", "decay", "bias"),
    [
        ((5, 3), (4, 3), (1, 3), None),
        ((5, 2, 3), (4, 2), (1, 3), None),
        ((5, 2, 3), (4, 3), (3, 3), None),
        ((5, 2, 3), (4, 3), (1, 3), 3),
    ],
)
def test_shapes_that_do_not_fit_are_refused(spikes, weight, decay, bias) -> None:  # type: ignore[no-untyped-def]
    bias = None if bias is None else torch.zeros(bias)
    with pytest.raises(ShapeError, match="filtered_linear"):
        filtered_linear(torch.zeros(spikes), torch.zeros(weight), torch.zeros(decay), bias)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("granularity", SHAPES)
def test_equals_the_judge(name: str, dtype: torch.dtype, granularity: str) -> None:
    inputs = drawn(TIME, BATCH, PRE), drawn(POST, PRE, seed=1), drawn(*SHAPES[granularity], seed=2), drawn(POST, seed=3)
    assert_judged(name, dtype, filtered_linear, *inputs)
    assert_judged(name, dtype, filtered_linear, *inputs, drawn(POST, 1, seed=4))
