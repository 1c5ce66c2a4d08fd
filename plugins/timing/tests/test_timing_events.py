"""Event tensors, their converters and the encoders."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from delaykit import ConfigError, ShapeError
from delaykit_timing import Events, first_spike_encode, from_raster, from_tonic, latency_encode, to_raster


@given(st.integers(0, 10**6), st.floats(1e-4, 10.0))
def test_a_raster_comes_back_from_its_events(seed: int, dt: float) -> None:
    g = torch.Generator().manual_seed(seed)
    raster = torch.poisson(torch.full((7, 3, 4), 0.4), generator=g)
    events = from_raster(raster, dt)
    assert torch.equal(to_raster(events, dt, 7), raster)
    assert torch.equal(events.spike_counts(), raster.sum(0).long())
    assert torch.equal(events.counts, raster.sum((0, 2)).long())


@given(st.integers(0, 10**6))
def test_rows_ascend_and_empty_slots_come_last(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    spikes = int(torch.randint(0, 30, (), generator=g))
    sample = torch.randint(0, 4, (spikes,), generator=g)
    when, neuron = torch.rand(spikes, generator=g), torch.randint(0, 5, (spikes,), generator=g)
    events = Events.gather(when, sample, neuron, 4, 5)
    assert bool((events.times.diff(dim=1).nan_to_num(0.0) >= 0).all())
    assert torch.equal(events.counts, torch.bincount(sample, minlength=4))
    for b in range(4):
        for j in range(5):
            assert torch.equal(events.of_neuron(b, j), when[(sample == b) & (neuron == j)].sort().values)


def test_gradients_pass_through_merging_and_first_times() -> None:
    when = torch.tensor([0.4, 0.1, 0.3], dtype=torch.float64, requires_grad=True)
    events = Events.gather(when, torch.tensor([0, 0, 1]), torch.tensor([0, 0, 1]), 2, 2)
    first = events.first_times(silent=2.0)
    assert first.tolist() == [[0.1, 2.0], [2.0, 0.3]]
    (first * torch.tensor([[1.0, 10.0], [100.0, 1000.0]])).sum().backward()
    assert when.grad.tolist() == [0.0, 1.0, 1000.0]


def test_tonic_s_arrays_of_two_shapes() -> None:
    sound = np.array([(3000, 5), (1000, 2)], dtype=[("t", "<i8"), ("x", "<u2")])
    events = from_tonic([sound, sound[:0]], (700, 1, 1), unit=1e-6)
    assert events.times[0].tolist() == pytest.approx([0.001, 0.003]) and events.neurons[0].tolist() == [2, 5]
    assert events.size == 700 and events.counts.tolist() == [2, 0]
    camera = np.array([(10, 3, 1, True)], dtype=[("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "?")])
    assert from_tonic([camera], (34, 34, 2)).neurons.tolist() == [[(1 * 34 + 1) * 34 + 3]]
    with pytest.raises(ShapeError, match="t and x"):
        from_tonic([np.zeros(1, dtype=[("t", "<i8")])], (1, 1, 1))


def tonic_data_sets():
    """Every data set of tonic that says what its events look like, without any of their files."""
    tonic = pytest.importorskip("tonic", reason="tonic is not installed")
    found = {}
    for name in dir(tonic.datasets):
        kind = getattr(tonic.datasets, name)
        if isinstance(kind, type) and isinstance(getattr(kind, "dtype", None), np.dtype):
            found[name] = (kind.dtype, getattr(kind, "sensor_size", None))
    assert len(found) > 15 and {"SHD", "SSC", "NMNIST", "DVSGesture", "SMNIST"} <= set(found)
    return found


def test_every_data_set_of_tonic_is_taken_in_its_own_dtype_and_sensor_size() -> None:
    for name, (dtype, size) in tonic_data_sets().items():
        if name == "SMNIST":
            size = (100, 1, 1)  # set by its instances to (99, 1, 1), which its own events exceed
        elif not isinstance(size, tuple):
            with pytest.raises(ShapeError, match="give the size of these recordings"):
                from_tonic([np.zeros(1, dtype)], size)
            size = (240, 180, 2)
        width, height, polarities = size
        recording = np.zeros(3, dtype)
        recording["t"], recording["x"] = [5, 1, 9], [width - 1, 0, width - 1]
        y = height - 1 if "y" in dtype.names else 0
        if y:
            recording["y"] = [0, y, y]
        recording["p"] = 1 if polarities == 1 else [0, 1, 1]  # one polarity is written as 1
        p = [0, 0, 0] if polarities == 1 else [1, 0, 1]
        events = from_tonic([recording, recording[:0]], size, unit=1e-6)
        places = [(0, y), (width - 1, 0), (width - 1, y)]
        wanted = [(q * height + row) * width + x for q, (x, row) in zip(p, places, strict=True)]
        assert events.neurons[0].tolist() == wanted, name
        assert events.size == width * height * polarities and events.counts.tolist() == [3, 0]


def test_what_shd_really_yields(tmp_path) -> None:
    tonic = pytest.importorskip("tonic", reason="tonic is not installed")
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    (tmp_path / "SHD").mkdir()
    with h5py.File(tmp_path / "SHD" / "shd_test.h5", "w") as file:
        for name, base, values in (("times", np.float16, [0.25, 0.5]), ("units", np.uint16, [699, 3])):
            file.create_dataset(f"spikes/{name}", (1,), dtype=h5py.vlen_dtype(base))[0] = np.array(values, base)
        file["labels"], file["extra/keys"], file["extra/speaker"] = np.zeros(1, np.uint16), np.array([b"a"]), [0]
    (tmp_path / "SHD" / "shd_test.h5.zip").touch()
    data = tonic.datasets.SHD(str(tmp_path), train=False)
    events = from_tonic([data[0][0]], data.sensor_size)
    assert events.times.tolist() == [[0.25, 0.5]] and events.neurons.tolist() == [[699, 3]] and events.size == 700


def test_polarities_are_numbered_and_what_lies_outside_is_refused() -> None:
    camera = np.dtype([("t", int), ("x", int), ("y", int), ("p", int)])
    signed = np.array([(1, 0, 0, -1), (2, 0, 0, 1)], camera)
    assert from_tonic([signed], (2, 2, 2)).neurons.tolist() == [[0, 4]]
    with pytest.raises(ShapeError, match="one polarity"):
        from_tonic([signed], (2, 2, 1))
    with pytest.raises(ShapeError, match=r"y = 5 .. 5 in sample 0; expected 0 .. 1"):
        from_tonic([np.array([(1, 0, 5, 0)], camera)], (2, 2, 2))
    with pytest.raises(ShapeError, match="SMNIST"):
        from_tonic([np.array([(1, 99, 0, 0)], camera)], (99, 1, 1))


def test_latency_leaves_the_background_out() -> None:
    events = latency_encode(torch.tensor([[0.0, 1.0, 0.5], [0.0, 0.0, 0.0]]), end=2.0)
    assert events.times.tolist() == [[0.0, 1.0], [math.inf, math.inf]]
    assert events.neurons.tolist() == [[1, 2], [0, 0]] and events.times.dtype == torch.float64


def test_first_spike_coding_keeps_every_value() -> None:
    events = first_spike_encode(torch.tensor([[0.0, 1.0, 0.25]]), start=0.1, span=4.0)
    assert events.times[0].tolist() == pytest.approx([0.1, 1.1, 4.1]) and events.neurons.tolist() == [[0, 2, 1]]


@pytest.mark.parametrize(
    "values", [torch.tensor([[1.5]]), torch.tensor([[-0.1]]), torch.tensor([[math.nan]]), torch.ones(3)]
)
def test_values_out_of_range_are_refused(values: torch.Tensor) -> None:
    with pytest.raises(ShapeError):
        latency_encode(values)
    with pytest.raises(ShapeError):
        first_spike_encode(values)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="NaN"):
        Events(torch.tensor([[math.nan]]), torch.zeros(1, 1, dtype=torch.int64), 1)
    with pytest.raises(ShapeError, match="int64"):
        Events(torch.zeros(1, 1), torch.zeros(1, 1), 1)
    with pytest.raises(ShapeError, match=r"0\.\.0"):
        Events(torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.int64), 1)
    with pytest.raises(ShapeError, match="as many"):
        Events.of([[0.1]], [[0, 1]], size=2)
    with pytest.raises(ShapeError, match="counts|whole"):
        from_raster(torch.full((2, 1, 1), 0.5), 1.0)
    with pytest.raises(ConfigError, match="dt"):
        from_raster(torch.ones(2, 1, 1), 0.0)
    with pytest.raises(ConfigError, match="start"):
        first_spike_encode(torch.ones(1, 1), start=-1.0)
