"""The published layers, through the public components: spikes, currents and every gradient to 1e-10 in float64."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence import rollout
from delaykit_delrec import DCLS, DelRec, load_published_, read_published

GOLDEN = Path(__file__).parents[3] / "tests" / "golden"
DELREC = sorted(GOLDEN.glob("delrec_*.npz"))
DCLS_FILES = sorted(GOLDEN.glob("dcls_*.npz"))


def load(path: Path) -> dict:
    with np.load(path) as file:
        return {k: torch.from_numpy(file[k]) if file[k].ndim else file[k].item() for k in file.files}


class ArcTangent(torch.autograd.Function):
    """Spike at ``x >= 0``; the surrogate gradient is ``a / 2 / (1 + (pi a x / 2)^2)``."""

    @staticmethod
    def forward(ctx, x, alpha):
        ctx.save_for_backward(x)
        ctx.alpha = alpha
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * ctx.alpha / 2 / (1 + (math.pi / 2 * ctx.alpha * x) ** 2), None


class PublishedLIF(nn.Module):
    """``V = (1 - 1/tau) V + x + recurrent(s)``, a spike at V >= threshold, reset in the same step."""

    def __init__(self, golden: dict) -> None:
        super().__init__()
        self.golden = golden
        size = golden["x"].shape[-1]
        self.recurrent = nn.Linear(size, size, bias=False).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        g = self.golden
        v = s = torch.zeros_like(x[0])
        spikes = []
        for now in x:
            v = (1 - 1 / g["tau"]) * v + now + self.recurrent(s)
            s = ArcTangent.apply(v - g["threshold"], g["atan_alpha"])
            reset = s.detach() if g["detach_reset"] else s
            v = v * (1 - reset) if g["hard_reset"] else v - reset * g["threshold"]
            spikes.append(s)
        return torch.stack(spikes)


def component(golden: dict) -> DelRec:
    granularity = "synaptic" if golden["delay"].dim() == 2 else "axonal"
    largest = float(golden["delay"].max())
    return DelRec(granularity, max_delay=largest, sigma=golden["sigma"], learn_spread="spread_logit" in golden)


def fill(connection: nn.Linear, golden: dict) -> dict[str, torch.Tensor]:
    """Load the golden parameters as a published checkpoint; return what a gradient must reach."""
    state = {"recurrent_weights": golden["weight"], "recurrent_delays": golden["delay"]}
    if "spread_logit" in golden:
        state["p_spread"] = golden["spread_logit"]
    load_published_(connection, read_published(state)[""], sigma=golden["sigma"])
    delay = connection.dk.delay
    leaves = {"weight": connection.weight, "delay": delay.delay}
    return leaves | ({"spread_logit": delay.spread_logit} if "spread_logit" in golden else {})


def check(golden: dict, x: torch.Tensor, leaves: dict, spikes: torch.Tensor) -> None:
    assert torch.equal(spikes, golden["spikes"]) and 0.1 < spikes.mean() < 0.5
    leaves = {"x": x} | leaves
    gradients = torch.autograd.grad((spikes * golden["cotangent"]).sum(), list(leaves.values()))
    for name, gradient in zip(leaves, gradients, strict=True):
        torch.testing.assert_close(gradient, golden[f"grad_{name}"], rtol=1e-10, atol=1e-10, msg=name)


def test_golden_data_are_there() -> None:
    assert len(DELREC) == 12 and len(DCLS_FILES) == 4


@pytest.mark.parametrize("path", DELREC, ids=lambda path: path.stem)
def test_a_wrapped_loop_is_the_published_layer(path: Path) -> None:
    golden = load(path)
    net = PublishedLIF(golden)
    dk.wrap_(net, {"recurrent": component(golden)}, example=golden["x"][:3])
    leaves = fill(net.recurrent, golden)
    x = golden["x"].clone().requires_grad_()
    check(golden, x, leaves, net(x))


@pytest.mark.parametrize("path", DELREC, ids=lambda path: path.stem)
def test_the_fused_rollout_of_the_component_is_the_published_layer(path: Path) -> None:
    golden = load(path)
    net = PublishedLIF(golden)
    dk.wrap_(net, {"recurrent": component(golden)}, example=golden["x"][:3])
    leaves = fill(net.recurrent, golden)
    delay, x = net.recurrent.dk.delay, golden["x"].clone().requires_grad_()
    neuron = LIFDynamics(
        decay=1 - 1 / golden["tau"],
        threshold=golden["threshold"],
        surrogate=lambda v: ArcTangent.apply(v, golden["atan_alpha"]),
        reset="zero" if golden["hard_reset"] else "subtract",
        reset_when="same",
        detach_reset=golden["detach_reset"],
    )
    kernel, delays = delay.kernel(), delay.delays()
    taps = kernel.tents(delays) or kernel.taps(delays)  # as dk.rollout has it
    check(golden, x, leaves, rollout(x, net.recurrent.weight, None, taps, neuron)[0])


@pytest.mark.parametrize("path", DCLS_FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("way", ["sequence", "steps"])
def test_a_wrapped_linear_is_the_published_convolution(path: Path, way: str) -> None:
    golden = load(path)
    size, sig = int(golden["kernel_size"]), float(golden["sig"])
    position = golden["position"]
    net = nn.Sequential(nn.Linear(position.shape[1], position.shape[0], bias=False)).double()
    spikes = golden["spikes"].clone().requires_grad_()
    config = DCLS(size, version=path.stem.split("_")[1], sigma=None if sig == 0 else sig)
    when = {"reset": "root", "time_dim": 0} if way == "sequence" else {"reset": "manual"}
    example = spikes.detach()[:3] if way == "sequence" else spikes.detach()[0]
    dk.wrap_(net, {"0": dk.At(config, **when)}, example=example)
    state = {"weight": golden["weight"].unsqueeze(-1), "P": position[None, ..., None]}
    state["SIG"] = torch.full_like(state["P"], sig)
    load_published_(net[0], read_published(state)[""])
    current = net(spikes) if way == "sequence" else torch.stack([net(x) for x in spikes])
    torch.testing.assert_close(current, golden["current"], rtol=0, atol=1e-10)
    delay = net[0].dk.delay.delay
    gradients = torch.autograd.grad(current, (spikes, net[0].weight, delay), golden["cotangent"])
    wanted = (golden["grad_spikes"], golden["grad_weight"], -golden["grad_position"])  # d = K//2 - P
    for found, value in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(found, value, rtol=0, atol=1e-10)
