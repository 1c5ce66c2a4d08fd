"""Golden data: delaykit's kernels are the published DCLS-SNN ones, in value and every gradient.

DCLS counts a position P in [-K//2, K//2] from the middle of a window of K taps that looks into the past, so the delay
is K//2 - P and its gradient has the opposite sign. Its three kernels are ours, normalised:

| DCLS | delaykit |
|---|---|
| v1 | Linear(normalize=True) |
| max | Triangle(abs(SIG), normalize=True) |
| gauss | Gaussian(SIG, window=K) |
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from delaykit.arrivals import Gaussian, Kernel, Linear, Triangle
from delaykit.functional.delayed_linear import delayed_linear
from delaykit.functional.dispatch import backend
from delaykit.functional.reference import causal_convolution

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(GOLDEN.glob("dcls_*.npz"))


def kernel_of(name: str, sig: float, window: int) -> Kernel:
    return {
        "v1": Linear(normalize=True),
        "max": Triangle(abs(sig), normalize=True),
        "gauss": Gaussian(sig, window=window),
    }[name]


def test_golden_data_is_there() -> None:
    assert {path.stem.split("_")[1] for path in FILES} == {"v1", "max", "gauss"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("way", ["response", "reference", "torch", "cpu"])
def test_dcls(path: Path, way: str) -> None:
    data = np.load(path)
    spikes, weight, position = (torch.from_numpy(data[k]).requires_grad_() for k in ("spikes", "weight", "position"))
    window = int(data["kernel_size"])
    kernel = kernel_of(path.stem.split("_")[1], float(data["sig"]), window)
    delays = window // 2 - position
    if way == "response":
        current = causal_convolution(spikes, weight.unsqueeze(-1) * kernel.response(delays, window))
    else:
        with backend(way):
            current = delayed_linear(spikes, weight, kernel.taps(delays))
    with backend("reference" if way == "response" else way):
        gradients = torch.autograd.grad(current, (spikes, weight, position), torch.from_numpy(data["cotangent"]))
    for found, key in zip(
        (current, *gradients), ("current", "grad_spikes", "grad_weight", "grad_position"), strict=True
    ):
        np.testing.assert_allclose(found.detach().numpy(), data[key], atol=1e-10, rtol=0, err_msg=key)
