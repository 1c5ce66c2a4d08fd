"""The ways a rollout can be computed: vector widths, events instead of products, a chosen backend."""

from __future__ import annotations

import pytest
import torch

from delaykit.arrivals import Linear, Triangle
from delaykit.functional.dispatch import backend as choose_backend
from delaykit.functional.dispatch import implementation_of
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence import numba as in_numba
from delaykit.functional.recurrence import rollout
from delaykit.functional.recurrence import torch as in_torch
from delaykit.functional.recurrence.connection import numba as compiled
from delaykit.functional.recurrence.connection import torch as plain
from delaykit.functional.recurrence.connection.base import SparseTaps
from delaykit.functional.recurrence.connection.kernels import sparse_product
from delaykit.functional.recurrence.neuron import numba as compiled_neuron
from delaykit.functional.recurrence.neuron import torch as plain_neuron
from tests.functional.recurrence.cases import (
    GRANULARITIES,
    RESETS,
    Case,
    assert_equal_to_naive,
    every_backend,  # noqa: F401 - the fixture `backend`
    leaf,
    naive,
    smooth,
    sparsest,
    spike,
)


@pytest.mark.parametrize("spread", [0.0, 6.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_vector_width_of_the_batch(backend, dtype, spread):
    g = torch.Generator().manual_seed(14)
    currents, weight = torch.rand(9, 45, 4, generator=g).to(dtype), torch.randn(4, 4, generator=g).to(dtype)
    delays = leaf((torch.rand(4, 4, generator=g) * 5).to(dtype))
    neuron = LIFDynamics(decay=0.8, surrogate=smooth, reset="subtract", reset_when="same")
    membranes = [f(currents, weight, None, sparsest(Triangle(spread), delays), neuron)[1] for f in (rollout, naive)]
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(membranes[0], membranes[1], rtol=tolerance, atol=tolerance)
    grads = [torch.autograd.grad((m * currents).sum(), delays)[0] for m in membranes]
    torch.testing.assert_close(grads[0], grads[1], rtol=10 * tolerance, atol=100 * tolerance)


def test_a_connection_without_any_tap_is_silent(backend):
    currents, weight = torch.rand(5, 2, 3), torch.ones(3, 3)
    taps = Linear().taps(torch.ones(3, 3))
    silent = taps._replace(value=torch.zeros_like(taps.value))
    neuron = LIFDynamics(decay=0.8, surrogate=spike)
    spikes, membrane, _ = rollout(currents, weight, None, silent, neuron)
    torch.testing.assert_close((spikes, membrane), rollout(currents, None, None, None, neuron)[:2])


def test_a_chosen_backend_is_honoured():
    cpu = torch.device("cpu")
    with choose_backend("torch"):
        assert implementation_of("recurrence", cpu) is in_torch.recurrence
    assert in_torch.CHIP == (plain_neuron.ForwardNeuron, plain_neuron.BackwardNeuron, plain.PARTS)
    pytest.importorskip("numba", reason="the Numba kernels need numba")
    assert implementation_of("recurrence", cpu) is in_numba.recurrence
    assert in_numba.CHIP == (compiled_neuron.ForwardNeuron, compiled_neuron.BackwardNeuron, compiled.PARTS)
    assert not [part for part, other in zip(plain.PARTS, compiled.PARTS, strict=True) if part is other]


def test_a_backward_pass_runs_where_its_forward_pass_did(monkeypatch):
    backward, used = in_torch.CHIP.backward, []
    watched = in_torch.CHIP._replace(backward=lambda *given: used.append(True) or backward(*given))
    monkeypatch.setattr(in_torch, "CHIP", watched)
    case = Case(3, GRANULARITIES["axonal"], Linear(), **RESETS[1])
    with choose_backend("torch"):
        _, membrane, _ = rollout(*case.arguments())
    membrane.sum().backward()
    assert used


@pytest.mark.parametrize("density", [0.0, 0.05, 0.3, 0.6])
def test_products_by_events_equal_dense_ones(density):
    pytest.importorskip("numba", reason="the Numba kernels need numba")
    generator = torch.Generator().manual_seed(15)

    def draw(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    x = draw(37, 5, 11) * (torch.rand(37, 5, 11, generator=generator) < density)
    g, weight = draw(37, 5, 7), draw(7, 11)
    out = torch.full((5, 7), torch.nan, dtype=torch.float64)
    took = sparse_product(x[0].numpy(), weight.t().contiguous().numpy(), out.numpy())
    assert took == (torch.count_nonzero(x[0]) <= 0.35 * x[0].numel())
    if took:
        torch.testing.assert_close(out, x[0] @ weight.t(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(compiled.WeightProduct(weight, 5)(x[0]), x[0] @ weight.t(), rtol=1e-12, atol=1e-12)
    want = torch.einsum("tbi,tbj->ij", g, x)
    torch.testing.assert_close(compiled.weight_gradient(g, x), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", [0, 2])
@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.6])
def test_correlations_by_events_equal_dense_ones(density, late, order):
    pytest.importorskip("numba", reason="the Numba kernels need numba")
    generator = torch.Generator().manual_seed(16)
    x = torch.randn(12, 4, 6, generator=generator, dtype=torch.float64)
    x = x * (torch.rand(12, 4, 6, generator=generator) < density)
    g = torch.randn(12 + late, 6, 4, generator=generator, dtype=torch.float64)
    for name, shape in (("line_correlation", (3, 1, 6)), ("synapse_correlation", (3, 6, 6))):
        index = torch.randint(0, 15, shape, generator=generator)
        taps = SparseTaps(index, torch.ones(shape, dtype=torch.float64), order)
        got, want = (getattr(backend, name)(x, g, taps, late) for backend in (compiled, plain))
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch, neurons", [(1, 3), (16, 17), (45, 35)])
def test_a_line_is_read_in_registers_as_in_plain_loops(batch, neurons, dtype, monkeypatch):
    pytest.importorskip("delaykit.functional.llvm.recurrence", reason="tests this file")
    generator = torch.Generator().manual_seed(19)
    history = torch.randn(20, neurons, batch, generator=generator).to(dtype)
    index, value = (draw(0, 9, (3, 1, neurons), generator=generator) for draw in (torch.randint, torch.randint))
    taps = SparseTaps(index, value.to(dtype) / 8, 0)
    for sign in (1, -1):
        found = compiled.LineReader(history, 8, taps, sign).read(11).clone()
        with monkeypatch.context() as patched:
            patched.setattr(compiled, "windows", None)
            wanted = compiled.LineReader(history, 8, taps, sign).read(11)
        tolerance = 1e-6 if dtype == torch.float32 else 1e-14
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)
        assert found.shape == (batch, neurons)


@pytest.mark.parametrize("kernel", [Linear(), Triangle(4.3)], ids=str)
@pytest.mark.parametrize("granularity", [*GRANULARITIES, None])
def test_layers_that_hardly_spike_equal_the_autograd_loop(backend, granularity, kernel):
    case = Case(17, GRANULARITIES.get(granularity), kernel, state=granularity is None, **RESETS[1])
    case.leaves["currents"] = leaf(case.leaves["currents"] - 0.5)
    case.leaves["weight"] = leaf(0.3 * case.leaves["weight"])
    assert 0 < case.run(rollout)[0].mean() < 0.1
    assert_equal_to_naive(case)
