"""A lingering synapse, alone and behind every kind of delay: step == sequence == impulse response, gradients too."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit.functional.reference import causal_convolution
from delaykit.interfaces import ComponentConfig, Heterogeneity, Site
from delaykit.synapse import Product, Synapse

TIME, BATCH, PRE, POST = 12, 3, 5, 4


class Lingering(Heterogeneity):
    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.r = nn.Parameter(torch.rand(shape, generator=generator, dtype=torch.float64))

    def decay(self) -> Tensor:
        return self.r


@dataclasses.dataclass(frozen=True)
class LingeringConfig(ComponentConfig):
    kind: ClassVar[Literal["heterogeneity"]] = "heterogeneity"
    name: ClassVar[str] = "lingering"
    granularity: Any = "synaptic"

    def build(self, site: Site, generator: torch.Generator | None = None) -> Lingering:
        return Lingering(site.delay_shape(self.granularity))


def build(decay: str, delay: str | None) -> tuple[Synapse, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    parts: list[ComponentConfig] = [LingeringConfig(decay)]
    parts += [dk.FreeDelay(delay, max_delay=4)] if delay else []  # type: ignore[arg-type]
    synapse = Synapse(Site("fc", PRE, POST), parts, generator).double()
    weight = torch.randn(POST, PRE, generator=generator, dtype=torch.float64).requires_grad_()
    bias = torch.randn(POST, generator=generator, dtype=torch.float64).requires_grad_()
    spikes = (torch.rand(TIME, BATCH, PRE, generator=generator) < 0.4).double().requires_grad_()
    return synapse, weight, bias, spikes


@pytest.mark.parametrize("decay", ["layer", "axonal", "dendritic", "synaptic"])
@pytest.mark.parametrize("delay", [None, "layer", "axonal", "dendritic", "synaptic"])
def test_step_sequence_and_impulse_response_agree(decay: str, delay: str | None) -> None:
    synapse, weight, bias, spikes = build(decay, delay)
    engine = synapse.engine(Product(lambda x: x, lambda x: x, weight, bias))
    tape = engine.tape()
    by_step = torch.stack([engine.step(tape, s) for s in spikes])
    by_sequence = engine.sequence(spikes)
    judge = causal_convolution(spikes, synapse.impulse_response(weight, TIME)) + bias
    inputs = [weight, bias, spikes, *synapse.parameters()]
    gradients = [torch.autograd.grad(y.pow(2).sum(), inputs, retain_graph=True) for y in (judge, by_step, by_sequence)]
    for y, own in ((by_step, gradients[1]), (by_sequence, gradients[2])):
        torch.testing.assert_close(y, judge, rtol=0, atol=1e-12)
        for mine, true in zip(own, gradients[0], strict=True):
            torch.testing.assert_close(mine, true, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("delay", [None, "axonal", "dendritic", "synaptic"])
def test_detach_keeps_the_past_and_cuts_its_gradient(delay: str | None) -> None:
    synapse, weight, bias, spikes = build("synaptic", delay)
    product = Product(lambda x: x, lambda x: x, weight, bias)
    engine = synapse.engine(product)
    tape = engine.tape()
    for s in spikes[:6]:
        engine.step(tape, s)
    tape.detach()
    engine = synapse.engine(product)
    engine.rebind(tape)
    after = torch.stack([engine.step(tape, s) for s in spikes[6:]])
    whole = causal_convolution(spikes, synapse.impulse_response(weight, TIME)) + bias
    torch.testing.assert_close(after, whole[6:], rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(after.pow(2).sum(), spikes)
    assert not gradient[:6].any() and gradient[6:].any()


def test_decay_outside_its_range_is_refused() -> None:
    synapse, weight, _, _ = build("synaptic", None)
    with torch.no_grad():
        synapse.heterogeneity.r[0, 0] = 1.5  # type: ignore[union-attr, index]
    with pytest.raises(dk.DelayRangeError, match="attach"):
        synapse.engine(Product(lambda x: x, lambda x: x, weight, None))
