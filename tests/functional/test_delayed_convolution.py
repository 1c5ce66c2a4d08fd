"""Delays of pairs of channels: sequence, steps and adjoint against loops, and against one convolution over time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from delaykit import backend
from delaykit.arrivals import Gaussian, Linear, Triangle
from delaykit.attaching.connection.products import convolution_of
from delaykit.errors import ShapeError
from delaykit.functional.delayed_convolution import delayed_convolution, operator
from delaykit.functional.step_tape import ConvolutionTape
from delaykit.functional.taps import Taps
from tests.functional.judging import WITHOUT_TRITON, assert_close

T, B = 7, 2
LAYERS = {
    "1d": (lambda: nn.Conv1d(4, 6, 3), (4, 6)),
    "1d-groups-stride-dilation": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2), (4, 7)),
    "1d-same": (lambda: nn.Conv1d(4, 6, 3, padding="same", bias=False), (4, 6)),
    "1d-circular": (lambda: nn.Conv1d(4, 6, 3, padding=1, padding_mode="circular"), (4, 6)),
    "2d": (lambda: nn.Conv2d(4, 6, 2, stride=(2, 1), padding=(1, 0)), (4, 3, 4)),
    "2d-depthwise": (lambda: nn.Conv2d(4, 4, 2, groups=4), (4, 3, 3)),
    "2d-depthwise-twice": (lambda: nn.Conv2d(4, 8, 2, groups=4), (4, 3, 3)),
    "3d": (lambda: nn.Conv3d(4, 6, 2), (4, 2, 3, 2)),
    "transposed-1d": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1), (4, 4)),
    "transposed-2d-groups": (lambda: nn.ConvTranspose2d(4, 6, 2, groups=2, padding=1, dilation=2), (4, 4, 3)),
}
KERNELS = {
    "between": lambda d: Linear().taps(d),
    "whole": lambda d: Linear().taps(d + (d.round() - d).detach()),
    "triangle": lambda d: Triangle(1.5, normalize=False).taps(d),
    "gaussian": lambda d: Gaussian(0.6, normalize=True).taps(d),
}


def made(name, seed=0):
    torch.manual_seed(seed)
    build, shape = LAYERS[name]
    layer = build().double()
    convolution = convolution_of(layer)
    delay = 4 * torch.rand(convolution.post, convolution.fan_in, dtype=torch.float64)
    spikes = (torch.rand(T, B, *shape) < 0.4).double() + 0.1 * torch.rand(T, B, *shape).double()
    return layer, convolution, delay.requires_grad_(), spikes.requires_grad_()


def gradients(current, layer, delay, spikes):
    probe = torch.linspace(-1, 1, current.numel(), dtype=current.dtype).view(current.shape).sin()
    wanted = [spikes, delay, *layer.parameters()]
    return torch.autograd.grad((current * probe).sum(), wanted)


@pytest.fixture(autouse=True)
def few_at_a_time(monkeypatch):
    monkeypatch.setattr(operator, "ALIVE", 400)  # so that channels come in several lots


@pytest.mark.parametrize("kernel", list(KERNELS))
@pytest.mark.parametrize("name", list(LAYERS))
def test_sequence_and_steps_are_the_loops_with_every_gradient(name, kernel):
    layer, convolution, delay, spikes = made(name)
    with backend("reference"):
        judge = delayed_convolution(spikes, convolution, KERNELS[kernel](delay), layer.bias)
    wanted = gradients(judge, layer, delay, spikes)
    assert all(bool(g.abs().max() > 0) for g in wanted)
    current = delayed_convolution(spikes, convolution, KERNELS[kernel](delay), layer.bias)
    tape = ConvolutionTape(KERNELS[kernel](delay), convolution, layer.bias)
    stepped = torch.stack([tape.step(x) for x in spikes])
    for found in (current, stepped):
        torch.testing.assert_close(found, judge, rtol=1e-9, atol=1e-9)
        for one, other in zip(gradients(found, layer, delay, spikes), wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", WITHOUT_TRITON)
def test_every_backend_equals_the_judge(name):
    layer, convolution, delay, spikes = made("2d")
    found = []
    for one in (name, "reference"):
        with backend(one):
            current = delayed_convolution(spikes, convolution, Triangle(1.5).taps(delay), layer.bias)
            found.append([current, *gradients(current, layer, delay, spikes)])
    assert_close(*found, torch.float64)


@pytest.mark.parametrize("name", [name for name in LAYERS if name in ("1d", "1d-groups-stride-dilation", "2d")])
def test_it_is_one_convolution_over_time_and_space(name):
    layer, convolution, delay, spikes = made(name)
    response = Linear().taps(delay).response(T)  # (post, fan_in, T)
    kernel = convolution.kernels()
    over_time = response.reshape(*response.shape, *[1] * (kernel.dim() - 2)).flip(2) * kernel.unsqueeze(2)
    padding, stride, dilation = (
        value if isinstance(value, tuple) else (value,) * (kernel.dim() - 2)
        for value in (layer.padding, layer.stride, layer.dilation)
    )
    x = F.pad(spikes.movedim(0, 2), [*[0, 0] * (kernel.dim() - 2), T - 1, 0])
    run = {1: F.conv2d, 2: F.conv3d}[kernel.dim() - 2]
    wanted = run(x, over_time, layer.bias, (1, *stride), (0, *padding), (1, *dilation), layer.groups).movedim(2, 0)
    found = delayed_convolution(spikes, convolution, Linear().taps(delay), layer.bias)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["1d-groups-stride-dilation", "transposed-2d-groups"])
def test_gradcheck(name):
    layer, convolution, _, spikes = made(name)
    delay = (torch.arange(convolution.post * convolution.fan_in) % 3 + 0.37).double()
    delay = delay.view(convolution.post, convolution.fan_in).requires_grad_()

    def run(x, d):
        return delayed_convolution(x, convolution, Linear().taps(d), layer.bias)

    assert torch.autograd.gradcheck(run, (spikes[:4].detach().requires_grad_(), delay), fast_mode=True)


def test_no_delay_is_the_layer_to_the_bit_in_steps():
    layer, convolution, delay, spikes = made("2d")
    zero = Taps(torch.zeros(1, *delay.shape, dtype=torch.int64), torch.ones(1, *delay.shape).double())
    tape = ConvolutionTape(zero, convolution, layer.bias)
    assert all(torch.equal(tape.step(x), layer(x)) for x in spikes)


def test_segments_go_on_with_what_is_under_way():
    layer, convolution, delay, spikes = made("1d-groups-stride-dilation")
    taps = Triangle(1.0, normalize=False).taps(delay)
    whole = ConvolutionTape(taps, convolution, layer.bias)
    wanted = torch.stack([whole.step(x) for x in spikes])
    tape, found = ConvolutionTape(taps, convolution, layer.bias), []
    for number, x in enumerate(spikes):
        if number == 3:
            tape.detach()
            tape.rebind(taps, convolution, layer.bias)
        found.append(tape.step(x))
    torch.testing.assert_close(torch.stack(found), wanted)
    assert not tape.silent() and torch.isfinite(torch.stack(found[3:]).sum()).all()
    with torch.no_grad():
        quiet = ConvolutionTape(taps, convolution, layer.bias)
        torch.testing.assert_close(torch.stack([quiet.step(x) for x in spikes]), wanted)


def kept(late, steps, channels=6):
    """Numbers that a graph of the sequence keeps alive besides its inputs and its output."""
    layer = nn.Conv1d(channels, channels, 3, padding=1)
    x = torch.rand(steps, 2, channels, 8, requires_grad=True)
    delay = torch.full((channels, channels), float(late) + 0.5, requires_grad=True)
    seen = {}

    def pack(tensor):
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = delayed_convolution(x, convolution_of(layer), Linear().taps(delay), layer.bias)
    return sum(seen.values()), x.numel() + y.numel()


def test_what_is_kept_depends_neither_on_depth_nor_on_pairs():
    (short, size), (long, _) = kept(2, 60), kept(50, 60)
    assert long == short and short < 2 * size
    assert kept(2, 60, channels=12)[0] < 3 * short  # twice the channels: four times the pairs


def test_wrong_shapes_are_told():
    layer, convolution, delay, spikes = made("1d")
    with pytest.raises(ShapeError, match="an output channel"):
        delayed_convolution(spikes, convolution, Linear().taps(delay[:, :2]), layer.bias)
    with pytest.raises(ShapeError, match="4, space"):
        delayed_convolution(spikes[:, :, :3], convolution, Linear().taps(delay), layer.bias)
    with pytest.raises(ShapeError, match="4, space"):
        ConvolutionTape(Linear().taps(delay), convolution).step(spikes[0, :, :3])
