"""Plots draw what they are given, on the axes they are given."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from delaykit import ShapeError
from delaykit_hetsyn.plotting import answer, membranes, tau_histogram


@pytest.fixture
def ax() -> Iterator:
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="needs matplotlib, the extra `plot`")
    pyplot.switch_backend("agg")
    figure, axes = pyplot.subplots()
    yield axes
    pyplot.close(figure)


def test_every_time_constant_is_counted_and_endless_ones_sit_at_the_end(ax) -> None:
    after = torch.tensor([[5.0, 20.0], [np.inf, 0.0]])
    assert tau_histogram(after, ax, before=torch.full((2, 2), 20.0)) is ax
    shares = [patch.get_height() for patch in ax.containers[0]]
    assert sum(shares) == pytest.approx(100.0) and max(shares) == 25.0
    assert ax.get_xscale() == "log" and "endless" in ax.get_xlabel()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["after training", "before"]


def test_several_connections_are_outlines_with_names(ax) -> None:
    tau_histogram({"input": torch.rand(50) + 1, "readout": torch.rand(9) + 3}, ax)
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"input", "readout"}
    assert ax.get_xlabel() == "time constant (ms)"
    with pytest.raises(ShapeError, match="at least one time constant"):
        tau_histogram(torch.zeros(0), ax)


def test_membranes_lie_in_lanes_that_do_not_overlap(ax) -> None:
    membrane = torch.sin(torch.arange(200) / 10.0).unsqueeze(1).repeat(1, 3)
    spikes = (membrane > 0.9).float()
    membranes(membrane, ax, spikes=spikes, dt_ms=5.0, labels=("a", "b", "c"), spans=[(50.0, 150.0)])
    traces = [line.get_ydata() for line in ax.lines if len(line.get_xdata()) == 200]
    assert len(traces) == 3
    for above, below in zip(traces, traces[1:], strict=False):
        assert below.max() < above.min() + (above.max() - above.min())
        np.testing.assert_allclose(above - above[0], below - below[0], atol=1e-6)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]
    assert ax.get_xlim() == (0.0, 995.0)
    marks = [line for line in ax.lines if line.get_marker() == "|"]
    assert [len(line.get_xdata()) for line in marks] == [int(spikes[:, 0].sum())] * 3
    with pytest.raises(ShapeError):
        membranes(membrane[:, 0], ax)
    with pytest.raises(ShapeError):
        membranes(membrane, ax, labels=("a",))


def test_an_answer_is_drawn_against_its_target(ax) -> None:
    target = torch.linspace(-1, 1, 50)
    answer(2 * target, target, ax, label="F-HetSynLIF")
    curves = {line.get_label(): line.get_ydata() for line in ax.lines}
    np.testing.assert_allclose(curves["F-HetSynLIF"], 2 * curves["target"])
    with pytest.raises(ShapeError):
        answer(target[:10], target, ax)
