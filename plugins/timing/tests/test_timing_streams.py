"""Windows of exact spike times, run and trained one after the other: constant memory, constant work."""

from __future__ import annotations

import pytest
import torch

import delaykit as dk
from delaykit.testing.faults import how_many
from delaykit.testing.faults.steady_costs import check_steady
from delaykit_timing import Events, MultiSpikeLIF

MANY = how_many(300, 5000)
DELAYS = {"none": None, "axonal": dk.FreeDelay("axonal", max_delay=5), "synaptic": dk.FreeDelay(max_delay=5)}


def made(delay):
    generator = torch.Generator().manual_seed(0)
    layer = MultiSpikeLIF(4, 3, weight_mean=2.0, delay=DELAYS[delay], dt=0.02, generator=generator)
    times = torch.rand(2, 6, generator=generator).sort().values
    return layer, Events.of(times.tolist(), [[0, 1, 2, 3, 0, 1]] * 2, size=4)


@pytest.mark.usefixtures("young_heap")
@pytest.mark.slow
@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("trained", [True, False])
def test_window_after_window_costs_the_same(delay, trained):
    layer, events = made(delay)
    assert len(layer.spikes(events).when) > 3  # a silent layer would show nothing
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-6)

    def window():
        if not trained:
            with torch.no_grad():
                return layer(events)
        optimizer.zero_grad()
        layer.spikes(events).when.sum().backward()
        optimizer.step()

    check_steady(window, MANY)
