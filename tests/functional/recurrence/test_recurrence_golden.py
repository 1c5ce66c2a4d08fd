"""The recurrent delays of DelRec (arXiv 2509.24852): spikes and gradients of the published layers, in float64."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from delaykit.arrivals import Triangle
from delaykit.functional.dispatch import backend as choose_backend
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence import rollout, rollout_generic

GOLDEN = Path(__file__).parents[2] / "golden"
NAMES = [f"{kind}_{number}" for kind in ("axonal", "synaptic") for number in range(6)]


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


def load(name: str) -> dict:
    with np.load(GOLDEN / f"delrec_{name}.npz") as file:
        return {k: torch.from_numpy(file[k]) if file[k].ndim else file[k].item() for k in file.files}


def neuron_of(golden: dict) -> LIFDynamics:
    return LIFDynamics(
        decay=1 - 1 / golden["tau"],
        threshold=golden["threshold"],
        surrogate=lambda x: ArcTangent.apply(x, golden["atan_alpha"]),
        reset="zero" if golden["hard_reset"] else "subtract",
        reset_when="same",
        detach_reset=golden["detach_reset"],
    )


def leaves_of(golden: dict) -> dict[str, torch.Tensor]:
    names = [k for k in ("x", "weight", "delay", "spread_logit") if k in golden]
    return {k: golden[k].clone().requires_grad_() for k in names}


def taps_of(golden: dict, leaves: dict):
    spread = golden["sigma"]
    if "spread_logit" in leaves:
        spread = (2 * golden["sigma"] * leaves["spread_logit"].sigmoid()).unsqueeze(0)  # one a presynaptic neuron
    delay = leaves["delay"]
    kernel, delay = Triangle(spread), delay if delay.dim() == 2 else delay.unsqueeze(0)
    return kernel.tents(delay) or kernel.taps(delay)


def check(golden: dict, leaves: dict, spikes: torch.Tensor) -> None:
    torch.testing.assert_close(spikes, golden["spikes"], rtol=0, atol=0)
    assert 0.1 < spikes.mean() < 0.5
    grads = torch.autograd.grad((spikes * golden["cotangent"]).sum(), list(leaves.values()))
    for name, grad in zip(leaves, grads, strict=True):
        torch.testing.assert_close(grad, golden[f"grad_{name}"], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", ["cpu", "torch", "reference"])
@pytest.mark.parametrize("name", NAMES)
def test_published_layer_is_reproduced(name, backend):
    if backend == "cpu":
        pytest.importorskip("numba", reason="the Numba kernels need numba")
    golden = load(name)
    leaves = leaves_of(golden)
    with choose_backend(backend):
        spikes, _, _ = rollout(leaves["x"], leaves["weight"], None, taps_of(golden, leaves), neuron_of(golden))
    check(golden, leaves, spikes)


@pytest.mark.parametrize("name", NAMES)
def test_published_layer_is_reproduced_step_by_step(name):
    golden = load(name)
    leaves = leaves_of(golden)
    neuron = neuron_of(golden)
    state = neuron.start(leaves["x"][0])

    def step(drive, last):
        nonlocal state
        spikes, state = neuron.step(drive, state)
        return spikes

    check(golden, leaves, rollout_generic(step, leaves["x"], leaves["weight"], None, taps_of(golden, leaves)))
