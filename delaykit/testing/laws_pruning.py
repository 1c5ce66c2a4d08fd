"""Laws of pruning: zeros written into a weight, counted right, and nothing else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import delaykit as dk
from delaykit.testing.kit import (
    BATCH,
    GRADIENT_TOLERANCE,
    OPERATOR_SITE,
    TIME,
    VALUE_TOLERANCE,
    Kit,
    assert_equal,
    gradients,
    law,
    loss_of,
    require,
)
from delaykit.testing.nets.tiny import TinyNet, input_spikes
from delaykit.wrapping.controls import wrapped_sites

PROGRESS = (0.25, 0.5, 1.0)


class PruningLaws(Kit):
    """What a component of kind ``pruning`` owes."""

    @law("pruning")
    def test_pruning_writes_zeros_only(self) -> None:
        """A step leaves each synapse as it was or sets it to exactly zero, and its report counts both."""
        for progress in PROGRESS:
            weight, pruning = _weight(), self._build()
            before = weight.clone()
            report = pruning.step_(weight, progress)
            zero = weight == 0
            require(torch.equal(weight[~zero], before[~zero]), f"a kept weight changed at progress {progress}")
            kept = int((~zero).sum())
            found = (report.total, report.kept, report.pruned)
            wanted = (weight.numel(), kept, int((before != 0).sum()) - kept + report.regrown)
            require(found == wanted, f"the report says (total, kept, pruned) = {found}, the weight {wanted}")

    @law("pruning")
    def test_pruning_prunes_in_the_end(self) -> None:
        """At progress 1 some synapses are gone and some are left."""
        weight = _weight()
        self._build().step_(weight, 1.0)
        require(0 < int((weight != 0).sum()) < weight.numel(), "at the end all synapses are kept, or none is")

    @law("pruning")
    def test_pruning_twice_is_once(self) -> None:
        """A second step at equal progress changes nothing."""
        for progress in PROGRESS:
            weight, pruning = _weight(), self._build()
            pruning.step_(weight, progress)
            once = weight.clone()
            report = pruning.step_(weight, progress)
            require(torch.equal(weight, once), f"a second step at progress {progress} changed the weight")
            require(report.pruned == 0 and report.regrown == 0, f"a second step reports {report}")

    @law("pruning")
    def test_pruning_is_deterministic(self) -> None:
        """Equal builds do equal things to equal weights, and leave torch's global generator alone."""
        before = torch.random.get_rng_state()
        one, two = _weight(), _weight()
        for weight in (one, two):
            pruning = self._build()
            for progress in PROGRESS:
                pruning.step_(weight, progress)
        require(torch.equal(one, two), "two equal runs prune differently")
        require(torch.equal(before, torch.random.get_rng_state()), "pruning drew from torch's global generator")

    @law("pruning")
    def test_pruned_weights_keep_their_gradients(self, tiny: TinyNet) -> None:
        """After ``dk.advance_`` the net equals its reference, and zeros get the gradient of any other weight."""
        net, spikes = self.wrapped(tiny), input_spikes(TIME, BATCH)
        reports = dk.advance_(net, 1.0)
        require(reports.keys() == {site.name for site in wrapped_sites(net)}, "a site was not pruned")
        found, wanted = tiny.run(net, spikes), self.judge(tiny, net, spikes)
        assert_equal(found, wanted, VALUE_TOLERANCE, "pruned net")
        weights: list[Any] = [site.weight for site in wrapped_sites(net)]
        one, two = gradients(loss_of(found), weights), gradients(loss_of(wanted), weights)
        assert_equal(one, two, GRADIENT_TOLERANCE, "gradient of pruned weights")
        alive = any(bool(slope[weight == 0].any()) for weight, slope in zip(weights, one, strict=True))
        require(alive, "no gradient reaches the zeros, so that no pruned synapse can ever grow again")

    def _build(self) -> Any:
        return self.config.build(OPERATOR_SITE, torch.Generator().manual_seed(2))


def _weight() -> Tensor:
    return torch.randn(12, 10, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
