"""A surrogate's closed form is believed only where autograd says the same."""

import math

import pytest
import snntorch as snn
import torch
from snntorch import surrogate

from delaykit.adapters.snntorch.dynamics import dynamics_of
from delaykit.functional.dispatch import backend
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence import rollout
from delaykit.functional.surrogates import ARCTAN, FAST_SIGMOID, Slope, scales, slope_of

NUMBERS = ("decay", "synapse_decay", "gain", "threshold", "reset_value")
X = torch.cat([-torch.logspace(-3, 3, 50), torch.zeros(1), torch.logspace(-3, 3, 50)])


def _told(spike: object, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    spike(x).sum().backward()  # type: ignore[operator]
    assert x.grad is not None
    return x.grad


@pytest.mark.parametrize("make", [surrogate.atan, surrogate.fast_sigmoid])
@pytest.mark.parametrize("width", [0.5, 2, 25.0])
def test_a_closed_form_is_the_derivative(make: object, width: float) -> None:
    neuron = snn.Leaky(beta=0.9, spike_grad=make(width))  # type: ignore[operator]
    dynamics = dynamics_of(neuron)
    assert dynamics is not None and dynamics.slope is not None
    torch.testing.assert_close(dynamics.slope(X), _told(neuron.spike_grad, X))


@pytest.mark.parametrize(
    "spike", [surrogate.sigmoid(5), surrogate.triangular(), surrogate.SFS(25), surrogate.straight_through_estimator()]
)
def test_other_surrogates_are_asked(spike: object) -> None:
    dynamics = dynamics_of(snn.Leaky(beta=0.9, spike_grad=spike))
    assert dynamics is not None and dynamics.slope is None


def test_a_wrong_claim_is_not_believed() -> None:
    atan = surrogate.atan(2.0)
    assert slope_of(atan, ARCTAN, 1.0, math.pi) == Slope(ARCTAN, 1.0, math.pi)
    assert slope_of(atan, ARCTAN, 1.0, math.pi * (1 + 1e-6)) is None
    assert slope_of(atan, FAST_SIGMOID, 1.0, math.pi) is None
    assert slope_of(lambda x: (x > 0).double(), ARCTAN, 1.0, 1.0) is None  # without a gradient


def test_inference_mode_asks_all_the_same() -> None:
    with torch.inference_mode():
        assert slope_of(surrogate.atan(2.0), ARCTAN, 1.0, math.pi) is not None
        assert scales(surrogate.atan(2.0))


def test_a_surrogate_that_takes_the_librarys_name_is_asked() -> None:
    def spike(x: torch.Tensor, alpha: float = 2.0) -> torch.Tensor:
        return torch.tanh(alpha * x)

    spike.__module__, spike.__qualname__ = "snntorch.surrogate", "atan.<locals>.inner"
    dynamics = dynamics_of(snn.Leaky(beta=0.9, spike_grad=spike))
    assert dynamics is not None and dynamics.slope is None


class _Rational(torch.autograd.Function):
    """Fires in its own dtype, with the derivative of one of the forms."""

    @staticmethod
    def forward(ctx, x, known):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        ctx.known = known
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return grad * ctx.known(ctx.saved_tensors[0]), None


RESETS = [("subtract", "next", {}), ("zero", "next", {"reset_spares_input": True}), ("zero", "next", {}),
          ("zero", "same", {}), ("subtract", "same", {"detach_reset": False}),
          ("subtract", "next", {"detach_reset": False}), ("zero", "both", {}), ("subtract", "both", {}),
          ("none", "next", {})]  # fmt: skip


@pytest.mark.parametrize("form", [ARCTAN, FAST_SIGMOID])
@pytest.mark.parametrize("recurs", [False, True])
@pytest.mark.parametrize(("reset", "when", "options"), RESETS)
def test_an_adjoint_with_a_closed_form_equals_autograd(
    form: int, recurs: bool, reset: str, when: str, options: dict[str, bool]
) -> None:
    torch.manual_seed(0)
    known = Slope(form, 0.9, 2.5)
    numbers = {name: (0.3 + 0.5 * torch.rand(5, dtype=torch.float64)).requires_grad_() for name in NUMBERS}
    drive = (2.0 * torch.rand(9, 2, 5, dtype=torch.float64) - 0.4).requires_grad_()
    weight = torch.randn(5, 5, dtype=torch.float64, requires_grad=True) if recurs else None
    leaves = [drive, *numbers.values(), *([weight] if weight is not None else [])]
    cotangents = torch.randn(3, 9, 2, 5, dtype=torch.float64)
    found = []
    for name, slope in (("cpu", known), ("cpu", None), ("torch", known), ("reference", None)):
        neuron = LIFDynamics(
            **numbers, surrogate=lambda x: _Rational.apply(x, known), reset=reset, reset_when=when, heaviside=True,  # type: ignore[arg-type]
            slope=slope, **options,
        )  # fmt: skip
        with backend(name):
            spikes, membrane, state = rollout(drive, weight, None, None, neuron)
            total = (spikes * cotangents[0]).sum() + (membrane * cotangents[1]).sum()
            assert state.synapse is not None
            total = total + (state.synapse * cotangents[2, 0]).sum()
            found.append((spikes, membrane, *torch.autograd.grad(total, leaves, allow_unused=True)))
    assert 0.05 < float(found[0][0].detach().mean()) < 0.95
    for one in found[:-1]:
        for tensor, judge in zip(one, found[-1], strict=True):
            if tensor is None and judge is None:
                continue  # a number that plays no part
            nothing = torch.zeros((), dtype=torch.float64).expand_as(judge if tensor is None else tensor)
            torch.testing.assert_close(nothing if tensor is None else tensor, nothing if judge is None else judge)
