"""Laws of delays: a wrapped network is the network whose inputs were shifted by hand, sequence after sequence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit.testing.adapters.laws_wrapping import AdapterKit
from delaykit.testing.adapters.library_net import LibraryNet, input_spikes
from delaykit.testing.kit import GRADIENT_TOLERANCE, VALUE_TOLERANCE, assert_equal, gradients, require

DELAYS = (2.0, 2.5)
GRANULARITIES = ("layer", "dendritic")


class DelayLaws(AdapterKit):
    """What an adapter owes about when a spike arrives and when a sequence begins."""

    def test_delays_are_shifts(self, case: LibraryNet) -> None:
        """A first, a repeated and a different-batch sequence equal the hand-shifted ones, with every gradient."""
        first, other = input_spikes(18, 3), input_spikes(13, 5, seed=1)
        for granularity in GRANULARITIES:
            for steps in DELAYS:
                net, bare = self.wrapped(case, steps, granularity), case.build()
                mine, theirs, delays = _leaves(case, net, bare, steps)
                by_hand = [case.by_hand(bare, spikes, delays, granularity) for spikes in (first, other)]
                wanted = {id(x): (late, _slopes(late, theirs)) for x, late in zip((first, other), by_hand, strict=True)}
                silent = torch.allclose(by_hand[0], case.run(bare, first))
                require(not silent, f"delays do not matter to {case}: let it fire")
                for which, spikes in (("first", first), ("repeated", first), ("other-batch", other), ("last", first)):
                    found, (late, wanted_slopes) = case.run(net, spikes), wanted[id(spikes)]
                    what = f"{which} sequence of {case}, {granularity} delays of {steps}"
                    assert_equal([found], [late], VALUE_TOLERANCE, what)
                    each = zip(_slopes(found, mine), wanted_slopes, strict=True)
                    slopes = [a if a.shape == b.shape else a.sum() for a, b in each]  # by hand, one delay for all
                    assert_equal(slopes, wanted_slopes, GRADIENT_TOLERANCE, f"gradient of the {what}")

    def test_a_sequence_leaves_nothing_behind(self, case: LibraryNet) -> None:
        """After a sequence that was broken off, with spikes under way, the next one is that of a fresh network."""
        spikes = input_spikes()
        wanted = case.run(self.wrapped(case, 2.5), spikes)
        net = self.wrapped(case, 2.5)
        for length in (3, 7):
            case.run(net, input_spikes(length, 3, seed=length))
            assert_equal([case.run(net, spikes)], [wanted], VALUE_TOLERANCE, f"{case} after {length} steps of another")
        with torch.no_grad():
            case.run(net, input_spikes(4, 3, seed=9))
        assert_equal([case.run(net, spikes)], [wanted], VALUE_TOLERANCE, f"{case} after a run without gradients")

    def test_disabled_is_the_bare_net(self, case: LibraryNet) -> None:
        """Inside ``dk.disabled`` the network is bare; behind it the delays are back."""
        spikes, net = input_spikes(), self.wrapped(case, 2.5)
        wanted = case.run(net, spikes)
        with dk.disabled(net):
            require(torch.equal(case.run(net, spikes), case.run(case.build(), spikes)), f"disabled {case} is not bare")
        assert_equal([case.run(net, spikes)], [wanted], VALUE_TOLERANCE, f"{case} after dk.disabled")


def _slopes(output: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(7)).to(output)
    return gradients((output * weights).sum(), leaves)


def _leaves(
    case: LibraryNet, net: nn.Module, bare: nn.Module, steps: float
) -> tuple[list[Tensor], list[Tensor], dict[str, Tensor]]:
    """Pair the parameters of a wrapped network with those of the bare one and with delays given by hand."""
    delays = {site: torch.tensor(steps, dtype=torch.float64, requires_grad=True) for site in case.sites}
    found = {site.name: site.synapse.delay for site in dk.wrapped_sites(net)}
    require(set(found) == set(delays), f"{case} was wrapped at {sorted(found)}, not at {sorted(delays)}")
    named = dict(net.named_parameters())
    mine: list[Tensor] = [named[name] for name, _ in bare.named_parameters()]
    mine += [found[site].delay for site in delays]  # type: ignore[union-attr, misc]
    return mine, [*bare.parameters(), *delays.values()], delays
