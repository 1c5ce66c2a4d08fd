"""DCLS: the window cuts both ends, wide kernels run by transforms, and the published package agrees where installed."""

from __future__ import annotations

import pytest
import torch

import delaykit as dk
from delaykit.arrivals import Gaussian
from delaykit.functional.reference import causal_convolution
from delaykit.interfaces import Site
from delaykit.synapse import Product, Synapse
from delaykit.testing.faults.second_derivatives import check_second_derivatives
from delaykit_delrec import DCLS
from delaykit_delrec.spectral import SpectralEngine, early_response, spectral_convolution
from delaykit_delrec.windowed import WindowedTriangle

POST, PRE = 4, 5


def synapse(config: DCLS, dtype: torch.dtype = torch.float64) -> tuple[Synapse, Product]:
    generator = torch.Generator().manual_seed(0)
    made = Synapse(Site("fc", PRE, POST), (config,), generator).to(dtype)
    weight = torch.randn(POST, PRE, generator=generator, dtype=dtype).requires_grad_()
    return made, Product(None, None, weight, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("time", "depth"), [(1, 1), (7, 3), (20, 20), (31, 12), (5, 9)])
def test_a_spectral_convolution_is_the_causal_one_with_its_gradients(time: int, depth: int) -> None:
    generator = torch.Generator().manual_seed(1)
    spikes = torch.randn(time, 3, PRE, generator=generator, dtype=torch.float64).requires_grad_()
    response = torch.randn(POST, PRE, depth, generator=generator, dtype=torch.float64).requires_grad_()
    cotangent = torch.randn(time, 3, POST, generator=generator, dtype=torch.float64)
    found, wanted = spectral_convolution(spikes, response), causal_convolution(spikes, response)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)
    one, two = (torch.autograd.grad(current, (spikes, response), cotangent) for current in (found, wanted))
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_a_spectral_convolution_is_causal_to_rounding() -> None:
    generator = torch.Generator().manual_seed(8)
    spikes = torch.randn(30, 3, PRE, generator=generator, dtype=torch.float64).requires_grad_()
    response = torch.randn(POST, PRE, 12, generator=generator, dtype=torch.float64)
    current = spectral_convolution(spikes, response)
    (late,) = torch.autograd.grad(current[:15].sum(), spikes)
    assert float(late[15:].abs().max()) < 1e-14 * 30 and float(late[:15].abs().min()) > 1e-3


@pytest.mark.parametrize("version", ["gauss", "max"])
@pytest.mark.parametrize("time", [6, 40])
def test_a_wide_kernel_equals_its_impulse_response_in_sequences_and_steps(version: str, time: int) -> None:
    made, product = synapse(DCLS(25, version=version))
    engine = made.engine(product)
    assert isinstance(engine, SpectralEngine)
    spikes = torch.randn(time, 2, PRE, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    wanted = causal_convolution(spikes, made.impulse_response(product.weight, time))
    tape = engine.tape()
    leaves = (spikes, product.weight, made.delay.delay)
    cotangent = torch.randn(wanted.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    expected = torch.autograd.grad(wanted, leaves, cotangent)
    for found in (engine.sequence(spikes), torch.stack([engine.step(tape, x) for x in spikes])):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
        for a, b in zip(torch.autograd.grad(found, leaves, cotangent), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_a_narrow_kernel_leaves_the_transforms_alone() -> None:
    made, product = synapse(DCLS(25, version="max"))
    made.delay.advance_(1.0)
    assert not isinstance(made.engine(product), SpectralEngine)


@pytest.mark.parametrize("sigma", [0.23, 3.0, 40.0])
def test_the_first_steps_of_a_long_window_are_those_of_the_whole(sigma: float) -> None:
    delays = (
        torch.rand(POST, PRE, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) * 80
    ).requires_grad_()
    kernel = Gaussian(sigma, window=81)
    found, wanted = early_response(kernel, delays, 20), kernel.response(delays)[..., :20]
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)
    cotangent = torch.randn(wanted.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    one, two = (torch.autograd.grad(response, delays, cotangent) for response in (found, wanted))
    torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("spread", [0.0, 1.3, 5.0, 30.0])
def test_the_windowed_triangle_says_the_same_densely_and_sparsely(spread: float, normalize: bool) -> None:
    delays = torch.tensor([[0.0, 0.4, 3.0, 7.6, 9.9, 10.0]], dtype=torch.float64, requires_grad=True)
    kernel = WindowedTriangle(spread, 11, normalize)
    wanted, taps = kernel.response(delays), kernel.taps(delays)
    torch.testing.assert_close(taps.response(11), wanted, rtol=1e-12, atol=1e-12)
    assert not taps.response(13)[..., 11:].any(), "the window was left"
    cotangent = torch.randn(wanted.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    one, two = (torch.autograd.grad(r, delays, cotangent)[0] for r in (taps.response(11), wanted))
    torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-11)
    if normalize:
        torch.testing.assert_close(wanted.sum(-1), torch.ones_like(delays), rtol=0, atol=2e-7)


def test_whole_delays_without_spread_are_one_tap_for_every_version() -> None:
    for version in ("gauss", "max", "v1"):
        made, product = synapse(DCLS(9, version=version))
        made.delay.discretize_()
        response = made.impulse_response(product.weight)
        assert ((response != 0).sum(-1) == 1).all()
        torch.testing.assert_close(response.sum(-1), product.weight, rtol=2e-7, atol=0)


@pytest.mark.parametrize(("version", "sigma"), [("gauss", 6.0), ("gauss", 0.23), ("max", 4.0), ("v1", 0.0)])
def test_the_published_package_agrees(version: str, sigma: float) -> None:
    modules = pytest.importorskip("DCLS.construct.modules", reason="dcls lives in the benchmark environment")
    size, time = 13, 30
    generator = torch.Generator().manual_seed(7)
    position = torch.randint(-6, 6, (1, POST, PRE, 1), generator=generator)
    position = position + torch.randint(1, 8, (1, POST, PRE, 1), generator=generator) / 8  # off the kinks
    theirs = modules.Dcls1d(PRE, POST, 1, dilated_kernel_size=size, bias=False, version=version)
    with torch.no_grad():
        theirs.P.copy_(position)
        if version != "v1":
            theirs.SIG.fill_(sigma)
    made, _ = synapse(DCLS(size, version=version, sigma=sigma or None), torch.float32)
    made.delay.delay.data = 6 - position[0, ..., 0]
    weight = theirs.weight.detach()[..., 0].clone().requires_grad_()
    spikes = (torch.rand(time, 2, PRE, generator=generator) < 0.3).float().requires_grad_()
    wanted = theirs(torch.nn.functional.pad(spikes.permute(1, 2, 0), (size - 1, 0))).permute(2, 0, 1)
    found = made.engine(Product(None, None, weight, None)).sequence(spikes)  # type: ignore[arg-type]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    one = torch.autograd.grad(found.square().sum(), (spikes, weight, made.delay.delay))
    two = torch.autograd.grad(wanted.square().sum(), (spikes, theirs.weight, theirs.P))
    for a, b in zip(one, (two[0], two[1][..., 0], -two[2][0, ..., 0]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))


@pytest.mark.parametrize("version", ["gauss", "max"])
def test_the_published_package_agrees_on_delays_in_convolutions(version: str) -> None:
    """Its Dcls3_1d: two dense dimensions, one of delays; here a delay a pair of channels, for the whole kernel."""
    modules = pytest.importorskip("DCLS.construct.modules", reason="dcls lives in the benchmark environment")
    size, time = 9, 12
    generator = torch.Generator().manual_seed(8)
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3, bias=False))
    config = DCLS(size, version=version, sigma=2.0)
    dk.wrap_(net, {"0": dk.At(config, time_dim=0, reset="root")}, generator=generator)
    delay, weight = net[0].dk.delay.delay, net[0].weight
    theirs = modules.Dcls3_1d(2, 4, 1, dense_kernel_size=(3, 3), dilated_kernel_size=size, bias=False, version=version)
    with torch.no_grad():
        delay.copy_(torch.rand(4, 2, generator=generator) * 6 + 1)
        theirs.weight.copy_(weight[..., None])
        theirs.P.copy_((size // 2 - delay)[None, :, :, None, None, None].expand_as(theirs.P))
        theirs.SIG.fill_(2.0)
    x = (torch.rand(time, 3, 2, 6, 6, generator=generator) < 0.3).float().requires_grad_()
    padded = torch.nn.functional.pad(x.permute(1, 2, 3, 4, 0), (size - 1, 0))
    wanted = theirs(padded).permute(4, 0, 1, 2, 3)
    found = net[0](x)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    one = torch.autograd.grad(found.square().sum(), (x, weight, delay))
    two = torch.autograd.grad(wanted.square().sum(), (x, theirs.weight, theirs.P))
    for a, b in zip(one, (two[0], two[1][..., 0], -two[2][0, ..., 0].sum((2, 3))), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))


def test_second_derivatives_of_a_spectral_convolution_are_refused_on_every_way() -> None:
    spikes, response = (torch.rand(5, 2, PRE).double().requires_grad_(), torch.rand(POST, PRE, 3).double())
    check_second_derivatives(lambda: spectral_convolution(spikes, response), [spikes, response.requires_grad_()])
