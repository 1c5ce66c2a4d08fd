"""The engines of point delays and responses: a sequence, its steps, and the dense response give the same."""

from __future__ import annotations

import pytest
import torch

from delaykit.arrivals import Triangle
from delaykit.delays import FreeDelay
from delaykit.engines.linear import LineEngine, MatrixEngine, Product, ResponseEngine, identity_taps, reach_of
from delaykit.engines.tents import TentsEngine, tents_engine
from delaykit.functional.reference import causal_convolution
from delaykit.functional.taps import Taps
from delaykit.functional.tents import Tents
from delaykit.interfaces import Site
from tests.functional.judging import assert_close, needs_numba

PRE, POST, STEPS, BATCH = 3, 2, 9, 2
SPIKES = (torch.rand(STEPS, BATCH, PRE, generator=torch.Generator().manual_seed(0)) < 0.5).double()
WEIGHT = torch.arange(6, dtype=torch.float64).view(POST, PRE) - 2.5
BIAS = torch.tensor([0.5, -1.0], dtype=torch.float64)


def stepped(engine) -> torch.Tensor:  # type: ignore[no-untyped-def]
    tape = engine.tape()
    return torch.stack([engine.step(tape, x) for x in SPIKES])


def taps(*shape: int) -> Taps:
    index = torch.arange(shape[0] * shape[1]).view(1, *shape) % 4
    return Taps(torch.cat([index, index + 1]), torch.full((2, *shape), 0.5, dtype=torch.float64))


def judged(some: Taps) -> torch.Tensor:
    return causal_convolution(SPIKES, WEIGHT.unsqueeze(-1) * some.response(6).expand(POST, PRE, 6)) + BIAS


@pytest.mark.parametrize("shape", [(1, 1), (1, PRE), (POST, 1), (POST, PRE)])
def test_a_matrix_engine_is_the_dense_response(shape: tuple[int, int]) -> None:
    some = taps(*shape)
    engine = MatrixEngine(some, WEIGHT, BIAS, behind=shape == (POST, 1))
    assert_close([engine.sequence(SPIKES), stepped(engine)], [judged(some)] * 2, torch.float64)
    assert engine.reach() == reach_of(some) == int(some.index.max()) + 1


def test_a_response_engine_is_the_same_for_any_response() -> None:
    some = taps(POST, PRE)
    engine = ResponseEngine(WEIGHT.unsqueeze(-1) * some.response(6), BIAS)
    assert_close([engine.sequence(SPIKES), stepped(engine)], [judged(some)] * 2, torch.float64)
    assert engine.reach() == 6


@pytest.mark.parametrize("before", [True, False])
def test_a_line_lies_before_a_module_or_behind_its_product(before: bool) -> None:
    some = taps(1, PRE) if before else taps(POST, 1)
    product = Product(lambda x: x @ WEIGHT.T + BIAS, lambda x: x @ WEIGHT.T, None, BIAS)
    engine = LineEngine(some, product, before)
    assert_close([engine.sequence(SPIKES), stepped(engine)], [judged(some)] * 2, torch.float64)


def test_no_delay_is_the_modules_own_result_to_the_bit() -> None:
    product = Product(lambda x: x @ WEIGHT.T + BIAS, lambda x: x @ WEIGHT.T, None, BIAS)
    engine = LineEngine(identity_taps(WEIGHT), product, before=False)
    assert torch.equal(engine.sequence(SPIKES), SPIKES @ WEIGHT.T + BIAS)
    assert torch.equal(stepped(engine), SPIKES @ WEIGHT.T + BIAS)


@needs_numba
def test_a_tents_engine_is_the_dense_triangle_and_only_synapses_have_one() -> None:
    size = 40
    config = FreeDelay("synaptic", max_delay=6, kernel="triangle", spread=2.5)
    delay = config.build(Site("fc", size, size), torch.Generator().manual_seed(1)).double()
    weight = torch.linspace(-1, 1, size * size, dtype=torch.float64).view(size, size)
    engine = tents_engine(delay, weight, None)
    assert isinstance(engine, TentsEngine) and isinstance(engine.tents, Tents)
    spikes = (torch.rand(12, 2, size, generator=torch.Generator().manual_seed(2)) < 0.3).double()
    wanted = causal_convolution(spikes, weight.unsqueeze(-1) * Triangle(2.5).taps(delay.delays()).response(10))
    assert_close([engine.sequence(spikes)], [wanted], torch.float64)
    axonal = FreeDelay("axonal", max_delay=6, kernel="triangle", spread=2.5).build(Site("fc", size, size)).double()
    assert tents_engine(axonal, weight, None) is None
