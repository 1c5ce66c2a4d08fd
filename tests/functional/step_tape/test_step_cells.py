"""Gaussians, and triangles of neurons' own widths, by cells against the same by taps: values, every gradient, cuts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from delaykit.arrivals import Gaussian, Triangle
from delaykit.engines.cells import bells_of
from delaykit.functional.delayed_linear import delayed_linear
from delaykit.functional.dispatch import backend
from delaykit.functional.step_tape import LinearTape
from delaykit.functional.step_tape.cells.basis import EXACT, Basis, Bells, basis_for
from delaykit.functional.step_tape.cells.lines import LATER, SLACK, Heights, Written
from delaykit.functional.step_tape.cells.spreads import fits
from delaykit.functional.taps import Taps
from delaykit.functional.tents import OwnTents
from delaykit.testing.faults.steady_costs import living
from tests.functional.judging import DTYPES, assert_close, needs_numba

PRE, POST, BATCH, TIME = 4, 3, 2, SLACK + 20
RUNS = [pytest.param("torch"), pytest.param("cpu", marks=needs_numba)]


class Parts(NamedTuple):
    cells: OwnTents | Bells
    taps: Taps
    leaves: tuple[Tensor, ...]  # inputs, weight, bias, delays, and what else learns
    x: Tensor
    weight: Tensor
    bias: Tensor


def common(whole: bool, dtype: torch.dtype, time: int) -> tuple[Tensor, ...]:
    """Delays from 0 to beyond a triangle's half width, weight, bias and inputs, numbers that float32 holds."""
    g = torch.Generator().manual_seed(0)
    delays = torch.rand(POST, PRE, generator=g) * 9
    delays = (delays.round() if whole else delays).to(dtype).requires_grad_()
    weight = torch.randn(POST, PRE, generator=g).to(dtype).requires_grad_()
    bias = torch.randn(POST, generator=g).to(dtype).requires_grad_()
    x = torch.randn(time, BATCH, PRE, generator=g).to(dtype).requires_grad_()
    return delays, weight, bias, x


def triangles(spread: tuple[float, ...], whole: bool, dtype: torch.dtype = torch.float64, time: int = TIME) -> Parts:
    delays, weight, bias, x = common(whole, dtype, time)
    spreads = torch.tensor([spread], dtype=dtype).requires_grad_()
    kernel = Triangle(spreads)
    tents = kernel.own_tents(delays)
    assert tents is not None and fits(tents, weight)
    return Parts(tents, kernel.taps(delays), (x, weight, bias, delays, spreads), x, weight, bias)


def bells(
    std: float, window: int | None, normalize: bool, whole: bool = False, dtype: torch.dtype = torch.float64,
    time: int = TIME, cells: int = 1,
) -> Parts:  # fmt: skip
    delays, weight, bias, x = common(whole, dtype, time)
    kernel = Gaussian(std - 0.27, normalize, window)
    last = kernel.depth(float(delays.detach().max()))
    basis = next(b for terms in range(3, 30) if (b := Basis(std, cells, terms)).error() <= EXACT[dtype])
    given = Bells(delays, basis, last, kernel, 1e-7 if normalize else None)
    return Parts(given, kernel.taps(delays), (x, weight, bias, delays), x, weight, bias)


MAKERS: dict[str, Callable[..., Parts]] = {
    "triangles of any width": lambda **k: triangles((1.5, 0.25, 4.3, 7.9), False, **k),
    "triangles of whole widths at whole delays": lambda **k: triangles((0.0, 1.0, 4.0, 9.0), True, **k),
    "triangles half a step wider": lambda **k: triangles((0.5, 1.5, 3.5, 2.0), True, **k),
    "triangles whose nodes nearly touch": lambda **k: triangles((1.0 + 2**-20, 2.5, 0.5 - 2**-20, 3.0), False, **k),
    "a gaussian": lambda **k: bells(3.27, None, True, **k),
    "a gaussian cut at both ends": lambda **k: bells(5.0, 11, True, **k),
    "a gaussian at whole delays": lambda **k: bells(2.0, 10, True, whole=True, **k),
    "a gaussian as it is, two cells a step": lambda **k: bells(1.5, 12, False, cells=2, **k),
}


def loss(out: Tensor, steps: slice = slice(None)) -> Tensor:
    g = torch.Generator().manual_seed(9)
    return (out * torch.randn(out.shape, generator=g).to(out.dtype))[steps].sum()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", MAKERS)
def test_steps_equal_the_taps_in_values_and_gradients(name: str, run: str, dtype: torch.dtype) -> None:
    judge, made = MAKERS[name](), MAKERS[name](dtype=dtype)
    with backend("reference"):
        wanted = delayed_linear(judge.x, judge.weight, judge.taps, judge.bias)
    gradients = torch.autograd.grad(loss(wanted), judge.leaves)
    with backend(run):
        tape = LinearTape(made.cells, made.weight, made.bias)
        found = torch.stack([tape.step(row) for row in made.x])
        assert_close([found], [wanted], dtype)
        assert_close(torch.autograd.grad(loss(found), made.leaves), gradients, dtype)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", ["triangles of any width", "a gaussian", "a gaussian cut at both ends"])
def test_gradients_equal_differences(name: str, run: str) -> None:
    made = MAKERS[name](time=4)

    def steps(x: Tensor, weight: Tensor, bias: Tensor, *shape: Tensor) -> Tensor:
        delays, *widths = shape
        cells = made.cells._replace(delays=delays, **({"widths": 1 + widths[0]} if widths else {}))
        tape = LinearTape(cells, weight, bias)
        return torch.stack([tape.step(row) for row in x])

    with backend(run):
        assert torch.autograd.gradcheck(steps, made.leaves)


@needs_numba
@pytest.mark.parametrize("name", MAKERS)
def test_partial_and_repeated_passes(name: str) -> None:
    made = MAKERS[name](time=40)
    tape, twin = LinearTape(made.cells, made.weight, made.bias), LinearTape(made.taps, made.weight, made.bias)
    out, wanted = (torch.stack([t.step(row) for row in made.x]) for t in (tape, twin))
    for steps in (slice(5, 9), slice(0, 3), slice(None), slice(30, None, 3)):
        found = torch.autograd.grad(loss(out, steps), made.leaves, retain_graph=True)
        assert_close(found, torch.autograd.grad(loss(wanted, steps), made.leaves, retain_graph=True), torch.float64)


@needs_numba
@pytest.mark.parametrize("name", ["triangles of any width", "a gaussian", "a gaussian cut at both ends"])
def test_remembers_over_a_cut_and_steps_without_a_graph(name: str) -> None:
    made = MAKERS[name](time=90)
    x, weight, bias = made.x, made.weight, made.bias
    leaves, found = (made.leaves[0], *made.leaves[1:2], *made.leaves[3:]), []
    for arrivals in (made.cells, made.taps):
        tape = LinearTape(arrivals, weight, bias, remember=40)
        with torch.no_grad():
            outputs = [tape.step(row) for row in x[:7]]
        outputs += [tape.step(row) for row in x[7:15]]
        with torch.no_grad():
            outputs += [tape.step(row) for row in x[15:18]]
        outputs += [tape.step(row) for row in x[18:60]]
        one = torch.autograd.grad(loss(torch.stack(outputs)), leaves, retain_graph=True)
        tape.detach()
        tape.rebind(arrivals, 2 * weight, bias)
        later = torch.stack([tape.step(row) for row in x[60:]])
        found.append([torch.stack(outputs), *one, later, *torch.autograd.grad(loss(later), leaves, retain_graph=True)])
    assert_close(found[0], found[1], torch.float64)


@needs_numba
@pytest.mark.parametrize("name", ["triangles of any width", "a gaussian cut at both ends"])
def test_a_bounded_recording_goes_on_for_ever(name: str) -> None:
    made = MAKERS[name](time=300)
    with torch.no_grad():
        tapes = [LinearTape(arrivals, made.weight, made.bias) for arrivals in (made.cells, made.taps)]
        found, wanted = (torch.stack([tape.step(row) for row in made.x]) for tape in tapes)
    assert_close([found], [wanted], torch.float64)


@needs_numba
@pytest.mark.usefixtures("young_heap")
@pytest.mark.parametrize("kind", ["triangles", "bells"])
def test_memory_does_not_grow_with_the_spread_times_the_synapses(kind: str) -> None:
    size, live = 60, {}
    for spread in (2.0, 40.0):
        delays, weight = torch.rand(size, size) * 50, torch.randn(size, size)
        own = OwnTents(delays, torch.full((1, size), 1 + spread))
        cells = own if kind == "triangles" else Bells(delays, Basis(spread, 1, 5), 100, Gaussian(spread), 1e-7)
        before = living()
        tape = LinearTape(cells, weight)
        with torch.no_grad():
            for _ in range(10):
                tape.step(torch.ones(2, size))
        live[spread] = living() - before
        del tape
    lines = 38 * 3 * size * (2 + 1) * 4 * (2 if kind == "triangles" else 5)  # of neurons, which may grow
    assert live[40.0] - live[2.0] <= lines < 40 * size * size * 4 and live[2.0] < 400 * size * size


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("std", [0.8, 1.27, 2.0, 5.27, 12.27])
def test_a_basis_is_exact_for_its_dtype_and_cheaper_than_a_product(std: float, dtype: torch.dtype) -> None:
    delays, weight = torch.rand(256, 256) * 24, torch.zeros(256, 256, dtype=dtype)
    basis = basis_for(std, 52, delays, weight)
    if basis is None:
        assert dtype == torch.float64 or std < 2
        return
    at = torch.rand(1000, dtype=torch.float64) * 24
    cell, part = basis.place(at)
    for tau in (0.0, 3.0, 24.0, 51.0):
        coefficients = basis.coefficients(round(tau * basis.cells) - cell)
        height = (coefficients * part.unsqueeze(1) ** torch.arange(basis.terms)).sum(1)
        torch.testing.assert_close(height, torch.exp(-((tau - at) ** 2) / (2 * std**2)), rtol=0, atol=2 * EXACT[dtype])


def test_other_connections_keep_their_taps() -> None:
    delays, weight = torch.rand(200, 200) * 9, torch.ones(200, 200)
    assert bells_of(Gaussian(5.0), delays, weight) is not None
    assert bells_of(Gaussian(torch.tensor(5.0, requires_grad=True)), delays, weight) is None, "a spread that may learn"
    assert bells_of(Gaussian(0.1), delays, weight) is None, "few taps"
    assert bells_of(Gaussian(5.0), delays[:1], weight) is None, "delays of neurons"
    assert bells_of(Gaussian(5.0), delays[:2, :2], weight[:2, :2]) is None, "few synapses"
    assert bells_of(Gaussian(5.0), delays, weight.half()) is None
    spread = torch.ones(1, 200)
    tents = Triangle(spread).own_tents(delays)
    assert tents is not None and fits(tents, weight) and not fits(tents, weight.half())
    assert Triangle(spread, normalize=True).own_tents(delays) is None
    assert Triangle(spread.t()).own_tents(delays) is None, "widths of outputs"
    assert Triangle(1.0).own_tents(delays) is None, "one number"


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("own", [1, PRE], ids=["common", "own"])
def test_cells_far_ahead_are_written_later_to_the_same_bits(own: int, run: str) -> None:
    g, steps, phases = torch.Generator().manual_seed(0), 3 * SLACK + 5, 2
    x = torch.randn(PRE, steps, BATCH, generator=g)
    heights = Heights(-7, torch.randn(own, 60, generator=g))
    near = Heights(-7, heights.values[:, : 7 + 2 * LATER * phases + 1].contiguous())
    with backend(run):
        for ahead in (heights, near):
            line = Written(phases, 20, ahead, (PRE, BATCH))
            assert bool(line._soon) == (ahead is heights), "a line of which little lies ahead is written at once"
            plain = Written(phases, 20, ahead, (PRE, BATCH))
            plain._soon = []
            for step in range(steps):
                silent = step % 11 == 4
                line.write(x, step, silent=silent)
                plain.write(x, step, silent=silent)
                read = [w.rows[:, w.now - 20 : w.now + 2 * phases] for w in (line, plain)]  # what may be asked for
                assert torch.equal(*read)
