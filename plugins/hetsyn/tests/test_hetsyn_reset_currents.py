"""Reset currents: what a spike takes, against formulas and against snnTorch's own neurons (Proposition 1)."""

from __future__ import annotations

import pytest
import torch

from delaykit import ConfigError
from delaykit_hetsyn import AdaptationCurrent, HetSynLIF, ResetCurrent, SelfCurrent, TriangularSurrogate, ZeroReset
from delaykit_hetsyn.reset_currents import Jumps, gather
from delaykit_hetsyn.rollout import rollout


def one_spike(current: SelfCurrent, time: int = 6) -> list[float]:
    """What a lone spike at step 0, from a membrane of 2, takes from the membrane afterwards."""
    drive = torch.zeros(time, 1, 1, dtype=torch.float64)
    drive[0] = 2.0
    return rollout(drive, None, None, gather([current], None, drive, 1), TriangularSurrogate())[1].flatten().tolist()


def test_a_reset_current_takes_theta_one_step_later_and_forgets_it() -> None:
    assert one_spike(ResetCurrent(0.5, 1.5)) == [2.0, -1.5, -0.75, -0.375, -0.1875, -0.09375]


def test_an_adaptation_current_takes_its_amplitude() -> None:
    assert one_spike(AdaptationCurrent(0.5, 0.25), 3) == [2.0, -0.25, -0.125]


def test_a_zero_reset_takes_the_decayed_membrane() -> None:
    assert one_spike(ZeroReset(0.5), 4) == [2.0, -1.0, -0.5, -0.25]


def test_currents_add_up_and_none_means_no_reset() -> None:
    drive = torch.zeros(3, 1, 1)
    drive[0] = 2.0
    both = gather([ResetCurrent(0.5), AdaptationCurrent(0.25, 0.5)], None, drive, 1)
    assert rollout(drive, None, None, both, TriangularSurrogate())[1].flatten().tolist() == [2.0, -1.5, -0.625]
    assert rollout(drive, None, None, gather([], None, drive, 1), TriangularSurrogate())[1].flatten().tolist() == [
        2.0,
        0.0,
        0.0,
    ]


def test_a_current_without_decay_follows_the_synapses_and_passes_its_gradient_on() -> None:
    synapses = torch.tensor([0.5, 0.8], requires_grad=True)
    jumps = gather([ResetCurrent(), ResetCurrent(torch.tensor([0.1, 0.2]))], synapses, torch.zeros(1), 2)
    assert torch.equal(jumps.decay, torch.tensor([[0.5, 0.8], [0.1, 0.2]]))
    jumps.decay.sum().backward()
    assert synapses.grad.tolist() == [1.0, 1.0]
    with pytest.raises(ConfigError, match="decay"):
        gather([ResetCurrent()], None, torch.zeros(1), 2)


def test_a_learned_kappa_is_a_parameter_and_is_projected() -> None:
    current = ResetCurrent(0.9, learn=True)
    assert [name for name, _ in current.named_parameters()] == ["kappa"]
    with torch.no_grad():
        current.kappa.fill_(1.7)
    current.project_()
    assert float(current.kappa.detach()) == 1.0
    assert not list(ResetCurrent(0.9).parameters()) and "kappa" in ResetCurrent(0.9).state_dict()


@pytest.mark.parametrize("decay", [-0.1, 1.1, float("nan"), torch.zeros(2, 2)])
def test_decays_out_of_range_are_errors(decay: object) -> None:
    with pytest.raises(ConfigError):
        ResetCurrent(decay)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        ZeroReset(None, learn=True)


@pytest.mark.parametrize("mechanism", ["subtract", "zero"])
def test_equal_decays_make_snntorchs_leaky_neuron(mechanism: str) -> None:
    snntorch = pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")
    time, batch, pre, post, beta = 100, 4, 12, 8, 0.85
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(time, batch, pre, generator=generator) < 0.2).double()
    reset = ResetCurrent(beta) if mechanism == "subtract" else ZeroReset(beta)
    layer = HetSynLIF(pre, post, granularity="synaptic", reset=[reset], gain=2.0, generator=generator).double()
    with torch.no_grad():
        layer.input.decay.fill_(beta)
        reset.kappa.fill_(beta)
    neuron = snntorch.Leaky(beta=beta, threshold=1.0, reset_mechanism=mechanism).double()
    membrane = neuron.init_leaky()
    wanted = []
    for t in range(time):
        out, membrane = neuron(spikes[t] @ layer.input.weight.detach().T, membrane)
        wanted.append(out)
    found, _ = layer(spikes)
    assert torch.stack(wanted).sum() > 100
    assert torch.equal(found, torch.stack(wanted))


def test_jumps_are_in_the_dtype_asked_for() -> None:
    jumps = gather([ResetCurrent(0.5), ZeroReset(0.5)], None, torch.zeros(1, dtype=torch.float64), 3)
    assert isinstance(jumps, Jumps) and jumps.decay.dtype == jumps.amplitude.dtype == torch.float64
    assert jumps.wipes.tolist() == [False, True] and jumps.decay.shape == (2, 3)
