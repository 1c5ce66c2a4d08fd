"""Synapses that read cells in steps and list taps for sequences: which delays do, and that both are the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit.arrivals import Kernel, Triangle
from delaykit.delays import FreeDelay
from delaykit.engines.cells import CellsEngine, cells_engine
from delaykit.functional.dispatch import backend
from delaykit.functional.engine_base import frozen
from delaykit.interfaces import PointDelay, Site
from delaykit.synapse import Engine, Product, Synapse
from tests.functional.judging import assert_close, needs_numba

SIZE = 48


class OwnSpreads(PointDelay):
    """A delay for every synapse, and a spread for every presynaptic neuron."""

    granularity = "synaptic"

    def __init__(self, size: int = SIZE) -> None:
        super().__init__()
        self.delay = nn.Parameter(torch.rand(size, size, dtype=torch.float64) * 6)
        self.spread = nn.Parameter(torch.rand(size, dtype=torch.float64) * 4)

    def delays(self) -> Tensor:
        return self.delay

    def kernel(self) -> Kernel:
        return Triangle(self.spread.unsqueeze(0))


def engine_of(delay: PointDelay, linear: nn.Linear) -> Engine | None:
    return cells_engine(delay, linear.weight, linear.bias)


@needs_numba
@pytest.mark.parametrize("kind", ["widths", "gaussian"])
def test_steps_equal_sequences_in_values_and_gradients(kind: str) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(SIZE, SIZE).double()
    config = FreeDelay("synaptic", max_delay=6, kernel="gaussian", spread=4.0)
    delay = OwnSpreads() if kind == "widths" else config.build(Site("fc", SIZE, SIZE)).double()
    engine = engine_of(delay, linear)
    assert isinstance(engine, CellsEngine)
    x = torch.rand(25, 2, SIZE, dtype=torch.float64, requires_grad=True)
    leaves = (x, *linear.parameters(), *delay.parameters())
    tape = engine.tape()
    stepped, whole = torch.stack([engine.step(tape, row) for row in x]), engine.sequence(x)
    cotangent = torch.randn_like(whole)
    assert_close([stepped], [whole], torch.float64)
    wanted = torch.autograd.grad((whole * cotangent).sum(), leaves)
    assert_close(torch.autograd.grad((stepped * cotangent).sum(), leaves), wanted, torch.float64)
    assert engine.reach() >= 10
    before, kept = whole.detach(), frozen(engine)
    with torch.no_grad():
        for parameter in (*linear.parameters(), *delay.parameters()):
            parameter.add_(0.5)
        tape = kept.tape()
        for found in (kept.sequence(x), torch.stack([kept.step(tape, row) for row in x])):
            assert_close([found], [before], torch.float64)


@needs_numba
def test_which_delays_read_cells() -> None:
    linear = nn.Linear(SIZE, SIZE).double()
    assert isinstance(engine_of(OwnSpreads(), linear), CellsEngine)
    with backend("torch"):
        assert engine_of(OwnSpreads(), linear) is None
    other = OwnSpreads()
    other.estimator = "none"
    assert engine_of(other, linear) is None
    for config in (
        FreeDelay("axonal", max_delay=6, kernel="gaussian", spread=4.0),
        FreeDelay("synaptic", max_delay=6, kernel="gaussian", spread=0.0),
        FreeDelay("synaptic", max_delay=6),
    ):
        assert engine_of(config.build(Site("fc", SIZE, SIZE)), nn.Linear(SIZE, SIZE)) is None


@needs_numba
def test_a_wrapped_loop_of_gaussians_equals_its_impulse_response() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(SIZE, SIZE).double())
    config = FreeDelay("synaptic", max_delay=6, kernel="gaussian", spread=4.0)
    dk.wrap_(net, {"0": dk.At(config, reset="manual")})
    net.double()
    synapse = net[0].dk
    assert isinstance(synapse, Synapse)
    product = Product(net[0], net[0], net[0].weight, net[0].bias)
    assert isinstance(synapse.engine(product), CellsEngine)
    x = torch.rand(40, 2, SIZE, dtype=torch.float64)
    dk.reset(net)
    found = torch.stack([net(row) for row in x])
    response = synapse.impulse_response(net[0].weight)
    wanted = [
        sum(x[t - tau] @ response[..., tau].t() for tau in range(min(t + 1, response.shape[2]))) for t in range(len(x))
    ]
    assert_close([found], [torch.stack(wanted) + net[0].bias], torch.float64)
