"""MultiSpikeLIF with a component for its delays: what the component asks for holds, or is refused."""

from __future__ import annotations

import pytest
import torch

import delaykit as dk
from delaykit_timing import Events, MultiSpikeLIF


def build(delay):
    return MultiSpikeLIF(3, 3, delay=delay, dt=0.01, generator=torch.Generator().manual_seed(0))


def test_positions_of_one_population_keep_the_mask_of_self_connections():
    """Spatial(pre="p", post="p"): no neuron hears itself; kept, or refused."""
    spatial = pytest.importorskip("delaykit_spatial", reason="needs positions")
    try:
        layer = build(spatial.Spatial(pre="p", post="p"))
    except dk.DelaykitError as error:
        assert "self" in str(error) or "population" in str(error)
        return
    with torch.no_grad():
        layer.weight.copy_(50.0 * torch.eye(3))  # only self-connections are strong enough
    out = layer(Events.of([[0.1, 0.1, 0.1]], [[0, 1, 2]], size=3))
    assert not bool(torch.isfinite(out.times).any())


@pytest.mark.parametrize("component", ["free", "spatial"])
def test_no_estimator_means_no_gradient_for_delays(component):
    if component == "free":
        delay = dk.FreeDelay("axonal", max_delay=9, init=2.0, estimator="none")
    else:
        spatial = pytest.importorskip("delaykit_spatial", reason="needs positions")
        delay = spatial.Spatial(pre="a", post="b", estimator="none")
    try:
        layer = build(delay)
    except dk.DelaykitError as error:
        assert "estimator" in str(error)
        return
    with torch.no_grad():
        layer.weight.fill_(9.0)
    out = layer(Events.of([[0.1, 0.2, 0.3]], [[0, 1, 2]], size=3))
    times = out.times[torch.isfinite(out.times)]
    assert len(times)
    times.sum().backward()
    for name, p in layer.delay.named_parameters():
        assert p.grad is None or not bool(p.grad.any()), name
