"""The entry module loads nothing heavy, and the pictures draw."""

from __future__ import annotations

import subprocess
import sys

import matplotlib
import pytest
import torch

import delaykit_timing
from delaykit import ShapeError
from delaykit_timing import MultiSpikeLIF, latency_encode, plugin
from delaykit_timing.plotting import accuracy_against_tau, event_raster, membrane, spike_histogram

matplotlib.use("Agg")


def test_the_entry_module_imports_no_torch() -> None:
    code = (
        "import sys; from delaykit_timing import plugin; list(plugin.delaykit_components());"
        "list(plugin.delaykit_health()); sys.exit(sorted({'torch', 'numba', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_health_knows_of_the_compiled_kernels() -> None:
    assert [(name, fine) for name, fine, _ in plugin.delaykit_health()] == [("timing: compiled kernels", True)]


def test_every_public_name_is_there() -> None:
    for name in delaykit_timing.__all__:
        assert getattr(delaykit_timing, name) is not None
    assert callable(delaykit_timing.spike_times)


def test_pictures_have_labelled_axes() -> None:
    torch.manual_seed(0)
    layer = MultiSpikeLIF(6, 3, weight_mean=1.0)
    events = latency_encode(torch.rand(2, 6))
    counts = layer(events).spike_counts()
    axes = [
        membrane(layer, events, [0, 2], unit="ms"),
        event_raster(layer(events), unit="ms"),
        spike_histogram(torch.bincount(counts.flatten()) / counts.numel(), label="tau 0.8"),
        accuracy_against_tau({"many spikes": {0.4: [0.9, 0.92], 0.8: [0.95]}, "one spike": {0.8: [0.93]}}),
    ]
    assert axes[0].get_xlabel() == "time (ms)" and axes[0].get_ylabel() == "potential"
    assert [len(axes[0].lines[k].get_xdata()) for k in (1, 3)] == [int(counts[0, 0]), int(counts[0, 2])]
    assert all(ax.get_xlabel() and ax.get_ylabel() for ax in axes)
    with pytest.raises(ShapeError, match="neurons"):
        membrane(layer, events, [])
