"""Wrong calls of HetSyn, its layers and networks: told in full, none raw, none silent."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.testing.faults.second_derivatives import check_second_derivatives
from delaykit.testing.messages import check_told
from delaykit_hetsyn import (
    AdaptationCurrent,
    HetSyn,
    HetSynConnection,
    HetSynLIF,
    HetSynNet,
    MultiGaussian,
    Neurons,
    ResetCurrent,
    TriangularSurrogate,
    make_layer,
    rate_penalty,
    rollout,
)
from delaykit_hetsyn.reset_currents import gather

snn = pytest.importorskip("snntorch", reason="wraps snnTorch neurons")
utils = pytest.importorskip("snntorch.utils", reason="wraps snnTorch neurons")
X = torch.rand(6, 2, 3)
FIELDS = {
    "granularity": ("synapse", None, 3, ["pre"]),
    "tau": ("20", 0.0, -5.0, float("nan"), ("normal", 10.0), ("gauss", 1.0, 2.0), ("normal", 10.0, -1.0), [], True),
    "dt_ms": ("1", 0.0, -1.0, float("nan")),
    "train": (1, "yes", None),
    "frozen": ("half", -0.1, 1.5, float("nan")),
    "groups": (2, 2.5, "4", True),
    "granularty": ("pre",),
}
CALLS = {f"HetSyn {k}={v!r}": lambda k=k, v=v: HetSyn(**{k: v}) for k, values in FIELDS.items() for v in values}
DRIVE = torch.rand(4, 1, 2)


def jumps(post=2):
    return gather([ResetCurrent(0.5)], None, DRIVE, post)


def rolls(drive, weight=None, decay=None, kappa=None):
    return lambda: rollout(drive, weight, decay, jumps() if kappa is None else kappa, TriangularSurrogate())


CALLS |= {
    "two heterogeneities": lambda: dk.wrap_(
        nn.Sequential(nn.Linear(3, 2)), {"0": dk.At(HetSyn(), HetSyn(), reset="manual")}, example=X[0]
    ),
    "no example": lambda: dk.wrap_(nn.Sequential(nn.Linear(3, 2)), {"0": dk.At(HetSyn(), reset="manual")}),
    "convolution": lambda: dk.wrap_(
        nn.Sequential(nn.Conv1d(3, 2, 1)), {"0": dk.At(HetSyn(), reset="manual")}, example=torch.rand(1, 3, 4)
    ),
    "rollout lists": rolls([[1.0]]),
    "rollout integers": rolls(DRIVE.long()),
    "rollout no time": rolls(DRIVE[0]),
    "rollout nested": lambda: rolls(torch.nested.nested_tensor([DRIVE[0], DRIVE[1]]))(),
    "rollout meta": rolls(DRIVE.to("meta")),
    "rollout weight alone": rolls(DRIVE, torch.eye(2)),
    "rollout weight shape": rolls(DRIVE, torch.eye(3), torch.eye(3)),
    "rollout decay shape": rolls(DRIVE, torch.eye(2), torch.rand(2)),
    "HetSynConnection sizes": lambda: HetSynConnection(-1, 2),
    "HetSynConnection words": lambda: HetSynConnection("3", 2),
    "ResetCurrent": lambda: ResetCurrent(1.5),
    "ResetCurrent word": lambda: ResetCurrent("fast"),
    "AdaptationCurrent nan": lambda: AdaptationCurrent(float("nan"), 1.0),
    "MultiGaussian": lambda: MultiGaussian(sd=-1.0),
    "MultiGaussian word": lambda: MultiGaussian(sd="wide"),
    "TriangularSurrogate width": lambda: TriangularSurrogate(-1.0),
    "make_layer": lambda: make_layer("hetsin", 3, 2, False, Neurons()),
    "HetSynNet sizes": lambda: HetSynNet("HetSynLIF", (3,)),
    "HetSynNet model": lambda: HetSynNet("lif2", (3, 4, 2)),
    "rate_penalty": lambda: rate_penalty(X, 0.0),
    "rate_penalty word": lambda: rate_penalty(X, "1 ms"),
    "HetSynLIF sizes": lambda: HetSynLIF(0, -2),
    "HetSynLIF lists": lambda: HetSynLIF(3, 2)([[1.0]]),
    "HetSynLIF width": lambda: HetSynLIF(3, 2)(torch.rand(4, 1, 5)),
}


@pytest.mark.parametrize("case", CALLS)
def test_a_wrong_call_is_told_in_full(case):
    check_told(CALLS[case])


def wrapped(config):
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    return dk.wrap_(net, {"1": dk.At(config, reset="manual")}, example=X[0])


CONFIGS = {"synaptic": HetSyn(tau=5.0, dt_ms=1.0), "pre": HetSyn("pre"), "post": HetSyn("post")}
CONFIGS["groups"] = HetSyn(groups=4)


@pytest.mark.parametrize("granularity", CONFIGS)
def test_a_forgotten_reset_is_told_in_full(granularity):
    net = wrapped(CONFIGS[granularity])

    def two_sequences_without_a_reset():
        for _ in range(2):
            sum(net(x).sum() for x in X).backward()

    error = check_told(two_sequences_without_a_reset)
    assert "reset" in error.fix


@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize(
    ("granularity", "with_delay"), [(g, d) for g in CONFIGS for d in (False, True) if g != "groups" or not d]
)
def test_a_forgotten_reset_is_told_where_neurons_keep_their_graphs_too(granularity, with_delay, size):
    """Torch would find a neuron's own graph freed, and say nothing of a reset."""
    delay = (dk.FreeDelay("axonal", max_delay=4, init=1.0),) if with_delay else ()
    net = nn.Sequential(nn.Linear(size, size), snn.Leaky(0.5, init_hidden=True), nn.Linear(size, size))
    x = torch.rand(5, 2, size)
    dk.wrap_(net, {"0": [CONFIGS[granularity], *delay]}, example=x[0])

    def sequence():
        return torch.stack([net(one) for one in x]).sum()

    def two_sequences_without_a_reset():
        for _ in range(2):
            sequence().backward()

    assert "reset" in check_told(two_sequences_without_a_reset).fix
    utils.reset(net)
    sequence().backward(retain_graph=True)
    sequence().backward()  # one graph over both sequences, which nobody freed
    for _ in range(3):  # and where the stream is cut between passes
        utils.reset(net)
        sequence().backward()


def test_second_derivatives_through_steps_are_told_in_full():
    net, x = wrapped(CONFIGS["synaptic"]), X.clone().requires_grad_()

    def twice():
        first = torch.autograd.grad(sum(net(one).square().sum() for one in x), x, create_graph=True)[0]
        first.square().sum().backward()

    check_told(twice)


@pytest.mark.parametrize("loss", [torch.sum, lambda y: y.square().sum()], ids=["linear", "square"])
def test_second_derivatives_of_the_rollout_are_told_in_full(loss):
    drive, weight = DRIVE.clone().requires_grad_(), torch.eye(2, requires_grad=True)

    def twice():
        _, membrane = rollout(drive, weight, torch.full((2, 2), 0.5), jumps(), TriangularSurrogate())
        torch.autograd.grad(loss(membrane), weight, create_graph=True)[0].sum().backward()

    check_told(twice)


def test_second_derivatives_of_the_rollout_are_refused_on_every_way():
    drive, weight = DRIVE.double().requires_grad_(), torch.eye(2).double().requires_grad_()
    decay = torch.full((2, 2), 0.5).double().requires_grad_()
    own = gather([ResetCurrent(0.5)], None, drive.detach(), 2)
    check_second_derivatives(
        lambda: rollout(drive, weight, decay, own, TriangularSurrogate())[1], [drive, weight, decay]
    )
