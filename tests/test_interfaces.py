"""What a component's methods answer is looked at before anything runs on it, and told by the method's name."""

import dataclasses
from typing import ClassVar

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.arrivals import Linear, Triangle
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


def point(delays=lambda x: x, kernel=lambda x: x, **members):
    class Point(PointDelay):
        granularity = "axonal"

        def delays(self):
            return delays(torch.ones(1, 6))

        def kernel(self):
            return kernel(Linear())

    return config("delay", type("Point", (Point,), members) if members else Point)


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


NOT_FINITE = {"nan": lambda x: x * float("nan"), "inf": lambda x: x + float("inf")}


@pytest.mark.parametrize("time_dim", [None, 0])
@pytest.mark.parametrize("wrong", NOT_FINITE)
@pytest.mark.parametrize("make", [lambda bad: point(bad), response, lingering], ids=["delays", "response", "decay"])
def test_numbers_that_are_not_finite_are_refused(make, wrong, time_dim):
    with pytest.raises(dk.DelayRangeError, match="NaN"):
        run(make(NOT_FINITE[wrong]), time_dim)


def test_a_weight_that_is_nan_is_not_the_components_fault():
    net, x = Loop(), torch.ones(3, 1, 6)
    dk.wrap_(net, {"*": response(lambda x: x)}, example=x)
    with torch.no_grad():
        net.fc.weight[0, 0] = float("nan")
    assert net(x)[1:, 0].isnan().tolist() == [[True, False, False, False]] * 2


@pytest.mark.parametrize(
    "spread", [torch.tensor(float("nan")), torch.tensor([1.0] * 5 + [float("inf")]), torch.tensor(-0.5)],
    ids=["nan", "inf", "negative"],
)  # fmt: skip
@pytest.mark.parametrize("time_dim", [None, 0])
def test_a_spread_that_cannot_be(spread, time_dim):
    with pytest.raises(dk.DelayRangeError, match=r"Point\.kernel\(\): found a .*spread"):
        run(point(kernel=lambda x: Triangle(spread)), time_dim)


@pytest.mark.parametrize(
    "name, value", [("granularity", "banana"), ("granularity", None), ("estimator", "guess"), ("dropout", 1.0)]
)
def test_an_attribute_that_cannot_be_is_told(name, value):
    with pytest.raises(dk.PluginError, match=rf"Point\.{name}: found {value!r}"):
        run(point(**{name: value}))


@pytest.mark.parametrize("granularity, shape", [("layer", (1, 6)), ("axonal", (4, 1)), ("dendritic", (1, 6))])
def test_delays_of_another_granularity_are_told(granularity, shape):
    component = point(lambda x: torch.ones(shape), granularity=granularity)
    with pytest.raises(dk.ShapeError, match=rf"fc, Point\.delays\(\): found shape \({shape[0]}, {shape[1]}\)"):
        run(component)


@pytest.mark.parametrize("granularity, shape", [("synaptic", (1, 6)), ("dendritic", (1, 1)), ("synaptic", (4, 6))])
def test_delays_may_be_shared(granularity, shape):
    x, y = run(point(lambda x: torch.ones(shape), granularity=granularity))
    assert not torch.equal(y[0], y[1])


def boom(*_):
    raise ZeroDivisionError("boom")


@pytest.mark.parametrize(
    "method", "delays kernel taps impulse_response engine longest check meet_ recurrence project_ discretize_".split()
)
def test_an_error_of_a_method_is_told_by_its_name(method):
    """One inside delaykit's own errors stays what it is."""
    component, x = point(**{method: boom}), torch.ones(4, 2, 6)
    with pytest.raises(dk.PluginError, match=rf"Point\.{method}\(\): found ZeroDivisionError.*: boom") as caught:
        net = dk.wrap_(Loop(), {"*": component}, example=x)
        net(x)
        with dk.discretized(net), dk.backend("reference"):
            net(x)
        net.fc.dk.recurrence(net.fc.weight, None)
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        dk.attach(optimizer, net)
        optimizer.step()
        net.fc.dk.impulse_response(net.fc.weight)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("method", ["build", "decay"])
def test_an_error_of_a_config_or_a_decay_is_told_by_its_name(method):
    component = lingering(boom) if method == "decay" else config("delay", boom)
    with pytest.raises(dk.PluginError, match=rf"{method}\(\): found ZeroDivisionError.*: boom"):
        run(component)


def test_an_error_of_delaykit_stays_what_it_is():
    def refuse(_):
        raise dk.TrainingError("here", "this")

    with pytest.raises(dk.TrainingError, match="^here: found this"):
        run(point(delays=refuse))


def test_a_part_that_forgot_its_base_class_is_told():
    class Unfinished(PointDelay):
        granularity, delays, kernel = "layer", boom, boom

        def __init__(self):
            pass

    with pytest.raises(dk.PluginError, match=r"Murk\.build\(\): found an unfinished Unfinished"):
        run(config("delay", Unfinished))


@pytest.mark.parametrize("time_dim", [None, 0])
@pytest.mark.parametrize("make", [lambda bad: point(bad), response, lingering], ids=["delays", "response", "decay"])
@pytest.mark.parametrize("wrong", [*WRONG, "nan"])
def test_an_answer_that_is_wrong_only_later_is_told(make, wrong, time_dim):
    late, change = [], (WRONG | NOT_FINITE)[wrong]
    net, x = Loop(), (torch.rand(8, 3, 6) < 0.5).float()
    net = net if time_dim is None else nn.Sequential(net.fc)
    component = make(lambda x: change(x) if late else x)
    dk.wrap_(net, {"*": dk.At(component, time_dim=time_dim)}, example=x)
    assert net(x).shape == (8, 3, 4)
    late.append(True)
    with pytest.raises((dk.PluginError, dk.ShapeError, dk.DelayRangeError), match=r"Point|Any|Lingers"):
        net(x[:, :2])


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
