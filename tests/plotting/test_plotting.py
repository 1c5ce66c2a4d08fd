"""Pictures show the numbers they were given, with units, and leave the caller's matplotlib as it was."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from delaykit.errors import ShapeError

mpl = pytest.importorskip("matplotlib", reason="the plot extra is not installed")
mpl.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

from delaykit import plotting  # noqa: E402


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_importing_plotting_loads_no_matplotlib():
    code = "import sys, delaykit.plotting; sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_style_is_restored():
    before = dict(mpl.rcParams)
    with plotting.style():
        assert mpl.rcParams["axes.spines.top"] is False
    assert dict(mpl.rcParams) == before


def test_a_new_figure_has_the_size_asked_for():
    made = plotting.axes(size=(3.0, 2.0), subplot_kw={"projection": "polar"})
    assert made.figure.get_size_inches().tolist() == [3.0, 2.0] and made.name == "polar"
    assert plotting.axes(made) is made
    plt.close(made.figure)


def test_an_array_is_read_from_tensors_that_learn_and_refused_without_numbers():
    assert plotting.array(torch.ones(2, requires_grad=True), 1, "x", "(n,)").tolist() == [1.0, 1.0]
    for values in (torch.zeros(0), torch.zeros(2, 2)):
        with pytest.raises(ShapeError, match=r"x: found shape .*expected \(n,\)"):
            plotting.array(values, 1, "x", "(n,)")


def test_raster_marks_every_spike_at_its_time(ax):
    spikes = torch.zeros(10, 4, requires_grad=True) + torch.eye(10, 4)
    assert plotting.raster(spikes, ax, dt_ms=2.0) is ax
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [(0, 0), (2, 1), (4, 2), (6, 3)])
    assert ax.get_xlabel() == "time (ms)"
    assert ax.get_xlim() == (-1.0, 19.0)
    assert all(tick == int(tick) for tick in ax.get_yticks())  # there is no channel 2.5


def test_raster_counts_are_darker(ax):
    plotting.raster(np.array([[1.0, 4.0]]), ax)
    alpha = ax.collections[0].get_alpha()
    assert alpha[0] < alpha[1] == 1.0
    assert ax.get_xlabel() == "time (steps)"


def test_raster_of_silence_is_empty(ax):
    plotting.raster(np.zeros((5, 3)), ax)
    assert len(ax.collections[0].get_offsets()) == 0


def test_delay_histogram_counts_every_delay(ax):
    delays = torch.tensor([[0.0, 3.2], [24.9, 25.0]])
    plotting.delay_histogram(delays, ax, before=[1.0, 2.0, 3.0], max_delay=25)
    heights = [patch.get_height() for patch in ax.patches if hasattr(patch, "get_height")]
    assert sum(heights) == 4 and heights[0] == 1 and heights[3] == 1 and heights[-1] == 2 and len(heights) == 26
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["after training", "before"]
    assert ax.get_xlabel() == "delay (steps)"


def test_delay_histogram_keeps_delays_above_a_too_small_axis_visible(ax):
    plotting.delay_histogram([1.0, 30.0], ax)
    assert ax.get_xlim() == (-0.5, 30.5)
    assert sum(patch.get_height() for patch in ax.patches) == 2


def test_delay_pairs_mark_each_delay_before_and_after(ax):
    assert plotting.delay_pairs([[1.0, 2.0]], torch.tensor([[1.0, 5.0]]), ax, dt_ms=2.0) is ax
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [(2, 2), (4, 10)])
    assert ax.get_xlabel() == "delay before training (ms)" and ax.get_ylabel() == "delay after training (ms)"
    assert ax.get_xlim() == ax.get_ylim() and ax.get_xlim()[1] >= 10.0
    with pytest.raises(ShapeError, match="delay_pairs: found shapes"):
        plotting.delay_pairs([1.0], [1.0, 2.0], ax)


@pytest.mark.parametrize("largest", [0.5, 9.9, 10.0, 39.0, 40.0, 333.3])
def test_every_delay_up_to_the_largest_has_a_bin(ax, largest):
    plotting.delay_histogram(np.linspace(0, largest, 101), ax, max_delay=largest)
    heights = [patch.get_height() for patch in ax.patches]
    assert sum(heights) == 101 and 10 <= len(heights) <= 41


def test_learning_curves_show_the_mean_and_the_range(ax):
    runs = np.array([[0.1, 0.5], [0.3, 0.9]])
    plotting.learning_curves({"learned": runs}, ax, chance=0.05)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [20.0, 70.0])
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [1, 2])
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(10.0) and band.max() == pytest.approx(90.0)
    assert ax.lines[1].get_ydata()[0] == pytest.approx(5.0)
    assert ax.get_ylabel() == "validation accuracy (%)"


def test_losses_are_not_scaled(ax):
    plotting.learning_curves({"a": [2.0, 1.0]}, ax, quantity="loss", percent=False)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [2.0, 1.0])
    assert ax.get_ylabel() == "loss"


def test_accuracies_write_mean_and_standard_error(ax):
    plotting.accuracies({"bare": [0.8, 0.9], "one seed": [0.5]}, ax, chance=1 / 9)
    assert [text.get_text() for text in ax.texts] == ["85.0 \u00b1 5.0", "50.0"]
    assert ax.get_xlabel() == "test accuracy (%); chance 11.1 %"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["bare", "one seed"]


def test_kernel_draws_lines_with_labels(ax):
    plotting.kernel(np.eye(3), ax, dt_ms=0.5, labels=["a", "b", "c"])
    np.testing.assert_allclose(ax.lines[1].get_xdata(), [0, 0.5, 1.0])
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [0, 1, 0])
    assert ax.get_xlabel() == "time since the spike (ms)"


def test_kernel_of_many_synapses_is_an_image_with_a_symmetric_scale(ax):
    plotting.kernel(torch.randn(4, 5, 7, generator=torch.Generator().manual_seed(0)), ax)
    image = ax.images[0]
    assert image.get_array().shape == (20, 7)
    assert image.norm.vmin == -image.norm.vmax


def test_a_new_figure_is_made_and_never_shown(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *_: pytest.fail("show was called"))
    made = plotting.kernel([1.0, 0.5])
    assert made.figure is not None
    plt.close(made.figure)


@pytest.mark.parametrize("draw", [
    lambda: plotting.raster(np.zeros(3)),
    lambda: plotting.delay_histogram([]),
    lambda: plotting.learning_curves({"a": np.zeros((2, 2, 2))}),
    lambda: plotting.accuracies({"a": []}),
    lambda: plotting.kernel(np.eye(2), labels=["only one"]),
])  # fmt: skip
def test_bad_input_is_a_shape_error(draw):
    with pytest.raises(ShapeError):
        draw()
    plt.close("all")
