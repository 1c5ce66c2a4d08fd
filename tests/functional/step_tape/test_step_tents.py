"""Triangles by two cells a synapse against the same triangles by taps: values, every gradient, cuts, long sequences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from delaykit.arrivals import Triangle
from delaykit.functional.delayed_linear import delayed_linear, tented_sequences
from delaykit.functional.delayed_linear.tented_sequences import tented_linear
from delaykit.functional.dispatch import backend
from delaykit.functional.step_tape import LinearTape
from delaykit.functional.step_tape.cells.lines import SLACK
from delaykit.functional.step_tape.cells.tents import TentFilter, grid_of
from delaykit.functional.tents import Tents
from delaykit.testing.faults.steady_costs import living
from tests.functional.judging import assert_close, needs_numba

PRE, POST, BATCH = 4, 3, 2
WIDTHS = (1.5, 2.0, 2.75, 5.0, 5.3)
RUNS = [pytest.param("torch"), pytest.param("cpu", marks=needs_numba)]


def parts(width: float, whole: bool = False, time: int = 40, seed: int = 0) -> tuple[Tents, Tensor, Tensor, Tensor]:
    """Delays that reach from 0 to beyond a triangle's half width, a weight, a bias and inputs, all with a gradient."""
    g = torch.Generator().manual_seed(seed)
    delays = torch.rand(POST, PRE, generator=g, dtype=torch.float64) * 9
    delays = (delays.round() if whole else delays).requires_grad_()
    weight = torch.randn(POST, PRE, generator=g, dtype=torch.float64).requires_grad_()
    bias = torch.randn(POST, generator=g, dtype=torch.float64).requires_grad_()
    x = torch.randn(time, BATCH, PRE, generator=g, dtype=torch.float64).requires_grad_()
    tents = Triangle(width - 1.0).tents(delays)
    assert tents is not None and grid_of(tents, weight) is not None
    return tents, weight, bias, x


def loss(out: Tensor, steps: slice = slice(None)) -> Tensor:
    g = torch.Generator().manual_seed(9)
    return (out * torch.randn(out.shape, generator=g, dtype=torch.float64))[steps].sum()


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_steps_and_sequences_equal_the_taps_in_values_and_gradients(width: float, whole: bool, run: str) -> None:
    tents, weight, bias, x = parts(width, whole, SLACK + 20)
    with backend("reference"):
        wanted = delayed_linear(x, weight, tents.taps(), bias)
    gradients = torch.autograd.grad(loss(wanted), (x, tents.delays, weight, bias))
    with backend(run):
        tape = LinearTape(tents, weight, bias)
        for found in (torch.stack([tape.step(row) for row in x]), tented_linear(x, weight, tents) + bias):
            assert_close([found], [wanted], torch.float64)
            found_gradients = torch.autograd.grad(loss(found), (x, tents.delays, weight, bias), retain_graph=True)
            assert_close(found_gradients, gradients, torch.float64)


@needs_numba
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("width", [2.0, 2.75])
def test_sequences_of_spikes_go_by_masks(width: float, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    tents, weight, _, x = parts(width, whole, SLACK + 20)
    spikes = (x.detach() > 0.5).double().requires_grad_()
    leaves = (spikes, tents.delays, weight)
    with backend("reference"):
        wanted = delayed_linear(spikes, weight, tents.taps())
    found = tented_linear(spikes, weight, tents)
    assert_close([found], [wanted], torch.float64)
    assert_close(torch.autograd.grad(loss(found), leaves), torch.autograd.grad(loss(wanted), leaves), torch.float64)
    monkeypatch.setattr(tented_sequences, "ringed", lambda *_: None)
    assert_close([tented_linear(spikes, weight, tents)], [wanted], torch.float64)


@needs_numba
def test_partial_and_repeated_passes() -> None:
    tents, weight, bias, x = parts(2.75)
    tape, twin = LinearTape(tents, weight, bias), LinearTape(tents.taps(), weight, bias)
    out, wanted = (torch.stack([t.step(row) for row in x]) for t in (tape, twin))
    for steps in (slice(5, 9), slice(0, 3), slice(None), slice(30, None, 3)):
        leaves = (x, tents.delays, weight, bias)
        found = torch.autograd.grad(loss(out, steps), leaves, retain_graph=True)
        assert_close(found, torch.autograd.grad(loss(wanted, steps), leaves, retain_graph=True), torch.float64)


@needs_numba
def test_remembers_over_a_cut_and_steps_without_a_graph() -> None:
    tents, weight, bias, x = parts(2.75)
    tapes = LinearTape(tents, weight, bias, remember=20), LinearTape(tents.taps(), weight, bias, remember=20)
    found = []
    for taps, tape in zip((tents, tents.taps()), tapes, strict=True):
        with torch.no_grad():
            outputs = [tape.step(row) for row in x[:7]]
        outputs += [tape.step(row) for row in x[7:15]]
        with torch.no_grad():
            outputs += [tape.step(row) for row in x[15:18]]
        outputs += [tape.step(row) for row in x[18:25]]
        one = torch.autograd.grad(loss(torch.stack(outputs)), (x, tents.delays, weight), retain_graph=True)
        tape.detach()
        tape.rebind(taps, 2 * weight, bias)
        later = torch.stack([tape.step(row) for row in x[25:]])
        found.append([torch.stack(outputs), *one, later, *torch.autograd.grad(loss(later), (x, tents.delays, weight))])
    assert_close(found[0], found[1], torch.float64)


@needs_numba
def test_gradients_have_gradients() -> None:
    tents, weight, _, x = parts(2.75, time=6)
    assert torch.autograd.gradcheck(lambda *a: tented_linear(a[0], a[1], tents._replace(delays=a[2])), (
        x, weight, tents.delays))  # fmt: skip
    assert torch.autograd.gradgradcheck(lambda *a: tented_linear(*a, tents), (x, weight))


@needs_numba
@pytest.mark.usefixtures("young_heap")
@pytest.mark.parametrize("steps", [10, 1000])
def test_memory_grows_with_neither_spread_times_synapses_nor_unrecorded_steps(steps: int) -> None:
    """Live bytes of a step loop: per synapse as much for a spread of 40 steps as for one of 2, and for any sequence."""
    size, synapses = 60, 60 * 60
    live = {}
    for width in (3.0, 41.0):
        delays = torch.rand(size, size) * 50
        tents = Tents(delays, width, Triangle(width - 1.0))
        before = living()
        tape = LinearTape(tents, torch.randn(size, size))
        with torch.no_grad():
            for _ in range(steps):
                tape.step(torch.ones(2, size))
        live[width] = living() - before
        del tape
    lines = 20 * (41 - 3) * size * 2 * 4  # cells and rows of neurons may grow with the spread
    assert live[41.0] - live[3.0] <= lines < 40 * synapses * 4 and live[3.0] < 200 * synapses


def test_other_connections_keep_their_taps() -> None:
    delays = torch.rand(3, 4)
    for tents, weight in (
        (Tents(delays, 1.0, Triangle(0.0)), torch.ones(3, 4)),  # two taps are as few
        (Tents(delays[:, :1], 3.0, Triangle(2.0)), torch.ones(3, 4)),  # of neurons
        (Tents(delays, 2.0001, Triangle(1.0001)), torch.ones(3, 4)),  # nodes that nearly touch
        (Tents(delays, 99.0, Triangle(98.0)), torch.ones(3, 4)),  # few synapses under a wide triangle
        (Tents(delays, 3.0, Triangle(2.0)), torch.ones(3, 4, dtype=torch.float16)),
    ):
        assert grid_of(tents, weight) is None
    assert TentFilter(Tents(delays, 3.0, Triangle(2.0)), torch.ones(3, 4)).reach >= 3
