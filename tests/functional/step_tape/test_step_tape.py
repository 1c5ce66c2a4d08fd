"""Tapes against the obvious: a python list of all inputs, filtered densely at every step by plain autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delaykit.arrivals import Gaussian, Kernel, Linear, Triangle
from delaykit.functional.delayed_linear import delayed_linear
from delaykit.functional.dispatch import backend
from delaykit.functional.step_tape import LinearTape, LineTape, ResponseTape, reference
from delaykit.functional.step_tape.filters import SynapseFilter, WideSynapseFilter, synapse_filter
from delaykit.functional.taps import Taps
from tests.functional.judging import DTYPES, WITHOUT_TRITON, assert_judged, drawn

pytestmark = pytest.mark.usefixtures("uninitialised_memory_is_nan")
KINDS = ("layer", "axonal", "dendritic", "synaptic")


@pytest.fixture
def uninitialised_memory_is_nan():
    """Make a row that is read before it was written show up in the result."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def response_step(past: list[torch.Tensor], response: torch.Tensor) -> torch.Tensor:
    """``sum_tau K[tau] x[t - tau]`` over a list whose last entry is the newest."""
    out = 0.0
    for tau in range(min(response.shape[2], len(past))):
        out = out + past[-1 - tau] @ response[:, :, tau].t()
    return out


def line_step(past: list[torch.Tensor], response: torch.Tensor) -> torch.Tensor:
    """The same a channel: response ``(channel, depth)``, inputs ``(batch, channel, *space)``."""
    out = 0.0
    for tau in range(min(response.shape[1], len(past))):
        out = out + past[-1 - tau] * response[:, tau].view(-1, *[1] * (past[0].dim() - 2))
    return out


class Case:
    """One connection with random parameters, its tape and its naive twin."""

    def __init__(
        self, kind, pre=3, post=4, max_delay=5.0, spread=0.0, bias=True, integer=False, seed=0, dtype=torch.float64
    ):
        g = torch.Generator().manual_seed(seed)
        shape = {"layer": (1, 1), "axonal": (1, pre), "dendritic": (post, 1), "synaptic": (post, pre), "line": (1, pre)}
        delay = torch.rand(shape.get(kind, (post, pre)), generator=g, dtype=torch.float64) * max_delay
        self.kind, self.max_delay, self.depth = kind, max_delay, int(max_delay + 2 * spread) + 8
        self.delay = (delay.round() if integer else delay).to(dtype).requires_grad_()
        self.spread = torch.tensor(spread, dtype=dtype, requires_grad=spread > 0)
        self.weight = torch.randn(post, pre, generator=g, dtype=torch.float64).to(dtype).requires_grad_()
        self.bias = torch.randn(post, generator=g, dtype=torch.float64).to(dtype).requires_grad_() if bias else None
        self.response = torch.randn(post, pre, 4, generator=g, dtype=torch.float64).to(dtype).requires_grad_()

    def kernel(self):
        return Triangle(self.spread) if self.spread.requires_grad else Linear()

    def taps(self) -> Taps:
        return self.kernel().taps(self.delay)

    def parameters(self) -> list[torch.Tensor]:
        if self.kind == "response":
            out = [self.response]
        else:
            out = [self.delay] + ([self.spread] if self.spread.requires_grad else [])
            out += [] if self.kind == "line" else [self.weight]
        return out + ([self.bias] if self.bias is not None and self.kind != "line" else [])

    def arguments(self) -> tuple:
        if self.kind == "line":
            return (self.taps(),)
        if self.kind == "response":
            return (self.response, self.bias)
        return (self.taps(), self.weight, self.bias)

    def tape(self, **options):
        return {"line": LineTape, "response": ResponseTape}.get(self.kind, LinearTape)(*self.arguments(), **options)

    def dense(self) -> torch.Tensor:
        if self.kind == "response":
            return self.response
        response = self.kernel().response(self.delay, self.depth)
        return response[0] if self.kind == "line" else self.weight.unsqueeze(-1) * response

    def naive_step(self, past: list[torch.Tensor], response: torch.Tensor) -> torch.Tensor:
        if self.kind == "line":
            return line_step(past, response)
        y = response_step(past, response)
        return y if self.bias is None else y + self.bias

    def naive_past(self, past: list[torch.Tensor]) -> list[torch.Tensor]:
        """What is remembered of steps without a graph: inputs, or the currents that a dendritic line delays."""
        return [(x @ self.weight.t() if self.kind == "dendritic" else x).detach() for x in past]

    def naive_after(self, past: list[torch.Tensor], now: list[torch.Tensor], response: torch.Tensor) -> torch.Tensor:
        """Go on from :meth:`naive_past`: currents keep the weight that made them."""
        if self.kind != "dendritic":
            return self.naive_step(past + now, response)
        line = self.kernel().response(self.delay)[:, 0]
        y = line_step(past + [x @ self.weight.t() for x in now], line)
        return y if self.bias is None else y + self.bias


def inputs(time=9, batch=2, pre=3, space=(), seed=1, dtype=torch.float64) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, pre, *space, generator=g, dtype=torch.float64).to(dtype).requires_grad_()
        for _ in range(time)
    ]


def loss_of(outputs: list[torch.Tensor], steps=None, seed=2) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    terms = [(y * torch.randn(y.shape, generator=g, dtype=torch.float64).to(y.dtype)).sum() for y in outputs]
    return sum(terms[t] for t in (range(len(terms)) if steps is None else steps))


def run_tape(case: Case, xs: list[torch.Tensor]) -> list[torch.Tensor]:
    tape = case.tape()
    return [tape.step(x) for x in xs]


def run_naive(case: Case, xs: list[torch.Tensor]) -> list[torch.Tensor]:
    response = case.dense()
    return [case.naive_step(xs[: t + 1], response) for t in range(len(xs))]


def assert_close(found, expected, tolerance=1e-12) -> None:
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            a, b = a.detach(), b.detach()
            torch.testing.assert_close(a, b, atol=tolerance * max(1.0, float(b.abs().max())), rtol=0)


def compare(case: Case, xs: list[torch.Tensor], steps=None, tolerance=1e-12) -> None:
    found, expected = run_tape(case, xs), run_naive(case, xs)
    assert_close(found, expected, tolerance)
    wanted = [*xs, *case.parameters()]
    assert_close(
        torch.autograd.grad(loss_of(found, steps), wanted, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(loss_of(expected, steps), wanted, allow_unused=True, materialize_grads=True),
        tolerance,
    )


@pytest.mark.parametrize("spread", [0.0, 1.5, 9.3])
@pytest.mark.parametrize("kind", [*KINDS, "line"])
def test_equals_naive_autograd(kind, spread):
    compare(Case(kind, spread=spread), inputs(time=14))


@pytest.mark.parametrize("spread", [0.0, 9.3])
@pytest.mark.parametrize("kind", [*KINDS, "line"])
def test_plain_torch_equals_naive_autograd(kind, spread):
    """The kernels for devices and installations without Numba."""
    with backend("torch"):
        compare(Case(kind, spread=spread), inputs(time=14))


@pytest.mark.parametrize("bias", [True, False])
def test_response_tape_equals_naive_autograd(bias):
    compare(Case("response", bias=bias), inputs(time=9))


@pytest.mark.parametrize("space", [(5,), (2, 3)])
@pytest.mark.parametrize("spread", [0.0, 9.3])
def test_line_of_feature_maps(space, spread):
    compare(Case("line", spread=spread), inputs(space=space))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from([*KINDS, "line"]),
    time=st.integers(1, 24),
    batch=st.integers(1, 3),
    pre=st.integers(1, 4),
    post=st.integers(1, 4),
    max_delay=st.floats(0.0, 9.0),
    integer=st.booleans(),
    spread=st.sampled_from([0.0, 0.7, 8.0]),
    bias=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_law_equals_naive_autograd(kind, time, batch, pre, post, max_delay, integer, spread, bias, seed):
    case = Case(kind, pre, post, max_delay, spread, bias, integer, seed)
    compare(case, inputs(time, batch, pre, seed=seed + 1))


@pytest.mark.parametrize("name", WITHOUT_TRITON)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kernel", [Linear(), Triangle(2.0)], ids=str)
@pytest.mark.parametrize("shape", [(1, 3), (2, 1), (2, 3)], ids=["axonal", "dendritic", "synaptic"])
def test_equals_the_judge(name: str, dtype: torch.dtype, kernel, shape: tuple[int, int]) -> None:
    """Two segments: outputs, what the first left for the second, and the gradients of both."""

    def run(x: torch.Tensor, weight: torch.Tensor, delays: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        tape = LinearTape(kernel.taps(delays), weight, bias)
        first = [tape.step(row) for row in x[:5]]
        tape.rebind(kernel.taps(delays), 2 * weight, bias)
        return torch.stack([*first, *(tape.step(row) for row in x[5:])])

    inputs = drawn(9, 2, 3), drawn(2, 3, seed=1), drawn(*shape, seed=2, scale=4.0), drawn(2, seed=3)
    assert_judged(name, dtype, run, *inputs)


@pytest.mark.parametrize("name", ["torch", "cpu"])
@pytest.mark.parametrize("kernel", [Linear(), Triangle(2.5), Gaussian(2.0), Gaussian(0.5, window=5)], ids=str)
@pytest.mark.parametrize("kept", [1.0, 0.15])
def test_many_synapses_give_the_sequence(name: str, kernel: Kernel, kept: float) -> None:
    pre, post, steps = 19, 5, 12
    x = drawn(steps, 3, pre).requires_grad_()
    weight = ((drawn(post, pre, seed=1) - 0.5) * (drawn(post, pre, seed=2) < kept)).requires_grad_()
    delay = (9 * drawn(post, pre, seed=3)).requires_grad_()
    cotangent = drawn(steps, 3, post, seed=4)
    with backend(name):
        tape = LinearTape(kernel.taps(delay), weight)
        stepped = torch.stack([tape.step(step) for step in x])
        found = torch.autograd.grad(stepped, (x, weight, delay), cotangent)
    with backend("reference"):
        judged = delayed_linear(x, weight, kernel.taps(delay))
        wanted = torch.autograd.grad(judged, (x, weight, delay), cotangent)
    torch.testing.assert_close(stepped, judged, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_wide_taps_are_one_product() -> None:
    delay, weight = 9 * drawn(5, 19), drawn(5, 19, seed=1)
    kinds = [type(synapse_filter(kernel.taps(delay), weight)) for kernel in (Gaussian(2.0), Triangle(2.5), Linear())]
    assert kinds == [WideSynapseFilter, SynapseFilter, SynapseFilter]


@pytest.mark.parametrize("ahead", [False, True], ids=["past", "future"])
@pytest.mark.parametrize("reach", [20, 4000], ids=["near", "far"])
def test_synapses_are_read_in_any_order_of_memory(reach: int, ahead: bool) -> None:
    """Long delays are read by the age of what they read, short ones output by output; rows may grow meanwhile."""
    cpu = pytest.importorskip("delaykit.functional.step_tape.numba", reason="needs Numba, the extra `fast`")
    generator = torch.Generator().manual_seed(3)
    index = torch.randint(reach, (11, 4, 2), generator=generator)
    offset, row = (index, 3) if ahead else (-index, reach + 20)
    value = torch.randn(11, 4, 2, generator=generator, dtype=torch.float64)
    kept: dict[str, Any] = {}
    for capacity in (2 * reach + 31, 3 * reach + 50):
        rows = torch.randn(11, capacity, 5, generator=generator, dtype=torch.float64)
        out, wanted = torch.full((2, 4, 5, 1), float("nan"), dtype=torch.float64)
        cpu.tape_synapses(rows, row, offset, value, out, kept)
        reference.tape_synapses(rows, row, offset, value, wanted)
        torch.testing.assert_close(out, wanted, rtol=1e-12, atol=1e-12)
    assert (kept["order"] is not None) == (reach == 4000 or cpu.vector_rows is None)
