"""The recurrence as one Triton program a tile of the batch equals the autograd loop, on cuda or in the interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from delaykit.arrivals import Gaussian, Kernel, Linear, Triangle
from delaykit.functional.dispatch import backend
from delaykit.functional.dynamics import LIFDynamics
from delaykit.functional.recurrence import rollout
from tests.functional.judging import needs_triton
from tests.functional.recurrence import cases
from tests.functional.recurrence.cases import GRANULARITIES, RESETS, Case, assert_equal_to_naive, naive

pytestmark = needs_triton
QUICK = 1, 7  # resets of the fast tests, one of each moment
RARE = [pytest.param(r, marks=() if k in QUICK else pytest.mark.slow, id=str(r)) for k, r in enumerate(RESETS)]


class Above(cases.Spike):
    """Fires above the threshold only, and has a slope that no closed form is known of."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)


@pytest.fixture(name="ran", autouse=True)
def kernels_that_ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run everything in the backend, and note which programs were started."""
    from delaykit.functional.recurrence import triton as gpu

    started: list[str] = []

    class Noted:
        def __init__(self, name: str) -> None:
            self.name, self.kernel = name, getattr(gpu, name)

        def __getitem__(self, grid: Any) -> Any:
            started.append(self.name)
            return self.kernel[grid]

    for name in ("run_forward", "run_backward"):
        monkeypatch.setattr(gpu, name, Noted(name))
    return started


def assert_ran(ran: list[str], case: Case, both: bool = True) -> None:
    with backend("gpu"):
        assert_equal_to_naive(case)
    assert set(ran) == ({"run_forward", "run_backward"} if both else set())


@pytest.mark.parametrize("reset", RARE)
def test_axonal_delays_with_every_reset(reset: dict[str, Any], ran: list[str]) -> None:
    assert_ran(ran, Case(1, GRANULARITIES["axonal"], Linear(), Above.apply, heaviside=True, **reset))


@pytest.mark.parametrize("reset", [RARE[k] for k in (1, 4, 11)])
@pytest.mark.parametrize("granularity", ["layer", "dendritic", "synaptic", None])
def test_every_granularity(granularity: str | None, reset: dict[str, Any], ran: list[str]) -> None:
    shape = GRANULARITIES.get(granularity or "")
    assert_ran(ran, Case(2, shape, Linear(), Above.apply, heaviside=True, state=shape is None, **reset))


@pytest.mark.slow
@pytest.mark.parametrize("granularity", ["axonal", "synaptic"])
def test_arrivals_of_many_taps(granularity: str, ran: list[str]) -> None:
    assert_ran(ran, Case(3, GRANULARITIES[granularity], Gaussian(0.8), Above.apply, heaviside=True, **RESETS[1]))


@pytest.mark.slow
@pytest.mark.parametrize("granularity", ["axonal", "synaptic"])
def test_more_samples_and_neurons_than_a_tile(
    granularity: str, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "BATCH", 19)
    monkeypatch.setattr(cases, "NEURONS", 17)
    shape = {"axonal": (1, 17), "synaptic": (17, 17)}[granularity]
    case = Case(4, shape, Linear(), Above.apply, synapse=False, mask=False, heaviside=True, **RESETS[6])
    case.leaves["weight"] = cases.leaf(case.leaves["weight"] * 0.3)
    assert_ran(ran, case)


@pytest.mark.parametrize(
    ("kernel", "surrogate", "heaviside"),
    [(Triangle(4.3), Above.apply, True), (Linear(), cases.smooth, False)],
    ids=["running sums", "a surrogate that is no step"],
)
def test_what_no_program_is_written_for_runs_step_by_step(
    kernel: Kernel, surrogate: Any, heaviside: bool, ran: list[str]
) -> None:
    case = Case(5, GRANULARITIES["axonal"], kernel, surrogate, heaviside=heaviside, **RESETS[1])
    with backend("gpu"):
        assert_equal_to_naive(case)
    assert "run_forward" not in ran


@pytest.mark.parametrize("spiking", [True, False])
def test_a_neuron_without_a_connection(spiking: bool, ran: list[str]) -> None:
    generator = torch.Generator().manual_seed(6)
    drive = (2 * torch.rand(7, 18, 3, generator=generator, dtype=torch.float64)).requires_grad_()
    neuron = LIFDynamics(decay=0.8, synapse_decay=0.5, surrogate=Above.apply if spiking else None, heaviside=spiking)
    found = []
    for run in (rollout, naive):
        with backend("gpu"):
            spikes, membrane, last = run(drive, None, None, None, neuron)
            assert last.synapse is not None
            loss = (membrane.square() + spikes).sum() + last.synapse.sum()
            found.append([spikes, membrane, last.synapse, *torch.autograd.grad(loss, drive)])
    assert bool(found[1][0].any()) is spiking
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert set(ran) == {"run_forward", "run_backward"}


def test_single_precision_uses_products_of_tiles(ran: list[str]) -> None:
    """Weights that are sums of few powers of two: nothing is rounded, and both fire alike."""
    generator = torch.Generator().manual_seed(7)
    drive = (torch.randint(0, 4, (9, 5, 18), generator=generator) / 4).requires_grad_()
    weight = (torch.randint(-2, 3, (18, 18), generator=generator) / 8).requires_grad_()
    delays = torch.randint(0, 8, (1, 18), generator=generator).div(2).requires_grad_()
    neuron = LIFDynamics(decay=0.5, surrogate=Above.apply, heaviside=True)
    found = []
    for run in (rollout, naive):
        with backend("gpu"):
            spikes, membrane, _ = run(drive, weight, None, Linear().taps(delays), neuron)
        found.append([spikes, membrane, *torch.autograd.grad(membrane.square().sum(), (drive, weight, delays))])
    assert 0.02 < float(found[1][0].detach().mean()) < 0.9
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert set(ran) == {"run_forward", "run_backward"}
