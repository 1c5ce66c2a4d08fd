"""Laws of delay_line: equal to the dense filter in value and gradients, whatever the backend; memory; refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from delaykit.arrivals import Gaussian, Kernel, Linear, Triangle
from delaykit.errors import ShapeError
from delaykit.functional import reference
from delaykit.functional.delay_line import delay_line, numba
from delaykit.functional.delay_line import reference as judge
from delaykit.functional.dispatch import backend
from delaykit.functional.taps import Taps
from tests.functional.judging import BACKENDS as JUDGED
from tests.functional.judging import DTYPES, assert_judged, drawn

BACKENDS = ["reference", "torch", "cpu"]
KERNELS = [Linear(), Triangle(0.7), Triangle(6.3), Gaussian(1.0, window=15)]
SHAPES = [(1, 1), (1, 5), (5, 1)]


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.rand(shape, generator=generator, dtype=torch.float64)).requires_grad_()


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("space", [(), (2, 3)])
def test_equals_the_dense_filter(name: str, kernel: Kernel, shape: tuple[int, int], space: tuple[int, ...]) -> None:
    x, delays = random(13, 3, 5, *space), random(*shape, seed=1, scale=15.0)
    with torch.no_grad():
        delays[0, 0] = 4.0  # on a kink
    cotangent = random(*x.shape, seed=2).detach()
    with backend(name):
        out = delay_line(x, kernel.taps(delays))
        found = torch.autograd.grad(out, (x, delays), cotangent)
    response = kernel.response(delays, 13).flatten(0, 1).expand(5, 13)
    places = x.flatten(3).movedim(3, 0) if space else x.unsqueeze(0)
    judged = torch.stack(
        [reference.causal_convolution(p, torch.diag_embed(response.T).permute(1, 2, 0)) for p in places]
    )
    judged = judged.movedim(0, 3).reshape(x.shape)
    expected = torch.autograd.grad(judged, (x, delays), cotangent)
    torch.testing.assert_close(out, judged, atol=1e-12, rtol=0)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("channels", [16, 37, 64])
@pytest.mark.parametrize(
    ("time", "kernel"),
    [(time, kernel) for time in (1, 3, 21) for kernel in (Linear(), Triangle(1.5), Triangle(3.2))] + [(130, Linear())],
)  # taps near each other, and not
def test_many_channels_equal_the_dense_filter(time: int, channels: int, kernel: Kernel) -> None:
    x, delays = random(time, 2, channels), random(1, channels, seed=1, scale=24.0)
    cotangent = random(*x.shape, seed=2).detach()
    found = []
    for name in ("cpu", "reference"):
        with backend(name):
            out = delay_line(x, kernel.taps(delays))
            found.append((out, *torch.autograd.grad(out, (x, delays), cotangent)))
    torch.testing.assert_close(*found, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_one_pass_back_gives_what_two_give(dtype: torch.dtype) -> None:
    """Channels by blocks, the last one smaller; taps that lie apart, and beyond the sequence; a tap listed twice."""
    x, y = (random(9, 3, 45, seed=s).detach().to(dtype) for s in (0, 1))
    index = torch.randint(0, 12, (3, 45), generator=torch.Generator().manual_seed(2))
    index[1] = index[0] + 1
    index[2, ::2] = index[0, ::2]
    value = random(3, 45, seed=3).detach().to(dtype)
    value[2, ::4] = 0
    given = x.unsqueeze(3), y.unsqueeze(3), index, value
    exact = (g.double() if g.is_floating_point() else g for g in given)
    found, expected = numba.tap_gradients(*given), judge.tap_gradients(*exact)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-5 if dtype == torch.float32 else 1e-12, rtol=0)


def test_what_no_tap_reads_leaves_no_trace() -> None:
    """A number that is none passes through its own taps alone: not through those of weight 0, nor to other channels."""
    x = torch.zeros(8, 2, 40)
    x[2, 0, 7] = torch.inf
    x[6, 1, 33] = torch.nan  # arrives after the end
    taps = Linear().taps(torch.full((1, 40), 3.0))
    with backend("cpu"):
        out = delay_line(x, taps)
    assert out.isinf().nonzero().tolist() == [[5, 0, 7]] and not out.isnan().any()


@pytest.mark.parametrize("name", ["torch", "cpu"])
@pytest.mark.parametrize("kernel", [Linear(), Triangle(4.0)], ids=str)
def test_gradients_and_their_gradients(name: str, kernel: Kernel) -> None:
    x, delays = random(6, 2, 3), torch.tensor([[0.3, 2.6, 4.1]], dtype=torch.float64, requires_grad=True)
    index, value, order = kernel.taps(delays.detach())

    def filtered(x: Tensor, value: Tensor) -> Tensor:
        with backend(name):
            return delay_line(x, Taps(index, value, order))

    def delayed(x: Tensor, delays: Tensor) -> Tensor:
        with backend(name):
            return delay_line(x, kernel.taps(delays))

    assert torch.autograd.gradcheck(delayed, (x, delays))
    assert torch.autograd.gradgradcheck(filtered, (x, value.detach().requires_grad_()))


def test_delay_gradient_on_the_kink_is_two_sided() -> None:
    """An impulse at t = 0 delayed by exactly 3: moving later adds at t = 4 and takes from t = 2."""
    x = torch.zeros(6, 1, 1, dtype=torch.float64)
    x[0] = 1
    delays = torch.tensor([[3.0]], dtype=torch.float64, requires_grad=True)
    for name in BACKENDS:
        with backend(name):
            out = delay_line(x, Linear().taps(delays))
            (slope,) = torch.autograd.grad(
                out.flatten() @ torch.tensor([0, 0, 1.0, 5, 10, 0], dtype=torch.float64), delays
            )
        assert slope.item() == 9.0


@pytest.mark.parametrize("name", ["torch", "cpu"])
@pytest.mark.parametrize("kernel", [Linear(), Triangle(0.0), Triangle(torch.tensor(0.0))])
def test_zero_delay_is_the_same_bits_and_still_learns(name: str, kernel: Kernel) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(9, 2, 4, generator=generator, dtype=torch.float64)
    x = x * torch.logspace(-20, 20, 9, dtype=torch.float64)[torch.randperm(9, generator=generator), None, None]
    delays = torch.zeros(1, 4, requires_grad=True)
    with backend(name):
        out = delay_line(x, kernel.taps(delays))
        (slope,) = torch.autograd.grad(out.abs().sqrt().sum(), delays)
    assert torch.equal(out, x) and out.data_ptr() != x.data_ptr()
    assert slope.abs().min() > 0


@pytest.mark.parametrize("name", ["torch", "cpu"])
def test_running_sums_do_not_drift(name: str) -> None:
    """The bound the docstring states: float32 spikes, 2000 steps, spread 10, against float64 dense."""
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(2000, 2, 8, generator=generator) < 0.3).float()
    delays = torch.rand(1, 8, generator=generator) * 30
    taps = Triangle(10.0).taps(delays)
    with backend(name):
        found, found64 = delay_line(spikes, taps), delay_line(spikes.double(), taps)
    padded = torch.nn.functional.pad(spikes.double(), (0, 0, 0, 0, 63, 0)).unfold(0, 64, 1).flip(-1)
    expected = (padded * Triangle(10.0).response(delays.double(), 64)[0, :, :]).sum(-1)
    assert expected.max() < 1  # where half a unit in the last place of a float32 is 3e-8
    assert (found - expected).abs().max() < 3e-8 and (found64 - expected).abs().max() < 1e-11


def test_keeps_its_input_and_the_taps_only() -> None:
    x, delays = torch.rand(50, 8, 64, requires_grad=True), (torch.rand(1, 64) * 20).requires_grad_()
    taps = Linear().taps(delays)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        delay_line(x, taps)
    allowed = {t.untyped_storage().data_ptr() for t in (x, taps.index, taps.value)}
    assert x.untyped_storage().data_ptr() in kept and set(kept) <= allowed


@pytest.mark.parametrize("kernel", [Linear(), Triangle(5.0)], ids=str)
def test_half_precision_sums_in_float32(kernel: Kernel) -> None:
    x = (torch.rand(20, 2, 3, generator=torch.Generator().manual_seed(0)) < 0.5).bfloat16()
    taps = kernel.taps(torch.tensor([[0.5, 3.25, 7.0]]))
    out = delay_line(x, taps)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, delay_line(x.float(), taps).bfloat16(), atol=0, rtol=0)


@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3), (1, 1, 3)])
@pytest.mark.parametrize("name", ["torch", "cpu"])
@pytest.mark.parametrize("kernel", [Linear(), Triangle(4.0)], ids=str)
def test_empty_and_single_sequences(shape: tuple[int, ...], name: str, kernel: Kernel) -> None:
    x, delays = torch.ones(shape, requires_grad=True), torch.full((1, 3), 0.25, requires_grad=True)
    with backend(name):
        out = delay_line(x, kernel.taps(delays))
        out.sum().backward()
    assert out.shape == x.shape and torch.isfinite(delays.grad).all()


@pytest.mark.parametrize("kernel", [Linear(), Triangle(4.0)], ids=str)
def test_compiles_without_a_graph_break(kernel: Kernel) -> None:
    def loss(x: Tensor, delays: Tensor) -> Tensor:
        return delay_line(x, kernel.taps(delays)).square().sum()

    x, delays = random(7, 2, 3), random(1, 3, seed=1, scale=5.0)
    eager = torch.autograd.grad(loss(x, delays), (x, delays))
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    for one, other in zip(torch.autograd.grad(compiled(x, delays), (x, delays)), eager, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("x", "delays", "named"),
    [
        ((4, 3), (1, 3), "(4, 3)"),
        ((4, 2, 3), (1, 2), "3 channels"),
        ((4, 2, 3), (3, 3), "(3, 3)"),
        ((4, 2, 9), (3, 3), "(3, 3)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(x: tuple[int, ...], delays: tuple[int, int], named: str) -> None:
    with pytest.raises(ShapeError, match="delay_line") as error:
        delay_line(torch.zeros(x), Linear().taps(torch.zeros(delays)))
    assert named in str(error.value)


@pytest.mark.parametrize("name", JUDGED)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kernel", [Linear(), Triangle(4.0)], ids=str)
@pytest.mark.parametrize("space", [(), (2, 3)])
def test_equals_the_judge(name: str, dtype: torch.dtype, kernel: Kernel, space: tuple[int, ...]) -> None:
    inputs = drawn(13, 2, 3, *space), drawn(1, 3, seed=1, scale=15.0)
    assert_judged(name, dtype, lambda x, delays: delay_line(x, kernel.taps(delays)), *inputs)
