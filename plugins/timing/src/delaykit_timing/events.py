"""Event tensors: which neuron fired when, padded to one width, and their converters.

An empty slot has time infinity; rows ascend in time. Times carry gradients, neuron numbers do not.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from delaykit import checks
from delaykit.errors import ShapeError
from delaykit.functional.inputs import check_tensors


@checks.annotated
@dataclasses.dataclass(frozen=True)
class Events:
    """Spikes of a population in continuous time, for every sample of a batch.

    Args:
        times: ``(sample, slot)``, ascending, infinity in empty slots, in any one unit.
        neurons: number of the neuron of each, ``(sample, slot)``, int64; 0 in empty slots.
        size: number of neurons in the population.
        potential: potentials at the end of the window, ``(sample, neuron)``, where a layer made these spikes.

    Raises:
        ShapeError: the tensors do not belong together.

    Example:
        >>> events = Events.of([[0.3, 0.1], []], [[2, 0], []], size=3)
        >>> events.times
        tensor([[0.1000, 0.3000],
                [   inf,    inf]], dtype=torch.float64)
        >>> events.counts, events.spike_counts()
        (tensor([2, 0]), tensor([[1, 0, 1],
                [0, 0, 0]]))
    """

    times: Tensor
    neurons: Tensor
    size: int
    potential: Tensor | None = None

    def __post_init__(self) -> None:
        if self.times.dim() != 2 or self.neurons.shape != self.times.shape or self.neurons.dtype != torch.int64:
            found = f"times {tuple(self.times.shape)} and neurons {tuple(self.neurons.shape)}, {self.neurons.dtype}"
            raise ShapeError("Events", found, "(sample, slot) twice, neurons int64", "use Events.of or from_raster")
        if bool(self.times.detach().isnan().any()):
            fix = "write infinity where there is no spike"
            raise ShapeError("Events", "a time that is NaN", "finite times, infinity in empty slots", fix)
        if self.neurons.numel() and not 0 <= int(self.neurons.min()) <= int(self.neurons.max()) < self.size:
            found = f"neurons {int(self.neurons.min())}..{int(self.neurons.max())}"
            raise ShapeError("Events", found, f"0..{self.size - 1}", "check size=")

    @classmethod
    @checks.annotated
    def of(
        cls,
        times: Sequence[Sequence[float]],
        neurons: Sequence[Sequence[int]],
        size: int,
        dtype: torch.dtype = torch.float64,
    ) -> Events:
        """Make events from one list of times and one of neurons a sample, in any order."""
        if len(times) != len(neurons) or any(len(t) != len(n) for t, n in zip(times, neurons, strict=True)):
            fix = "give each time its neuron"
            raise ShapeError("Events.of", "lists of different lengths", "as many neurons as times in every sample", fix)
        lengths = torch.tensor([len(t) for t in times], dtype=torch.int64)
        sample = torch.repeat_interleave(torch.arange(len(times)), lengths)
        flat = torch.tensor([t for row in times for t in row], dtype=dtype)
        which = torch.tensor([n for row in neurons for n in row], dtype=torch.int64)
        return cls.gather(flat, sample, which, len(times), size)

    @classmethod
    @checks.annotated
    def gather(
        cls, when: Tensor, sample: Tensor, neuron: Tensor, batch: int, size: int, potential: Tensor | None = None
    ) -> Events:
        """Merge loose spikes into sorted rows; differentiable.

        Args:
            when: time of each spike, ``(spike,)``.
            sample: sample of each, ``(spike,)``.
            neuron: neuron of each, ``(spike,)``.
            batch: number of samples.
            size: number of neurons.
            potential: kept with the events, ``(sample, neuron)``.
        """
        checks.whole("Events.gather batch", batch)
        for name, values in (("sample", sample), ("neuron", neuron)):
            if when.ndim != 1 or values.shape != when.shape or values.dtype != torch.int64:
                found = f"{name} of shape {tuple(values.shape)}, {values.dtype}, times of shape {tuple(when.shape)}"
                raise ShapeError("Events.gather", found, "(spike,) for all, int64", "give each time both")
        if len(sample) and not 0 <= int(sample.min()) <= int(sample.max()) < batch:
            found = f"samples {int(sample.min())}..{int(sample.max())}"
            raise ShapeError("Events.gather", found, f"0..{batch - 1}", "check batch=")
        order = torch.argsort(when.detach(), stable=True)
        order = order[torch.argsort(sample[order], stable=True)]
        counts = torch.bincount(sample, minlength=batch)
        row = sample[order]
        slot = torch.arange(len(order), device=when.device) - (counts.cumsum(0) - counts)[row]
        shape = batch, int(counts.max()) if batch else 0
        times = when.new_full(shape, math.inf).index_put((row, slot), when[order])
        neurons = torch.zeros(shape, dtype=torch.int64, device=when.device).index_put((row, slot), neuron[order])
        return cls(times, neurons, size, potential)

    @property
    def mask(self) -> Tensor:
        """True in filled slots, ``(sample, slot)``."""
        return torch.isfinite(self.times.detach())

    @property
    def counts(self) -> Tensor:
        """Number of spikes of each sample, ``(sample,)``."""
        return self.mask.sum(1)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.times)

    def spike_counts(self) -> Tensor:
        """Number of spikes of each neuron, ``(sample, neuron)``, int64."""
        counts = torch.zeros(len(self), self.size, dtype=torch.int64, device=self.times.device)
        return counts.scatter_add(1, self.neurons, self.mask.long())

    @checks.annotated
    def first_times(self, silent: float = math.inf) -> Tensor:
        """Time of the first spike of each neuron, ``(sample, neuron)``, differentiable; ``silent`` for none."""
        samples, slots = self.times.shape
        slot = torch.arange(slots, device=self.times.device).expand(samples, slots)
        first = torch.full((samples, self.size), slots, dtype=torch.int64, device=self.times.device)
        first = first.scatter_reduce(1, self.neurons, torch.where(self.mask, slot, slots), "amin")
        padded = torch.cat([torch.where(self.mask, self.times, silent), self.times.new_full((samples, 1), silent)], 1)
        return padded.gather(1, first)

    @checks.annotated
    def of_neuron(self, sample: int, neuron: int) -> Tensor:
        """Spike times of one neuron in one sample, ascending."""
        if not -len(self) <= sample < len(self):
            raise ShapeError("Events.of_neuron", f"sample {sample}", f"0..{len(self) - 1}", "correct sample=")
        return self.times[sample, self.mask[sample] & (self.neurons[sample] == neuron)]


@checks.annotated
def from_raster(raster: Tensor, dt: float) -> Events:
    """Turn binned spikes into events, ``t = step dt``; a count of n makes n events.

    Args:
        raster: spikes or counts, ``(time, sample, neuron)``, whole numbers >= 0.
        dt: length of a step in the unit of the times to make, > 0.

    Returns:
        Events with float64 times.

    Example:
        >>> from_raster(torch.eye(3).unsqueeze(1), dt=0.5).times
        tensor([[0.0000, 0.5000, 1.0000]], dtype=torch.float64)
    """
    check_tensors("from_raster", floating=False, raster=raster)
    if raster.dim() != 3:
        fix = "reshape the raster, time first"
        raise ShapeError("from_raster", f"shape {tuple(raster.shape)}", "(time, sample, neuron)", fix)
    _check_dt("from_raster", dt)
    if bool((raster < 0).any()) or bool((raster != raster.round()).any()):
        fix = "count the spikes of each step"
        raise ShapeError("from_raster", "values that are no counts", "whole numbers >= 0", fix)
    step, sample, neuron = raster.nonzero(as_tuple=True)
    repeats = raster[step, sample, neuron].long()
    step, sample, neuron = (torch.repeat_interleave(x, repeats) for x in (step, sample, neuron))
    return Events.gather(step.double() * dt, sample, neuron, raster.shape[1], raster.shape[2])


@checks.annotated
def to_raster(events: Events, dt: float, steps: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Count events in bins, ``step = floor(t / dt)``; the inverse of :func:`from_raster` on its results.

    A time within 1e-9 of a bin below its edge counts as on the edge, so that ``step * dt`` finds its step again.

    Args:
        events: spikes.
        dt: width of a bin, > 0.
        steps: number of bins; later events are left out.
        dtype: dtype of the result.

    Returns:
        Counts ``(time, sample, neuron)``.

    Example:
        >>> to_raster(Events.of([[0.1, 0.7]], [[0, 1]], size=2), dt=0.5, steps=2)[:, 0]
        tensor([[1., 0.],
                [0., 1.]])
    """
    _check_dt("to_raster", dt)
    checks.whole("to_raster steps", steps)
    step = torch.floor(events.times.detach() / dt + 1e-9)
    sample, slot = (events.mask & (step >= 0) & (step < steps)).nonzero(as_tuple=True)
    raster = torch.zeros(steps, len(events), events.size, dtype=dtype, device=events.times.device)
    place = step[sample, slot].long(), sample, events.neurons[sample, slot]
    return raster.index_put(place, torch.ones((), dtype=dtype, device=raster.device), accumulate=True)


def from_tonic(recordings: Sequence[Any], sensor_size: tuple[int, int, int], unit: float = 1e-6) -> Events:
    """Turn tonic's structured event arrays into events; neuron = ``(p * height + y) * width + x``.

    Of two polarities the negative one, written False, 0 or -1, is p = 0. Data sets of one polarity write it as they
    like (the spoken digits as 1): it is p = 0, too.

    Args:
        recordings: one structured array a sample with fields ``t`` and ``x``, and ``y`` and ``p`` where there are any.
        sensor_size: (width, height, polarities), as tonic's data sets have it.
        unit: length of tonic's time unit in yours; tonic counts microseconds, so 1e-6 makes seconds.

    Returns:
        Events with float64 times.

    Raises:
        ShapeError: a field is missing, or an event lies outside the sensor.

    Example:
        >>> recording = np.array([(2000, 1, 0, 1)], dtype=[("t", int), ("x", int), ("y", int), ("p", int)])
        >>> events = from_tonic([recording], (2, 1, 2), unit=1e-3)
        >>> events.times.tolist(), events.neurons.tolist(), events.size
        ([[2.0]], [[3]], 4)
    """
    checks.number("from_tonic unit", unit, above=0)
    if not checks.fits(recordings, Sequence[Any]):
        fix = "pass [events] for one"
        raise ShapeError("from_tonic", checks.shown(recordings), "a list of tonic's event arrays", fix)
    try:
        width, height, polarities = (operator.index(size) for size in sensor_size)
    except (TypeError, ValueError):
        fix = "give the size of these recordings; tonic's NCALTECH101 has a different one for each"
        raise ShapeError("from_tonic", f"sensor_size {sensor_size!r}", "(width, height, polarities)", fix) from None
    times, neurons = [], []
    for sample, recording in enumerate(recordings):
        fields = getattr(getattr(recording, "dtype", None), "names", None) or ()
        missing = sorted({"t", "x"} - set(fields))
        if missing:
            fix = "pass the events of a tonic data set"
            raise ShapeError("from_tonic", f"fields {fields}", "a structured array with t and x (and y, p)", fix)
        place = {name: recording[name].astype(np.int64) for name in ("x", "y", "p") if name in fields}
        if "p" in place:
            place["p"] = _polarity(place["p"], polarities, sample)
        for name, size in (("x", width), ("y", height), ("p", polarities)):
            _check_inside(name, place.get(name), size, sample)
        neurons.append((place.get("p", 0) * height + place.get("y", 0)) * width + place["x"])
        times.append(recording["t"].astype(np.float64) * unit)
    samples = np.repeat(np.arange(len(times)), [len(t) for t in times])
    flat = [torch.from_numpy(np.concatenate(x)) if x else torch.zeros(0) for x in (times, neurons)]
    when, neuron, size = flat[0].double(), flat[1].long(), width * height * polarities
    return Events.gather(when, torch.from_numpy(samples), neuron, len(times), size)


def _polarity(p: NDArray[np.int64], polarities: int, sample: int) -> NDArray[np.int64]:
    """Number the polarities from 0, however the data set writes them."""
    if polarities == 1:
        if len(p) and p.min() != p.max():
            found = f"p = {p.min()} .. {p.max()} in sample {sample}"
            raise ShapeError("from_tonic", found, "one polarity", "give sensor_size=(width, height, 2)")
        return np.zeros_like(p)
    if polarities == 2 and len(p) and p.min() == -1 and not (p == 0).any():
        return (p > 0).astype(np.int64)
    return p


def _check_inside(name: str, values: NDArray[np.int64] | None, size: int, sample: int) -> None:
    if values is None or not len(values) or 0 <= values.min() <= values.max() < size:
        return
    found, fix = f"{name} = {values.min()} .. {values.max()} in sample {sample}", "give the sensor_size that holds them"
    if name == "x" and values.max() == size:
        fix += "; tonic's SMNIST numbers its neurons up to num_neurons, which takes (num_neurons + 1, 1, 1)"
    raise ShapeError("from_tonic", found, f"0 .. {size - 1}", fix)


def _check_dt(where: str, dt: float) -> None:
    checks.number(f"{where} dt", dt, above=0, what="length", fix="give a step in the unit of the times")
