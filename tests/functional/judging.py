"""One way to compare an operator's backends with its judge: values, final states and every gradient."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from delaykit.functional.dispatch import backend

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HAS_TRITON = importlib.util.find_spec("triton") is not None
GPU = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="needs Numba")
needs_triton = pytest.mark.skipif(
    not HAS_TRITON or (GPU == "cpu" and not INTERPRETED), reason="needs Triton, and a cuda device or its interpreter"
)
needs_vectors = pytest.mark.skipif(
    importlib.util.find_spec("delaykit.functional.llvm") is None, reason="of the kernels in vector registers alone"
)
BACKENDS = ["torch", pytest.param("cpu", marks=needs_numba), pytest.param("gpu", marks=needs_triton)]
WITHOUT_TRITON = BACKENDS[:2]
DTYPES = [torch.float64, torch.float32]
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5}


def device_of(name: str) -> str:
    """Where a backend is tested."""
    return GPU if name == "gpu" else "cpu"


def drawn(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Draw numbers that float32 holds, so that both precisions see the same."""
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.rand(shape, generator=generator)).double()


def assert_close(found: Sequence[Tensor], judged: Sequence[Tensor], dtype: torch.dtype) -> None:
    """Compare with the tolerance of ``dtype``."""
    for one, other in zip(found, judged, strict=True):
        torch.testing.assert_close(one.cpu().double(), other, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def assert_judged(
    name: str, dtype: torch.dtype, run: Callable[..., Tensor | tuple[Tensor, ...]], *inputs: Tensor
) -> None:
    """Let one backend and, in float64, the judge run ``inputs``; compare all outputs and the gradient of each input."""
    found = _outputs_and_gradients(name, run, [t.to(device_of(name), dtype) for t in inputs])
    assert_close(found, _outputs_and_gradients("reference", run, list(inputs)), dtype)


def _outputs_and_gradients(name: str, run: Callable[..., Tensor | tuple[Tensor, ...]], inputs: list[Tensor]) -> list:
    given = [t.clone().requires_grad_() for t in inputs]
    with backend(name):
        out = run(*given)
        outputs = [out] if isinstance(out, Tensor) else list(out)
        loss = sum((y * torch.cos(torch.arange(y.numel(), device=y.device).to(y)).view_as(y)).sum() for y in outputs)
        gradients = torch.autograd.grad(loss, given)  # type: ignore[arg-type]
    return [y.detach() for y in outputs] + list(gradients)
