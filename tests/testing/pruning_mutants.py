"""Prunings with one thing wrong each, and a sound one beside them: what the conformance kit must catch, and pass."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch

from delaykit import ComponentConfig, Pruning, PruningReport


class Magnitude(Pruning):
    def step_(self, weight, progress):
        before = int((weight != 0).sum())
        count = round(0.5 * progress * weight.numel())
        weakest = weight.detach().abs().flatten().argsort(stable=True)[:count]
        weight.view(-1)[weakest] = 0.0
        kept = int((weight != 0).sum())
        return PruningReport(weight.numel(), kept, before - kept, 0)


@dataclasses.dataclass(frozen=True)
class MagnitudeConfig(ComponentConfig):
    kind: ClassVar[Any] = "pruning"
    name: ClassVar[str] = "kit-test-pruning"
    part: ClassVar[type] = Magnitude

    def build(self, site, generator=None):
        return self.part()


class Shrinks(Magnitude):
    def step_(self, weight, progress):
        report = super().step_(weight, progress)
        weight.mul_(0.999)
        return report


class Miscounts(Magnitude):
    def step_(self, weight, progress):
        report = super().step_(weight, progress)
        return dataclasses.replace(report, pruned=report.pruned + 1)


class PrunesAll(Magnitude):
    def step_(self, weight, progress):
        weight.mul_(1.0 - (progress == 1.0))
        return super().step_(weight, progress)


class PrunesOnAndOn(Magnitude):
    def step_(self, weight, progress):
        kept = int((weight != 0).sum())
        return super().step_(weight, min(1.0, progress * 0.5 + 1.1 * (1 - kept / weight.numel())))


class PrunesAtRandom(Magnitude):
    def step_(self, weight, progress):
        noise = torch.rand_like(weight)
        kept = weight.clone()
        report = super().step_(weight.mul_(noise), progress)
        weight.copy_(torch.where(weight == 0, 0.0, kept))
        return report


class FreezesZeros(Magnitude):
    def step_(self, weight, progress):
        report = super().step_(weight, progress)
        if weight.requires_grad:
            mask = (weight != 0).detach().clone()
            weight.register_hook(lambda grad: grad * mask)
        return report


PRUNING_MUTANTS = [
    ("pruning_writes_zeros_only", Shrinks, "a kept weight changed"),
    ("pruning_writes_zeros_only", Miscounts, "the report says"),
    ("pruning_prunes_in_the_end", PrunesAll, "or none is"),
    ("pruning_twice_is_once", PrunesOnAndOn, "a second step"),
    ("pruning_is_deterministic", PrunesAtRandom, "prune differently"),
    ("pruned_weights_keep_their_gradients", FreezesZeros, "no gradient reaches the zeros"),
]
