"""What the tests of ``dk.fused`` share: one comparison of a model's own loop with the run ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import snntorch as snn
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import delaykit as dk
from delaykit.planning.snapshot import Snapshot
from delaykit.testing.nets.reference import surrogate_spike

TIME, BATCH, PRE, HIDDEN, OUT = 9, 3, 6, 7, 4


def spikes(time: int = TIME, batch: int = BATCH, *shape: int) -> Tensor:
    """Random spikes (time, batch, ...) in float64 that ask for a gradient."""
    generator = torch.Generator().manual_seed(time + batch)
    drawn = torch.rand(time, batch, *(shape or (PRE,)), generator=generator, dtype=torch.float64) < 0.4
    return drawn.double().requires_grad_()


def leaky(beta: float = 0.8, **options: Any) -> nn.Module:
    return snn.Leaky(beta=beta, threshold=0.5, spike_grad=surrogate_spike, **options)


def loud(net: nn.Module) -> nn.Module:
    """Make a model float64, and strong enough to fire."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                module.weight.mul_(2.5)
    return net.double()


def gradients(net: nn.Module, outputs: Any, inputs: list[Tensor]) -> tuple[list[Tensor], list[Tensor | None]]:
    """Outputs, and gradients of all parameters and inputs of an unevenly weighted sum."""
    found = [x for x in tree_leaves(outputs) if isinstance(x, Tensor)]
    generator = torch.Generator().manual_seed(7)
    total = sum((x * torch.randn(x.shape, generator=generator, dtype=torch.float64)).sum() for x in found)
    wanted = [p for p in net.parameters() if p.requires_grad] + inputs
    return [x.detach() for x in found], list(torch.autograd.grad(total, wanted, allow_unused=True))


def assert_equal_runs(
    net: nn.Module, fast: Callable[..., Any], step: Callable[..., Any], *inputs: Tensor, near: float = 1e-9
) -> list[Tensor]:
    """Compare outputs and all gradients of two ways to run a model; return the outputs."""
    before = Snapshot(net)
    torch.manual_seed(3)
    expected, expected_gradients = gradients(net, step(*inputs), list(inputs))
    before.restore()
    torch.manual_seed(3)
    found, found_gradients = gradients(net, fast(*inputs), list(inputs))
    assert len(expected) == len(found)
    for one, two in zip(expected, found, strict=True):
        torch.testing.assert_close(two, one, rtol=0, atol=near)
    reached = 0
    for one, two in zip(expected_gradients, found_gradients, strict=True):
        if one is None or two is None:
            assert all(x is None or not x.any() for x in (one, two))
            continue
        torch.testing.assert_close(two, one, rtol=0, atol=near * max(1.0, float(one.abs().max())))
        reached += bool(one.any())
    assert reached > 1, "a comparison of zeros proves nothing"
    return expected


def assert_fused(net: nn.Module, *inputs: Tensor, ahead: set[str] | None = None, **options: Any) -> Any:
    """Prove that a model runs ahead, in all units or in those of ``ahead``, and that the result is its own loop's."""
    fast = dk.fused(net, example=inputs, **options)
    assert fast.precision == "float64"
    report = fast.report()
    running = {path for path, how in report.items() if how == "ahead"}
    assert running == (set(report) if ahead is None else ahead), str(fast)
    assert_equal_runs(net, fast, fast.step_by_step, *inputs)
    assert {p for p, how in fast.report().items() if how == "ahead"} == running, str(fast)
    rates = firing(net, fast, *inputs)
    assert all(rate > 0.01 for rate in rates), f"a silent model proves nothing: {rates}"
    return fast


def firing(net: nn.Module, fast: Any, *inputs: Tensor) -> list[float]:
    """Mean output of every neuron layer in a run by the model's own loop."""
    heard: dict[nn.Module, list[Tensor]] = {}

    def note(module: nn.Module, _: Any, output: Any) -> None:
        heard.setdefault(module, []).append(output if isinstance(output, Tensor) else output[0])

    hooks = [m.register_forward_hook(note) for m in net.modules() if hasattr(m, "spike_grad") or hasattr(m, "dt")]
    before = Snapshot(net)
    with torch.no_grad():
        fast.step_by_step(*inputs)
    before.restore()
    for hook in hooks:
        hook.remove()
    return [float(torch.stack(steps).abs().mean()) for steps in heard.values()]
