"""What the tests of ``dk.fused`` share: a model's own loop, and one comparison of it with the run ahead."""

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
EVERYWHERE = {"fc1", "lif1", "fc2", "lif2"}  # of two layers


def spikes(time: int = TIME, batch: int = BATCH, *shape: int) -> Tensor:
    """Random spikes (time, batch, ...) in float64 that ask for a gradient."""
    generator = torch.Generator().manual_seed(time + batch)
    drawn = torch.rand(time, batch, *(shape or (PRE,)), generator=generator, dtype=torch.float64) < 0.4
    return drawn.double().requires_grad_()


def leaky(beta: float = 0.8, **options: Any) -> nn.Module:
    return snn.Leaky(beta=beta, threshold=0.5, spike_grad=surrogate_spike, **options)


class TwoLayers(nn.Module):
    """Two layers and the usual loop; what a subclass does in it, or with its parts, is the case."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.lif1, self.lif2 = nn.Linear(PRE, HIDDEN), nn.Linear(HIDDEN, OUT), leaky(), leaky(0.7)

    def between(self, t: int, spk: Tensor) -> Tensor:
        """Turn the spikes of the first layer into what the second one is given."""
        return spk

    def state(self, t: int, mem: Tensor) -> Tensor:
        """Turn the membrane of the first layer into what its next step is given."""
        return mem

    def forward(self, x: Tensor) -> Any:
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        spk_rec, mem_rec = [], []
        for t in range(len(x)):
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(self.between(t, spk1)), mem2)
            mem1 = self.state(t, mem1)
            spk_rec.append(spk2)
            mem_rec.append(mem2)
        return torch.stack(spk_rec), torch.stack(mem_rec)


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


def ahead_in(fast: Any) -> set[str]:
    """Name the layers that run ahead."""
    return {path for path, how in fast.report().items() if how == "ahead"}


def assert_fused(net: nn.Module, *inputs: Tensor, ahead: set[str] | None = None, **options: Any) -> Any:
    """Prove that a model runs ahead, in all units or in those of ``ahead``, and that the result is its own loop's."""
    fast = dk.fused(net, example=inputs, **options)
    assert fast.precision == "float64"
    report = fast.report()
    running = ahead_in(fast)
    assert running == (set(report) if ahead is None else ahead), str(fast)
    assert_equal_runs(net, fast, fast.step_by_step, *inputs)
    assert ahead_in(fast) == running, str(fast)
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
