"""Synapses that read cells in steps and list taps for sequences: which delays do, and that both are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit.arrivals import Kernel, Triangle
from delaykit.delays import FreeDelay
from delaykit.engines.cells import CellsEngine, cells_engine
from delaykit.engines.linear import MatrixEngine
from delaykit.engines.tents import tents_engine
from delaykit.functional import dispatch
from delaykit.functional.dispatch import backend
from delaykit.functional.engine_base import frozen
from delaykit.functional.step_tape.cells.bells import BellFilter
from delaykit.functional.step_tape.cells.reading import CellFilter
from delaykit.functional.step_tape.cells.spreads import SpreadFilter
from delaykit.functional.step_tape.cells.tents import TentFilter
from delaykit.interfaces import PointDelay, Site
from delaykit.plugins import registry
from delaykit.synapse import Engine, Product, Synapse
from tests.functional.judging import assert_close, needs_numba

SIZE = 48
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a cuda device")


class OwnSpreads(PointDelay):
    """A delay for every synapse, and a spread for every presynaptic neuron."""

    granularity = "synaptic"

    def __init__(self, size: int = SIZE, widest: float = 4.0) -> None:
        super().__init__()
        self.delay = nn.Parameter(torch.rand(size, size, dtype=torch.float64) * 6)
        self.spread = nn.Parameter(torch.rand(size, dtype=torch.float64) * widest)

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


KINDS: dict[str, tuple[type[CellFilter], FreeDelay | None]] = {
    "tents": (TentFilter, FreeDelay("synaptic", max_delay=6, kernel="triangle", spread=17.0)),
    "widths": (SpreadFilter, None),
    "gaussian": (BellFilter, FreeDelay("synaptic", max_delay=6, kernel="gaussian", spread=4.0)),
}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_chip_whose_one_file_has_the_kernels_reads_cells(
    kind: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries in the table of operators are all it takes, and all of them that a connection runs."""
    torch.manual_seed(0)
    filter, config = KINDS[kind]
    linear = nn.Linear(SIZE, SIZE).double().to(device)
    delay = OwnSpreads(widest=20.0) if config is None else config.build(Site("fc", SIZE, SIZE)).double()
    delay.to(device)
    x = torch.rand(25, 2, SIZE, dtype=torch.float64, device=device, requires_grad=True)
    leaves = (x, *linear.parameters(), *delay.parameters())
    plain = MatrixEngine(delay.taps(), linear.weight, linear.bias).sequence(x)
    cotangent = torch.randn_like(plain)
    wanted = [plain, *torch.autograd.grad((plain * cotangent).sum(), leaves)]
    ran: set[str] = set()

    def kernel(operator: str) -> Callable[..., None]:
        def run(*arguments: Any) -> None:
            ran.add(operator)
            registry.implementation(operator, "torch")(*arguments)

        return run

    def engine() -> Engine | None:
        return tents_engine(delay, linear.weight, linear.bias) or engine_of(delay, linear)

    monkeypatch.setattr(dispatch, "_NATIVE", {device: "new_chip"})
    for operator in filter.operators:
        assert engine() is None, "taps serve as well"
        monkeypatch.setitem(dispatch._found, (operator, "new_chip"), kernel(operator))
    found = engine()
    assert found is not None
    with backend("torch"):
        assert engine() is None
    tape = found.tape()
    for current in (torch.stack([found.step(tape, row) for row in x]), found.sequence(x)):
        outputs = [current, *torch.autograd.grad((current * cotangent).sum(), leaves, retain_graph=True)]
        assert_close(outputs, [y.cpu() for y in wanted], torch.float64)
    assert ran == set(filter.operators)
