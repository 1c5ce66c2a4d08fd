"""What a component's methods answer is looked at before anything runs on it, and told by the method's name."""

import dataclasses
from typing import ClassVar

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.arrivals import Linear
from delaykit.functional.step_tape import ResponseTape
from delaykit.interfaces import ComponentConfig, Delay, Heterogeneity, PointDelay

WRONG = {
    "none": lambda x: None,
    "number": lambda x: 3.0,
    "text": lambda x: "late",
    "complex": lambda x: x.to(torch.complex64),
    "truths": lambda x: x > 0,
    "flat": lambda x: x.flatten(),
}


def point(delays=lambda x: x, kernel=lambda x: x):
    class Point(PointDelay):
        granularity = "axonal"

        def delays(self):
            return delays(torch.ones(1, 6))

        def kernel(self):
            return kernel(Linear())

    return config("delay", Point)


def response(change):
    class Any(Delay):
        def impulse_response(self, weight):
            return change(torch.stack([torch.zeros_like(weight), weight], 2))

    return config("delay", Any)


def lingering(change):
    class Lingers(Heterogeneity):
        def decay(self):
            return change(torch.full((4, 6), 0.5))

    return config("heterogeneity", Lingers)


def config(of, part):
    @dataclasses.dataclass(frozen=True)
    class Murk(ComponentConfig):
        kind: ClassVar[str] = of
        name: ClassVar[str] = "murk"

        def build(self, site, generator=None):
            return part()

    return Murk()


class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        return torch.stack([self.fc(step) for step in x])


def run(component, time_dim=None):
    torch.manual_seed(0)
    net, x = Loop(), (torch.rand(8, 3, 6) < 0.5).float()
    if time_dim is not None:
        net = nn.Sequential(net.fc)
    rule = dk.At(component, time_dim=time_dim) if time_dim is not None else component
    dk.wrap_(net, {"*": rule}, example=x)
    y = net(x)
    y.sum().backward()
    return x, y


@pytest.mark.parametrize("time_dim", [None, 0])
@pytest.mark.parametrize("make", [lambda same: point(same), response, lingering], ids=["delays", "response", "decay"])
def test_right_answers_run(make, time_dim):
    assert run(make(lambda x: x), time_dim)[1].shape == (8, 3, 4)


@pytest.mark.parametrize("time_dim", [None, 0])
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("make", [lambda bad: point(bad), response, lingering], ids=["delays", "response", "decay"])
def test_wrong_answers_are_told_by_the_method(make, wrong, time_dim):
    with pytest.raises((dk.PluginError, dk.ShapeError), match=r"(delays|impulse_response|decay)\(\)"):
        run(make(WRONG[wrong]), time_dim)


@pytest.mark.parametrize("time_dim", [None, 0])
def test_a_kernel_that_is_none(time_dim):
    with pytest.raises(dk.PluginError, match=r"kernel\(\)"):
        run(point(kernel=lambda x: None), time_dim)


@pytest.mark.parametrize("time_dim", [None, 0])
@pytest.mark.parametrize("backend", ["cpu", "torch", "reference"])
def test_a_response_of_no_step_is_refused(backend, time_dim):
    """The step tape wrote beside its memory."""
    with dk.backend(backend), pytest.raises(dk.ShapeError, match="one step at least"):
        run(response(lambda x: x[..., :0]), time_dim)


def test_a_tape_without_a_step_is_refused():
    tape = ResponseTape(torch.zeros(4, 6, 0))
    with pytest.raises(dk.ShapeError, match="one step at least"):
        tape.step(torch.ones(2, 6))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_a_response_of_another_dtype_is_the_delays_fault(dtype):
    with pytest.raises(dk.PluginError, match=r"impulse_response\(\)"):
        run(response(lambda x: x.to(dtype)))
