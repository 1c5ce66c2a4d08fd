"""tapped_linear and its adjoint against the dense convolution, in every backend, sparse and dense."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from delaykit import ShapeError, backend
from delaykit.functional.reference import causal_convolution
from delaykit.functional.step_tape import ResponseTape
from delaykit.plugins import registry
from delaykit_motifs import tapped_correlation, tapped_linear
from delaykit_motifs.backends import numba as events
from delaykit_motifs.backends import torch as plain
from delaykit_motifs.config import Motif
from delaykit_motifs.operators import bank_of
from delaykit_motifs.tape import TappedTape

DENSITIES = [0.0, 0.03, 0.5, 1.0]


def example(density: float, time: int = 12, batch: int = 3, pre: int = 5, post: int = 4, depth: int = 6, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    spikes = torch.randn(time, batch, pre, generator=generator, dtype=torch.float64)
    spikes = spikes * (torch.rand(spikes.shape, generator=generator) < density)
    if 0 < density < 0.1:
        spikes[1, 0, 0] = 1.5
    taps = torch.randn(post, pre, depth, generator=generator, dtype=torch.float64)
    bias = torch.randn(post, generator=generator, dtype=torch.float64)
    return spikes.requires_grad_(), taps.requires_grad_(), bias.requires_grad_()


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("name", ["torch", "cpu", None])
def test_operator_and_gradients_equal_the_dense_convolution(density: float, name: str | None) -> None:
    leaves = example(density)
    wanted = causal_convolution(*leaves[:2]) + leaves[2]
    weight = torch.randn(wanted.shape, dtype=torch.float64)
    one = torch.autograd.grad((wanted * weight).sum(), leaves)
    if name is None:
        found = tapped_linear(*leaves)
        two = torch.autograd.grad((found * weight).sum(), leaves)
    else:
        with backend(name):
            found = tapped_linear(*leaves)
            two = torch.autograd.grad((found * weight).sum(), leaves)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    for a, b in zip(two, one, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_taps_that_are_zero_one_step_late_and_not_two_are_no_bare_layer() -> None:
    spikes, taps = torch.tensor([1.0, 0.0, 0.0, 1.0]).reshape(4, 1, 1), torch.tensor([[[3.0, 0.0, 1.0]]])
    assert tapped_linear(spikes, taps).flatten().tolist() == [3.0, 0.0, 1.0, 3.0]


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("name", ["torch", "cpu"])
@pytest.mark.parametrize("depth", [1, 6, 15])
def test_each_operator_equals_its_own_judge(depth: int, name: str, density: float) -> None:
    spikes, taps, _ = example(density, depth=depth)
    x, bank = spikes.detach(), bank_of(taps.detach())
    y = torch.randn(12, 3, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    rows = torch.cat([x.new_zeros(depth - 1, 3, 5), x]).permute(2, 0, 1).contiguous()
    given = {
        "tapped_linear": (x, bank), "tapped_adjoint": (y, bank), "tapped_correlation": (x, y, depth),
        "window_read": (rows, depth + 2, bank),
    }  # fmt: skip
    for operator, arguments in given.items():
        judge, run = (registry.implementation(f"motifs_{operator}", one) for one in ("reference", name))
        wanted = judge(*arguments)
        assert density < 0.1 or wanted.any(), operator
        torch.testing.assert_close(run(*arguments), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("density", [0.03, 1.0])
def test_gradcheck(density: float) -> None:
    assert torch.autograd.gradcheck(tapped_linear, example(density, time=7, batch=2, pre=3, post=2, depth=3))


@settings(max_examples=40, deadline=None)
@given(*(st.integers(*bounds) for bounds in ((0, 9), (0, 3), (1, 5), (1, 4), (1, 12), (0, 99))))
def test_any_size_equals_the_dense_convolution(
    time: int, batch: int, pre: int, post: int, depth: int, seed: int
) -> None:
    spikes, taps, bias = example(0.3 if seed % 2 else 0.05, max(time, 2), max(batch, 1), pre, post, depth, seed)
    spikes = spikes[:time, :batch]
    torch.testing.assert_close(
        tapped_linear(spikes, taps, bias), causal_convolution(spikes, taps) + bias, rtol=1e-11, atol=1e-11
    )


def test_events_and_products_agree_where_either_could_run() -> None:
    spikes, taps, _ = example(0.06, time=40, pre=20, depth=9)
    assert 0 < torch.count_nonzero(spikes) < events.EVENT_DENSITY * spikes.numel(), "the events were not tested"
    bank, y = bank_of(taps.detach()), torch.randn(40, 3, 4, dtype=torch.float64)
    pairs = [
        (events.tapped_linear(spikes, bank), plain.tapped_linear(spikes.detach(), bank)),
        (events.tapped_correlation(spikes, y, 9), plain.tapped_correlation(spikes.detach(), y, 9)),
    ]
    sparse = y * (torch.rand(y.shape, generator=torch.Generator().manual_seed(1)) < 0.03)
    assert 0 < torch.count_nonzero(sparse) < events.SPARSE_TARGET * y.numel(), "the pairs of events were not tested"
    pairs.append((events.tapped_correlation(spikes, sparse, 9), plain.tapped_correlation(spikes.detach(), sparse, 9)))
    for found, wanted in pairs:
        assert wanted.any()
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_threads_do_not_change_a_bit() -> None:
    spikes, taps, _ = example(0.05, time=200, batch=4, pre=64, post=32, depth=21)
    alone = tapped_linear(spikes, taps), tapped_correlation(spikes, tapped_linear(spikes, taps), 21)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        shared = tapped_linear(spikes, taps), tapped_correlation(spikes, alone[0], 21)
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, alone, shared))


def test_without_later_taps_it_is_linear_to_the_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(7, 11, generator=generator), torch.randn(7, generator=generator)
    taps = F.pad(weight.unsqueeze(-1), (0, 4))
    spikes = (torch.rand(9, 3, 11, generator=generator) < 0.3).float()
    assert torch.equal(tapped_linear(spikes, taps, bias), F.linear(spikes, weight, bias))
    tape = TappedTape(taps, bias, bare=weight)
    assert all(torch.equal(tape.step(x), F.linear(x, weight, bias)) for x in spikes)


@pytest.mark.parametrize("density", [0.04, 0.8])
def test_steps_equal_the_general_tape_with_gradients(density: float) -> None:
    leaves = example(density, time=30, batch=2, pre=12, depth=7)
    tapes = TappedTape(leaves[1], leaves[2]), ResponseTape(leaves[1], leaves[2])
    found, wanted = (torch.stack([tape.step(x) for x in leaves[0]]) for tape in tapes)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    weight = torch.randn(wanted.shape, dtype=torch.float64)
    one, two = (torch.autograd.grad((y * weight).sum(), leaves) for y in (found, wanted))
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_later_segment_remembers_spikes_but_not_their_graph() -> None:
    spikes, taps, bias = example(0.3, time=20, batch=2, pre=12, depth=7)
    tape = TappedTape(taps, bias)
    for x in spikes[:12]:
        tape.step(x)
    tape.detach()
    tape.rebind(taps, bias)
    found = torch.stack([tape.step(x) for x in spikes[12:]])
    past = torch.cat([spikes[:12].detach(), spikes[12:]])
    wanted = (causal_convolution(past, taps) + bias)[12:]
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    one, two = (torch.autograd.grad(y.square().sum(), (spikes, taps, bias)) for y in (found, wanted))
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
    assert not one[0][:12].any()


def test_correlation_is_the_adjoint() -> None:
    spikes, taps, _ = example(0.3)
    y = torch.randn(12, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(
        (tapped_linear(spikes, taps) * y).sum(), (tapped_correlation(spikes, y, 6) * taps).sum(), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize(
    "spikes, taps, bias",
    [((4, 2), (3, 2, 1), None), ((4, 1, 2), (3, 1, 1), None), ((4, 1, 2), (3, 2, 0), None), ((4, 1, 2), (3, 2, 1), 2)],
)
def test_shapes_that_do_not_fit_are_named(spikes: tuple, taps: tuple, bias: int | None) -> None:
    with pytest.raises(ShapeError, match="expected"):
        tapped_linear(torch.zeros(spikes), torch.zeros(taps), None if bias is None else torch.zeros(bias))


@pytest.mark.parametrize("values", [{"depth": 0}, {"depth": 2.0}, {"depth": True}, {"depth": 3, "scale": -1.0}])
def test_configs_out_of_range_are_refused(values: dict) -> None:
    with pytest.raises(ValueError, match="expected"):
        Motif(**values)


def test_compiled_operator_has_no_graph_break() -> None:
    leaves = example(0.3)
    torch.compiler.reset()
    compiled = torch.compile(lambda *x: tapped_linear(*x).square().sum(), backend="eager", fullgraph=True)
    found = torch.autograd.grad(compiled(*leaves), leaves)
    wanted = torch.autograd.grad(tapped_linear(*leaves).square().sum(), leaves)
    assert all(map(torch.equal, found, wanted))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_by_products(dtype: torch.dtype) -> None:
    spikes, taps, bias = (x.detach().to(dtype) for x in example(0.03, time=30))
    found = tapped_linear(spikes, taps, bias)
    wanted = causal_convolution(spikes.double(), taps.double()) + bias.double()
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), wanted, rtol=0.02, atol=0.05)
