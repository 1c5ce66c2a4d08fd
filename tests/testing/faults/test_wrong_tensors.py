"""Wrong tensors, and derivatives that nobody wrote, at every operator and every kind of connection: told in full."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.arrivals import Gaussian, Hard, Linear, Triangle
from delaykit.functional.delay_line import delay_line
from delaykit.functional.delayed_convolution import Convolution, delayed_convolution
from delaykit.functional.delayed_linear import delayed_linear
from delaykit.functional.filtered_linear import filtered_linear
from delaykit.functional.running_sum import running_sum
from delaykit.testing.messages import check_told

STEP, SEQUENCE = torch.rand(2, 3), torch.rand(5, 2, 3)


def wrapped(granularity, **options):
    net, config = nn.Sequential(nn.Linear(3, 3)), dk.FreeDelay(granularity, max_delay=3)
    reset = "root" if "time_dim" in options else "manual"
    return dk.wrap_(net, {"0": dk.At(config, reset=reset, **options)})


def nested(x, **options):
    return torch.nested.nested_tensor(list(x), **options)


WRONG = {
    "list": lambda x: x.tolist(),
    "None": lambda x: None,
    "meta": lambda x: x.to("meta"),
    "nested": nested,
    "jagged": lambda x: nested(x, layout=torch.jagged),
    "sparse": lambda x: x.to_sparse(),
    "integers": lambda x: x.long(),
    "complex": lambda x: x.to(torch.complex64),
    "narrow": lambda x: x[..., :2],
}
CALLS = {}
for granularity in ("layer", "axonal", "dendritic", "synaptic"):
    for name, wrong in WRONG.items():
        CALLS[f"{granularity} step {name}"] = lambda g=granularity, wrong=wrong: wrapped(g)(wrong(STEP))
        CALLS[f"{granularity} sequence {name}"] = lambda g=granularity, wrong=wrong: wrapped(g, time_dim=0)(
            wrong(SEQUENCE)
        )

DELAYS = torch.rand(1, 3)
KERNELS = (Linear(), Triangle(1.0), Triangle(torch.tensor(1.0)), Gaussian(1.0), Gaussian(torch.tensor(1.0)), Hard())
WRONG_DELAYS = {
    "one dimension": DELAYS[0],
    "three dimensions": DELAYS[None],
    "list": [1.0],
    "meta": DELAYS.to("meta"),
    "integers": DELAYS.long(),
    "nan": DELAYS * float("nan"),
    "negative": -1 - DELAYS,
}
for kernel in KERNELS:
    for name, delays in WRONG_DELAYS.items():
        CALLS[f"{kernel}.taps {name}"] = lambda kernel=kernel, delays=delays: kernel.taps(delays)
        CALLS[f"{kernel}.whole {name}"] = lambda kernel=kernel, delays=delays: kernel.whole(delays)
    for depth in (-1, "3", 2.5):
        CALLS[f"{kernel}.response depth={depth!r}"] = lambda k=kernel, depth=depth: k.response(DELAYS, depth)
    CALLS[f"{kernel}.response list"] = lambda kernel=kernel: kernel.response([1.0])

TAPS, WEIGHT = Linear().taps(DELAYS), torch.rand(4, 3)
CONVOLUTION = Convolution(torch.ones(1, 3, 1), groups=1, options={})
OPERATORS = {
    "delay_line": lambda x: delay_line(x, TAPS),
    "delayed_linear": lambda x: delayed_linear(x, WEIGHT, TAPS),
    "delayed_linear weight": lambda x: delayed_linear(SEQUENCE, x, TAPS),
    "filtered_linear": lambda x: filtered_linear(x, WEIGHT, torch.full((1, 3), 0.5)),
    "filtered_linear decay": lambda x: filtered_linear(SEQUENCE, WEIGHT, x),
    "running_sum": lambda x: running_sum(x, torch.full((3,), 0.5)),
    "delayed_convolution": lambda x: delayed_convolution(x.unsqueeze(-1), CONVOLUTION, TAPS),
}
for operator, run in OPERATORS.items():
    for name in ("meta", "nested", "sparse", "integers", "narrow", "list"):
        if operator != "delayed_convolution" or name not in ("list", "nested", "sparse"):
            CALLS[f"{operator} {name}"] = lambda run=run, wrong=WRONG[name]: run(wrong(SEQUENCE))


@pytest.mark.parametrize("case", CALLS)
def test_a_wrong_tensor_is_told_in_full(case):
    check_told(CALLS[case])


def under_grad(net):
    """Differentiate a net's sum by its parameters, as torch.func does."""
    parameters = {name: value.detach() for name, value in net.named_parameters()}
    return torch.func.grad(lambda p: torch.func.functional_call(net, p, (SEQUENCE,)).square().sum())(parameters)


class Loop(nn.Module):
    """A loop of its own around one connection."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return torch.stack([self.net(step) for step in x])


@pytest.mark.parametrize("granularity", ["layer", "axonal", "dendritic", "synaptic"])
def test_transforms_of_functions_are_told_in_full(granularity):
    steps, whole = Loop(wrapped(granularity)), wrapped(granularity, time_dim=0)
    for net in (steps, whole):
        check_told(lambda net=net: under_grad(net))
        check_told(lambda net=net: torch.func.jvp(net, (SEQUENCE,), (SEQUENCE,)))
    check_told(lambda: torch.func.vmap(steps)(SEQUENCE.unsqueeze(0)))


@pytest.mark.parametrize("granularity", ["axonal", "synaptic"])
def test_sequences_take_part_in_vmap_and_the_reference_in_all(granularity):
    net, many = wrapped(granularity, time_dim=0), torch.rand(4, 5, 2, 3)
    torch.testing.assert_close(torch.func.vmap(net)(many), torch.stack([net(one) for one in many]))
    with dk.backend("reference"):
        found = under_grad(net)
    wanted = torch.autograd.grad(net(SEQUENCE).square().sum(), list(net.parameters()))
    for one, value in zip(found.values(), wanted, strict=True):
        torch.testing.assert_close(one, value)


@pytest.mark.parametrize("granularity", ["layer", "axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("loss", [torch.sum, lambda y: y.square().sum()], ids=["linear", "square"])
def test_second_derivatives_through_steps_are_told_in_full(granularity, loss):
    net, x = Loop(wrapped(granularity)), SEQUENCE.clone().requires_grad_()

    def twice():
        torch.autograd.grad(loss(net(x)), x, create_graph=True)[0].square().sum().backward()

    check_told(twice)


@pytest.mark.parametrize("granularity", ["layer", "axonal", "dendritic", "synaptic"])
def test_whole_sequences_have_second_derivatives_as_the_error_says(granularity):
    net = wrapped(granularity, time_dim=0).double()
    values = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    x = SEQUENCE.double().requires_grad_()

    def run(x, *parameters):
        return torch.func.functional_call(net, dict(zip(values, parameters, strict=True)), (x,))

    with dk.backend("reference"):
        assert torch.autograd.gradgradcheck(run, (x, *values.values()))


def test_second_derivatives_of_decays_are_told_in_full():
    decay, weight = torch.full((4, 3), 0.5, requires_grad=True), WEIGHT.clone().requires_grad_()
    out = filtered_linear(SEQUENCE, weight, decay)
    first = torch.autograd.grad(out.sum(), decay, create_graph=True)[0]
    check_told(lambda: first.sum().backward())
