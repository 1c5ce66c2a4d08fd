"""Dropout of a current: one mask a sequence, the same in the step loop, the sequence operator and rollout."""

from __future__ import annotations

import norse.torch as norse
import pytest
import snntorch as snn
import torch
from torch import nn

import delaykit as dk
from delaykit.interfaces import Site
from delaykit.synapse import Product, Synapse

P = 0.5


def synapse_and_product(dropout: float = P) -> tuple[Synapse, Product]:
    synapse = Synapse(Site("fc", 6, 40), (dk.FreeDelay("axonal", max_delay=4.0, init=1.5),)).double()
    synapse.delay.dropout = dropout
    torch.manual_seed(0)
    fc = nn.Linear(6, 40).double()
    return synapse, Product(fc, lambda x: nn.functional.linear(x, fc.weight), fc.weight, fc.bias)


def ratios(masked: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    return (masked / whole).detach()


@pytest.mark.parametrize("way", ["sequence", "steps"])
def test_one_mask_a_sequence_scales_by_zero_or_the_inverse_of_keeping(way: str) -> None:
    synapse, product = synapse_and_product()
    spikes = torch.rand(9, 3, 6, dtype=torch.float64) + 0.1
    whole = synapse.eval().engine(product).sequence(spikes)
    synapse.train()
    engine, masks = synapse.engine(product), []
    for _ in range(2):
        tape = engine.tape()
        steps = way == "steps"
        masked = torch.stack([engine.step(tape, x) for x in spikes]) if steps else engine.sequence(spikes)
        ratio = ratios(masked, whole)
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-9, atol=1e-9)
        kept = ratio[0] > 0
        torch.testing.assert_close(ratio[0], kept.double() / (1 - P), rtol=1e-9, atol=1e-9)
        assert 0.3 < kept.double().mean() < 0.7
        masks.append(kept)
    assert not torch.equal(*masks), "the second sequence has the mask of the first"


def test_the_mask_outlives_a_cut_of_the_graph() -> None:
    synapse, product = synapse_and_product()
    spikes = torch.rand(8, 3, 6, dtype=torch.float64) + 0.1
    whole = synapse.eval().engine(product).sequence(spikes)
    synapse.train()
    engine = synapse.engine(product)
    tape, out = engine.tape(), []
    for t, x in enumerate(spikes):
        if t == 4:
            tape.detach()
            engine = synapse.engine(product)
            engine.rebind(tape)
        out.append(engine.step(tape, x))
    ratio = ratios(torch.stack(out), whole)
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-9, atol=1e-9)


def test_evaluation_drops_nothing() -> None:
    synapse, product = synapse_and_product()
    spikes = torch.rand(5, 2, 6, dtype=torch.float64)
    plain, _ = synapse_and_product(dropout=0.0)
    assert torch.equal(synapse.eval().engine(product).sequence(spikes), plain.train().engine(product).sequence(spikes))


def recurrent_net(library: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    delay = dk.FreeDelay("axonal", max_delay=4.0, init=1.5)
    if library == "snntorch":
        neuron: nn.Module = snn.RLeaky(beta=0.9, linear_features=8)
        example = torch.rand(2, 8)
        rules = {"recurrent": dk.At(delay, reset="manual")}
        dk.wrap_(neuron, rules, example=lambda: neuron(example, torch.zeros(2, 8), torch.zeros(2, 8)))
    else:
        neuron = norse.LIFRecurrentCell(8, 8)
        dk.wrap_(neuron, {"recurrent": delay}, example=torch.rand(2, 8))
    found = [m for m in neuron.modules() if isinstance(m, dk.PointDelay)]
    found[0].dropout = P
    return neuron, torch.rand(20, 4, 8) * 2


@pytest.mark.parametrize("library", ["snntorch", "norse"])
def test_rollout_draws_the_mask_that_the_delay_asks_for(library: str) -> None:
    neuron, drive = recurrent_net(library)
    torch.manual_seed(5)
    mask = torch.empty(4, 8).bernoulli_(1 - P) / (1 - P)
    wanted, _ = dk.rollout(neuron, drive, recurrent_mask=mask)
    torch.manual_seed(5)
    found, _ = dk.rollout(neuron, drive)
    assert torch.equal(found, wanted) and found.any()
    whole, _ = dk.rollout(neuron.eval(), drive)
    assert not torch.equal(whole, wanted), "the mask changed nothing: the test proves nothing"
