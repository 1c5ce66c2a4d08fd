"""Tiny nets of the conformance kit: what they cannot be asked for."""

from __future__ import annotations

import pytest

import delaykit as dk
from delaykit.testing.nets import LoopInside, input_spikes, tiny_nets


@pytest.mark.parametrize("library", ["snntorch", "snntorch-synaptic"])
def test_a_net_with_its_loop_inside_runs_no_pieces(library: str) -> None:
    pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")
    inside = [net for net in tiny_nets(library) if isinstance(net, LoopInside)]
    assert inside
    for net in inside:
        with pytest.raises(dk.ConfigError, match="its loop is inside"):
            list(net.segments(net.build(), input_spikes(4), 2))
        assert len(list(net.segments(net.build(), input_spikes(4), 4))) == 1
