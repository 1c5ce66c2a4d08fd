"""Law: the sparse taps of a kernel say the same as its dense response, in value and in every gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from delaykit.arrivals import Gaussian, Hard, Kernel, Linear, Triangle
from delaykit.errors import ConfigError
from delaykit.functional.taps import Taps

DEPTH = 48
# integers and halves sit on kinks; the rest does not
DELAY = st.one_of(st.integers(0, 12).map(float), st.integers(0, 24).map(lambda n: n / 2), st.floats(0, 12))
SPREAD = st.one_of(st.integers(0, 12).map(float), st.sampled_from([0.06, 0.5, 1.5, 2.4, 2.6, 7.25]), st.floats(0, 12))


def gradients(out: torch.Tensor, *inputs: torch.Tensor) -> list[torch.Tensor]:
    cotangent = torch.sin(torch.arange(out.numel(), dtype=out.dtype)).reshape(out.shape)
    return [
        torch.zeros_like(i) if g is None else g
        for i, g in zip(
            inputs,
            torch.autograd.grad(out, inputs, cotangent, allow_unused=True)
            if out.requires_grad
            else [None] * len(inputs),
            strict=True,
        )
    ]


def assert_same(kernel: Kernel, delays: torch.Tensor, *inputs: torch.Tensor) -> None:
    dense, taps = kernel.response(delays, DEPTH), kernel.taps(delays)
    sparse = taps.response(DEPTH)
    torch.testing.assert_close(sparse, dense, atol=1e-12, rtol=0)
    for found, expected in zip(gradients(sparse, *inputs), gradients(dense, *inputs), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-11, rtol=1e-11)
    assert taps.index.dtype == torch.int64 and int(taps.index.min()) >= 0
    if taps.order == 2:
        assert int((taps.value != 0).sum(0).max()) <= 6


def kernels(spread: float | torch.Tensor) -> list[Kernel]:
    return [
        Triangle(spread),
        Triangle(spread, normalize=True),
        Gaussian(spread, window=40),
        Gaussian(spread, normalize=False, window=20),
    ]


@example([4.0], 11.999999999999998)  # d + s rounds to 17, s - abs(17 - d) is not 0
@settings(deadline=None)
@given(st.lists(DELAY, min_size=1, max_size=4), SPREAD)
def test_taps_equal_response_for_number_spreads(delays: list[float], spread: float) -> None:
    d = torch.tensor([delays], dtype=torch.float64, requires_grad=True)
    for kernel in [Linear(), Linear(normalize=True), Hard(), *kernels(spread)]:
        assert_same(kernel, d, d)


@settings(deadline=None)
@given(st.lists(st.tuples(DELAY, SPREAD), min_size=1, max_size=4))
def test_taps_equal_response_for_learned_spreads(pairs: list[tuple[float, float]]) -> None:
    d = torch.tensor([[p[0] for p in pairs]], dtype=torch.float64, requires_grad=True)
    spread = torch.tensor([[p[1] for p in pairs]], dtype=torch.float64, requires_grad=True)
    for kernel in kernels(spread):
        assert_same(kernel, d, d, spread)


@pytest.mark.parametrize(
    "kernel", [Linear(), Triangle(0.3), Triangle(4.0), Triangle(10.0), Triangle(4.5, normalize=True)]
)
def test_float32_taps_stay_close_to_the_float64_response(kernel: Kernel) -> None:
    d = torch.rand(6, 7) * 20
    torch.testing.assert_close(kernel.taps(d).response(60).double(), kernel.response(d.double(), 60), atol=1e-6, rtol=0)


def test_gradient_at_an_integer_delay_counts_both_sides() -> None:
    d = torch.tensor([[3.0]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(
        Linear().taps(d).response(6)[0, 0] @ torch.tensor([0, 0, 1.0, 0, 10.0, 0], dtype=torch.float64), d
    )
    assert slope.item() == 9.0  # +1 at tau = 4, -1 at tau = 2


@pytest.mark.parametrize(
    ("spread", "delay", "total"), [(0.0592, 5.0, 1.0496), (3.0, 1.0, 0.8125), (10.0, 0.0, 6 / 11), (0.0, 2.5, 1.0)]
)
def test_triangle_sums_of_the_paper(spread: float, delay: float, total: float) -> None:
    """DelRec's kernel is not renormalised (specs: .0528 .9441 .0528 at sigma .0592)."""
    d = torch.tensor([[delay]], dtype=torch.float64)
    # the published clock has an arrival at 1 + d and drops tau = 0; ours has one at d and keeps it
    assert Triangle(spread).response(d).sum().item() == pytest.approx(total, abs=6e-5)


def test_depth_counts_to_the_last_response() -> None:
    d = torch.tensor([[0.0, 2.5]], dtype=torch.float64)
    for kernel in [Linear(), Triangle(1.25), Triangle(10.5), Triangle(torch.tensor(3.0))]:
        dense = kernel.response(d)
        assert kernel.taps(d).depth() == int(dense.ne(0).any(1).any(0).nonzero().max()) + 1
        assert kernel.depth(2.5) == dense.shape[-1]
    assert Linear().taps(d).memory() == 4
    assert Taps(torch.zeros(1, 1, 1, dtype=torch.int64), torch.zeros(1, 1, 1)).depth() == 0


def test_identity_means_exactly_one_at_zero() -> None:
    zero = torch.zeros(2, 3)
    assert all(
        k.taps(zero).is_identity()
        for k in [Linear(), Hard(), Triangle(0.0), Triangle(torch.tensor(0.0)), Triangle(torch.zeros(1, 3))]
    )
    assert not any(
        k.taps(zero).is_identity() for k in [Linear(normalize=True), Triangle(0.1), Triangle(3.0), Gaussian(0.0)]
    )
    one = zero.clone()
    one[1, 2] = 1e-6
    assert not any(k.taps(one).is_identity() for k in [Linear(), Triangle(0.0), Triangle(torch.tensor(0.0))])
    one[1, 2] = 1
    assert not any(k.taps(one).is_identity() for k in [Linear(), Hard(), Triangle(0.0), Triangle(torch.tensor(0.0))])


def test_depth_argument_cuts_and_pads_but_changes_no_value() -> None:
    d = torch.tensor([4.5, 0.2], dtype=torch.float64)
    for kernel in [Linear(True), Triangle(2.0, True), Gaussian(1.0), Hard()]:
        full = kernel.response(d)
        long = kernel.response(d, full.shape[-1] + 3)
        torch.testing.assert_close(kernel.response(d, 3), full[:, :3], atol=0, rtol=0)
        assert torch.equal(long[:, : full.shape[-1]], full) and not long[:, full.shape[-1] :].any()


def test_number_of_taps_depends_on_the_spread_only() -> None:
    d = torch.zeros(1, 2)
    assert [Triangle(s).taps(d).index.shape[0] for s in (0.0, 0.4, 1.0, 2.4, 2.5, 40.0)] == [3, 3, 5, 7, 9, 9]
    assert Triangle(torch.tensor(0.0)).taps(d).index.shape[0] == 9
    assert [Gaussian(s, window=50).taps(d).index.shape[0] for s in (0.0, 9.0)] == [
        2 * math.ceil(6 * 0.27) + 1,
        50,
    ]


def test_hard_rounds_and_passes_no_gradient() -> None:
    d = torch.tensor([[1.4, 1.6]], requires_grad=True)
    taps = Hard().taps(d)
    assert taps.index.flatten().tolist() == [1, 2] and not taps.value.requires_grad


@pytest.mark.parametrize("kernel", [Linear(), Triangle(0.5), Triangle(9.0), Gaussian(1.0, window=12), Hard()])
def test_taps_trace_without_a_graph_break(kernel: Kernel) -> None:
    d = (torch.rand(2, 3, dtype=torch.float64) * 9).requires_grad_()
    eager, traced = kernel.taps(d), torch.compile(kernel.taps, backend="eager", fullgraph=True)(d)
    assert torch.equal(eager.index, traced.index) and torch.equal(eager.value, traced.value)


@pytest.mark.parametrize(
    "make",
    [lambda: Triangle(-0.1), lambda: Triangle(math.nan), lambda: Gaussian(math.inf), lambda: Gaussian(1.0, window=0)],
)
def test_impossible_kernels_are_refused(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError):
        make()
