"""Laws of delayed_linear: the dense filter in every backend, F.linear without delay, memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from delaykit.arrivals import Gaussian, Hard, Kernel, Linear, Triangle
from delaykit.errors import ShapeError
from delaykit.functional import reference
from delaykit.functional.delayed_linear import delayed_linear
from delaykit.functional.delayed_linear import numba as rows
from delaykit.functional.dispatch import backend
from tests.functional.judging import BACKENDS, DTYPES, assert_judged, drawn, needs_vectors

TIME, BATCH, PRE, POST = 15, 3, 5, 4
SHAPES = {"layer": (1, 1), "axonal": (1, PRE), "dendritic": (POST, 1), "synaptic": (POST, PRE)}
KERNELS = [Linear(), Triangle(0.7), Triangle(6.3), Gaussian(1.0, window=15)]


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


@pytest.mark.parametrize("name", ["reference", "torch", "cpu"])
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("granularity", SHAPES)
@pytest.mark.parametrize("density", [1.0, 0.04])  # as rows, and as lists of events
def test_equals_the_dense_filter(name: str, kernel: Kernel, granularity: str, density: float) -> None:
    spikes, weight, bias = spikes_of(density), random(POST, PRE, seed=1), random(POST, seed=2)
    delays = random(*SHAPES[granularity], seed=4, scale=18.0)
    with torch.no_grad():
        delays[0, 0] = 3.0  # on a kink
    inputs = (spikes, weight, bias, delays)
    with backend(name):
        found = value_and_gradients(delayed_linear(spikes, weight, kernel.taps(delays), bias), *inputs)
    response = weight.unsqueeze(-1) * kernel.response(delays, TIME)
    assert_all_close(found, value_and_gradients(reference.causal_convolution(spikes, response) + bias, *inputs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("time", "batch"), [(3, 1), (7, 5), (40, 19), (33, 16), (150, 2)])
@pytest.mark.parametrize("kernel", [Linear(), Triangle(2.0)], ids=str)
def test_rows_of_every_length_equal_plain_torch(time: int, batch: int, kernel: Kernel, dtype: torch.dtype) -> None:
    """Pieces that fill registers, shorter ones and single numbers; a batch by shares; delays beyond the end."""
    x = random(time, batch, 21).detach()
    inputs = x, random(14, 21, seed=1).detach() - 0.5, random(14, 21, seed=2, scale=45.0).detach().round(decimals=1)
    found = []
    for name, to in (("cpu", dtype), ("torch", torch.float64)):
        given = [t.to(to).requires_grad_() for t in inputs]
        with backend(name):
            found.append(value_and_gradients(delayed_linear(given[0], given[1], kernel.taps(given[2])), *given))
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6 * (time * batch) ** 0.5
    assert_all_close(tuple(x.double() for x in found[0]), found[1], tolerance)


@needs_vectors
def test_a_row_of_the_batch_is_the_same_bits_in_any_company() -> None:
    given = random(50, 37, 9), random(6, 9, seed=1), random(6, 9, seed=2, scale=9.0)
    x, weight, delays = (t.detach().float() for t in given)
    taps = Linear().taps(delays)
    with backend("cpu"):
        together = delayed_linear(x, weight, taps)
        for rows in (slice(0, 1), slice(3, 8), slice(20, 37)):
            assert torch.equal(delayed_linear(x[:, rows], weight, taps), together[:, rows])


def test_the_sparse_case_is_really_run_as_events() -> None:
    assert rows._events(spikes_of(0.04)) is not None and rows._events(spikes_of(1.0)) is None


@pytest.mark.parametrize("name", ["torch", "cpu"])
@pytest.mark.parametrize("kernel", [Linear(), Triangle(4.0)], ids=str)
@pytest.mark.parametrize("granularity", ["dendritic", "synaptic"])
def test_gradcheck_away_from_kinks(name: str, kernel: Kernel, granularity: str) -> None:
    spikes, weight, bias = random(5, 2, 3), random(2, 3, seed=1), random(2, seed=2)
    delays = torch.tensor([[0.3, 1.6, 2.1], [3.4, 0.7, 1.2]], dtype=torch.float64)
    delays = delays[:, :1] if granularity == "dendritic" else delays

    def current(spikes: Tensor, weight: Tensor, bias: Tensor, delays: Tensor) -> Tensor:
        with backend(name):
            return delayed_linear(spikes, weight, kernel.taps(delays), bias)

    assert torch.autograd.gradcheck(current, (spikes, weight, bias, delays.clone().requires_grad_()))


@pytest.mark.parametrize("name", ["torch", "cpu"])
@pytest.mark.parametrize("kernel", [Linear(), Triangle(0.0), Triangle(torch.tensor(0.0)), Hard()], ids=str)
@pytest.mark.parametrize("granularity", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_delay_is_the_very_bits_of_linear(name: str, kernel: Kernel, granularity: str, dtype: torch.dtype) -> None:
    spikes, weight, bias = (t.to(dtype) for t in (torch.randn(30, 4, 37), torch.randn(19, 37), torch.randn(19)))
    shape = {"layer": (1, 1), "axonal": (1, 37), "dendritic": (19, 1), "synaptic": (19, 37)}[granularity]
    with backend(name):
        for some_bias in (bias, None):
            found = delayed_linear(spikes, weight, kernel.taps(torch.zeros(shape)), some_bias)
            assert torch.equal(found, F.linear(spikes, weight, some_bias))


@pytest.mark.parametrize("name", ["torch", "cpu"])
@pytest.mark.parametrize("kernel", [Linear(), Triangle(torch.tensor(0.0, dtype=torch.float64))], ids=str)
@pytest.mark.parametrize("granularity", SHAPES)
def test_no_delay_still_has_the_gradients_of_the_dense_filter(name: str, kernel: Kernel, granularity: str) -> None:
    spikes, weight = spikes_of(1.0), random(POST, PRE, seed=1)
    delays = torch.zeros(SHAPES[granularity], dtype=torch.float64, requires_grad=True)
    with backend(name):
        found = value_and_gradients(delayed_linear(spikes, weight, kernel.taps(delays)), spikes, weight, delays)
    response = weight.unsqueeze(-1) * kernel.response(delays, TIME)
    expected = value_and_gradients(reference.causal_convolution(spikes, response), spikes, weight, delays)
    assert_all_close(found, expected)
    assert found[-1].abs().min() > 1e-3


@pytest.mark.parametrize("granularity", ["axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("wanted", range(4))
def test_each_gradient_alone(granularity: str, wanted: int) -> None:
    inputs = [
        spikes_of(1.0),
        random(POST, PRE, seed=1),
        random(*SHAPES[granularity], seed=4, scale=9.0),
        random(POST, seed=2),
    ]

    def current(spikes: Tensor, weight: Tensor, delays: Tensor, bias: Tensor) -> Tensor:
        return delayed_linear(spikes, weight, Linear().taps(delays), bias)

    together = value_and_gradients(current(*inputs), *inputs)[1 + wanted]
    alone = [t if n == wanted else t.detach() for n, t in enumerate(inputs)]
    assert_all_close(value_and_gradients(current(*alone), alone[wanted])[1:], (together,))


@pytest.mark.parametrize("kernel", [Linear(), Triangle(10.0)], ids=str)
@pytest.mark.parametrize("density", [1.0, 0.02])
def test_float32_on_the_cpu_backend_stays_at_rounding(kernel: Kernel, density: float) -> None:
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(400, 8, 33, generator=generator) < density).float().requires_grad_()
    weight = torch.randn(17, 33, generator=generator).requires_grad_()
    delays = (torch.rand(17, 33, generator=generator) * 40).requires_grad_()
    double = [t.detach().double().requires_grad_() for t in (spikes, weight, delays)]
    with backend("cpu"):
        found = value_and_gradients(delayed_linear(spikes, weight, kernel.taps(delays)), spikes, weight, delays)
    with backend("torch"):
        exact = value_and_gradients(delayed_linear(*double[:2], kernel.taps(double[2])), *double)
    for one, other in zip(found, exact, strict=True):
        assert (one - other).abs().max() < 2e-5 * other.abs().max()


@pytest.mark.parametrize("granularity", SHAPES)
def test_memory_is_of_neurons_not_of_synapses(granularity: str) -> None:
    """O(TB(I+J)) and the taps: far below one number per synapse and row of the batch, let alone per step."""
    time, batch, pre, post = 40, 16, 48, 64
    spikes, weight = torch.rand(time, batch, pre, requires_grad=True), torch.rand(post, pre, requires_grad=True)
    delays = (
        torch.rand({**SHAPES, "axonal": (1, pre), "dendritic": (post, 1), "synaptic": (post, pre)}[granularity]) * 20
    ).requires_grad_()
    taps = Linear().taps(delays)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        delayed_linear(spikes, weight, taps)
    for given in (spikes, weight, taps.index, taps.value):
        kept.pop(given.untyped_storage().data_ptr(), None)
    assert sum(kept.values()) <= 4 * time * batch * pre  # what the caller did not hold anyway


SLOWLY = [pytest.param(name, marks=pytest.mark.slow) for name in SHAPES if name not in ("axonal", "synaptic")]


@pytest.mark.parametrize("kernel", [Linear(), pytest.param(Triangle(5.0), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("granularity", ["axonal", "synaptic", *SLOWLY])
def test_compiles_without_a_graph_break(granularity: str, kernel: Kernel) -> None:
    inputs = (
        spikes_of(1.0),
        random(POST, PRE, seed=1),
        random(*SHAPES[granularity], seed=4, scale=9.0),
        random(POST, seed=2),
    )

    def current(spikes: Tensor, weight: Tensor, delays: Tensor, bias: Tensor) -> Tensor:
        return delayed_linear(spikes, weight, kernel.taps(delays), bias)

    compiled = torch.compile(current, backend="aot_eager", fullgraph=True)
    assert_all_close(value_and_gradients(compiled(*inputs), *inputs), value_and_gradients(current(*inputs), *inputs))


@pytest.mark.parametrize("granularity", SHAPES)
def test_autocast_keeps_delays_in_float32(granularity: str) -> None:
    spikes, weight = spikes_of(1.0, torch.float32), random(POST, PRE, dtype=torch.float32)
    delays = random(*SHAPES[granularity], scale=5.0, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = delayed_linear(spikes, weight, Linear().taps(delays))
    out.float().sum().backward()
    assert delays.grad.dtype == torch.float32
    exact = delayed_linear(spikes, weight, Linear().taps(delays))
    torch.testing.assert_close(out.float(), exact, atol=0.05, rtol=0.02)


def test_more_than_one_thread_gives_the_same_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    spikes, weight = torch.rand(100, 16, 40, generator=generator), torch.randn(30, 40, generator=generator)
    taps, threads = Linear().taps(torch.rand(30, 40, generator=generator) * 9), torch.get_num_threads()
    results = []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            with backend("cpu"):
                results.append(delayed_linear(spikes, weight, taps))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("spikes", "weight", "delays", "bias"),
    [
        ((5, 3), (4, 3), (1, 3), None),
        ((5, 2, 3), (4, 2), (1, 3), None),
        ((5, 2, 3), (4, 3), (3, 3), None),
        ((5, 2, 3), (4, 3), (1, 3), 3),
    ],
)
def test_shapes_that_do_not_fit_are_refused(spikes, weight, delays, bias) -> None:  # type: ignore[no-untyped-def]
    bias = None if bias is None else torch.zeros(bias)
    with pytest.raises(ShapeError, match="delayed_linear"):
        delayed_linear(torch.zeros(spikes), torch.zeros(weight), Linear().taps(torch.zeros(delays)), bias)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kernel", [Linear(), Triangle(4.0)], ids=str)
@pytest.mark.parametrize("granularity", SHAPES)
def test_equals_the_judge(name: str, dtype: torch.dtype, kernel: Kernel, granularity: str) -> None:
    delays = drawn(*SHAPES[granularity], seed=2, scale=15.0)
    inputs = drawn(TIME, BATCH, PRE), drawn(POST, PRE, seed=1), delays, drawn(POST, seed=3)
    assert_judged(name, dtype, lambda x, w, d, bias: delayed_linear(x, w, kernel.taps(d), bias), *inputs)
