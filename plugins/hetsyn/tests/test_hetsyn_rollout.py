"""The fused rollout equals its judge, a plain loop over the paper's equations: values and gradients, every backend."""

from __future__ import annotations

import contextlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from delaykit.errors import ShapeError
from delaykit.functional.dispatch import backend
from delaykit.plugins import registry
from delaykit_hetsyn.reset_currents import Jumps
from delaykit_hetsyn.rollout import rollout
from delaykit_hetsyn.surrogates import MultiGaussian, TriangularSurrogate

TIME, BATCH, POST = 40, 3, 6
SHAPES = (None, (POST, POST), (POST, 1), (1, POST), (1, 1))


def problem(shape: tuple[int, int] | None, zero: bool, seed: int = 0) -> tuple[list[Tensor], Tensor]:
    """Drive, kappa, amplitude, and weight and decay if there is a recurrence; which currents wipe."""
    generator = torch.Generator().manual_seed(seed)

    def random(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator, dtype=torch.float64)

    drive = 2.0 * random(TIME, BATCH, POST) - 0.6
    tensors = [drive, random(2, POST), random(2, POST)]
    if shape is not None:
        tensors += [random(POST, POST) - 0.4, random(*shape)]
    return [t.requires_grad_() for t in tensors], torch.tensor([zero, False])


@pytest.mark.parametrize("name", ["cpu", "torch"])
@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_equal_a_plain_loop(
    shape: tuple[int, int] | None, zero: bool, detach_reset: bool, name: str
) -> None:
    tensors, wipes = problem(shape, zero)
    drive, kappa, amplitude, *recurrent = tensors
    weight, decay = recurrent or (None, None)
    generator = torch.Generator().manual_seed(1)
    cotangents = [torch.randn(TIME, BATCH, POST, generator=generator, dtype=torch.float64) for _ in range(2)]
    results = []
    for one in ("reference", name):
        with backend(one):
            out = rollout(drive, weight, decay, Jumps(kappa, amplitude, wipes), MultiGaussian(), 1.0, detach_reset)
            results.append((*out, *torch.autograd.grad(out, tensors, cotangents)))
    wanted, found = results
    assert 0.02 < float(wanted[0].detach().mean()) < 0.6
    assert torch.equal(found[0], wanted[0])
    for a, b in zip(found[1:], wanted[1:], strict=True):
        assert float((a - b).detach().abs().max()) <= 1e-12 * max(1.0, float(b.detach().abs().max()))


@pytest.mark.parametrize("name", ["cpu", "torch"])
def test_decays_of_zero_and_one_have_exact_gradients(name: str) -> None:
    tensors, wipes = problem((POST, POST), zero=False)
    drive, kappa, amplitude, weight, decay = tensors
    with torch.no_grad():
        decay[0], decay[1] = 0.0, 1.0
        kappa[0] = 0.0
    results = []
    for one in ("reference", name):
        with backend(one):
            out = rollout(drive, weight, decay, Jumps(kappa, amplitude, wipes), TriangularSurrogate(), 1.0, False)
            results.append(torch.autograd.grad(out[1].pow(2).sum() + out[0].sum(), (decay, kappa)))
    for a, b in zip(results[1], results[0], strict=True):
        assert bool(b[:2].abs().sum(1).gt(0).any())
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["cpu", "torch"])
@pytest.mark.parametrize("through_reset", [False, True])
@pytest.mark.parametrize("rows", [0, 1, POST], ids=["no synapses", "a decay a neuron", "a decay a synapse"])
@pytest.mark.parametrize("time", [0, 1, TIME])
def test_each_operator_equals_its_own_judge(time: int, rows: int, through_reset: bool, name: str) -> None:
    generator = torch.Generator().manual_seed(2)

    def random(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator, dtype=torch.float64)

    drive, wipes = 2.0 * random(time, BATCH, POST) - 0.6, torch.tensor([True, False])
    given = random(POST if rows else 0, POST) - 0.4, random(rows, POST), random(2, POST), random(2, POST), wipes
    judge, judge_back, run, back = (
        registry.implementation(operator, one)
        for one in ("reference", name)
        for operator in ("hetsyn_rollout", "hetsyn_rollout_adjoint")
    )
    spikes, membrane = wanted = judge(drive, *given, 1.0)
    assert time < TIME or 0.02 < float(spikes.mean()) < 0.6
    ways = random(3, time, BATCH, POST) - 0.3
    into = judge_back(*ways, spikes, membrane, *given, through_reset)
    assert time < TIME or all(bool(one.any()) for one in into if one.numel())
    found = *run(drive, *given, 1.0), *back(*ways, spikes, membrane, *given, through_reset)
    torch.testing.assert_close(found, (*wanted, *into), rtol=1e-12, atol=1e-12)


def test_an_infinitesimal_change_of_what_does_not_spike_moves_the_membrane_as_the_adjoint_says() -> None:
    """Below threshold nothing is a surrogate, so finite differences are the judge."""
    tensors, wipes = problem((POST, POST), zero=True)
    drive, kappa, amplitude, weight, decay = (t.detach() for t in tensors)
    drive[1:] *= 0.05  # all spikes fall into the first step, far from the threshold
    drive[0] = 3.0

    def loss(*given: Tensor) -> Tensor:
        jumps = Jumps(given[1], given[2], wipes)
        return rollout(given[0], given[3], given[4], jumps, TriangularSurrogate(0.1), 2.9, True)[1]

    given = [t[:6].clone() if k == 0 else t for k, t in enumerate((drive, kappa, amplitude, 0.1 * weight, decay))]
    assert (
        float(
            rollout(given[0], given[3], given[4], Jumps(kappa, amplitude, wipes), TriangularSurrogate(), 2.9)[0].sum()
        )
        > 0
    )
    given[0][0] = 4.0  # outside the surrogate's support
    torch.autograd.gradcheck(loss, [t.requires_grad_() for t in given])


def test_batch_rows_are_independent_and_threads_change_nothing() -> None:
    tensors, wipes = problem((POST, POST), zero=False)
    drive, kappa, amplitude, weight, decay = (t.detach() for t in tensors)
    jumps = Jumps(kappa, amplitude, wipes)
    whole = rollout(drive, weight, decay, jumps, TriangularSurrogate())[1]
    for b in range(BATCH):
        assert torch.equal(
            rollout(drive[:, b : b + 1], weight, decay, jumps, TriangularSurrogate())[1], whole[:, b : b + 1]
        )
    many = drive.repeat(40, 20, 1)
    grads = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            given = [t.clone().requires_grad_() for t in (many, weight, decay)]
            out = rollout(*given, jumps, TriangularSurrogate())
            grads.append(torch.autograd.grad(out[0].sum() + out[1].sum(), given))
    finally:
        torch.set_num_threads(before)
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_it_is_causal() -> None:
    tensors, wipes = problem((POST, POST), zero=True)
    drive, kappa, amplitude, weight, decay = (t.detach() for t in tensors)
    jumps = Jumps(kappa, amplitude, wipes)
    changed = drive.clone()
    changed[20:] += 1.0
    one, two = (rollout(d, weight, decay, jumps, TriangularSurrogate())[1] for d in (drive, changed))
    assert torch.equal(one[:20], two[:20]) and not torch.equal(one[20:], two[20:])


@pytest.mark.parametrize("name", ["cpu", "torch"])
def test_nothing_a_synapse_is_kept_for_the_backward_pass(name: str) -> None:
    time, batch, post = 30, 4, 64
    drive = torch.rand(time, batch, post).requires_grad_()
    weight, decay = torch.randn(post, post) / 8, torch.rand(post, post)
    jumps = Jumps(torch.full((1, post), 0.9), torch.ones(1, post), torch.tensor([False]))

    saved = 0

    def pack(t: Tensor) -> Tensor:
        nonlocal saved
        saved += t.untyped_storage().nbytes()
        return t

    with backend(name), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = rollout(drive, weight, decay, jumps, TriangularSurrogate())
    sequence = time * batch * post * 4
    assert 0 < saved <= 2 * sequence + 3 * post * post * 4  # spikes, membrane, the parameters
    assert 4 * sequence < time * batch * post * post  # a synapse's state a step would not fit
    out[0].sum().backward()


def test_single_precision_differs_from_double_only_at_the_threshold() -> None:
    tensors, wipes = problem((POST, POST), zero=False)
    drive, kappa, amplitude, weight, decay = (t.detach() for t in tensors)
    spikes, membrane = rollout(drive, weight, decay, Jumps(kappa, amplitude, wipes), TriangularSurrogate())
    small = Jumps(kappa.float(), amplitude.float(), wipes)
    found, _ = rollout(drive.float(), weight.float(), decay.float(), small, TriangularSurrogate())
    assert found.dtype == torch.float32
    first = (found.double() != spikes).any(2).any(1).nonzero()
    where = TIME if not len(first) else int(first[0])
    assert where == TIME or float((membrane[where] - 1.0).abs().min()) < 1e-5


def test_shapes_that_do_not_fit_are_errors() -> None:
    jumps = Jumps(torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor([False]))
    drive = torch.zeros(5, 2, 3)
    for arguments in (
        (drive[0], None, None, jumps),
        (drive, torch.zeros(3, 2), torch.zeros(3, 3), jumps),
        (drive, torch.zeros(3, 3), None, jumps),
        (drive, torch.zeros(3, 3), torch.zeros(2, 3), jumps),
        (drive, None, None, Jumps(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([False]))),
    ):
        with pytest.raises(ShapeError):
            rollout(*arguments, TriangularSurrogate())


@settings(max_examples=25, deadline=None)
@given(
    time=st.integers(1, 12), batch=st.integers(0, 3), post=st.integers(1, 5), currents=st.integers(0, 2),
    shape=st.sampled_from(("synaptic", "post", "pre", "layer", "none")), detach=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_any_size_equals_the_plain_loop(
    time: int, batch: int, post: int, currents: int, shape: str, detach: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def random(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator, dtype=torch.float64).requires_grad_()

    drive, kappa, amplitude = random(time, batch, post), random(currents, post), random(currents, post)
    wipes = torch.rand(currents, generator=generator) < 0.5
    sizes = {"synaptic": (post, post), "post": (post, 1), "pre": (1, post), "layer": (1, 1)}
    recurrent = [random(post, post), random(*sizes[shape])] if shape != "none" else []
    weight, decay = recurrent or (None, None)
    tensors = [drive, kappa, amplitude, *recurrent]
    results = []
    for judge in (True, False):
        with backend("reference") if judge else contextlib.nullcontext():
            out = rollout(drive, weight, decay, Jumps(kappa, amplitude, wipes), TriangularSurrogate(), 0.6, detach)
        loss = (out[0] * 0.3 + out[1].pow(2)).sum()
        results.append((*out, *torch.autograd.grad(loss, tensors, allow_unused=True)))
    for a, b in zip(*reversed(results), strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, rtol=1e-10, atol=1e-10)


def test_an_empty_sequence_is_no_error() -> None:
    jumps = Jumps(torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor([False]))
    spikes, membrane = rollout(torch.zeros(0, 2, 3), torch.zeros(3, 3), torch.zeros(3, 3), jumps, TriangularSurrogate())
    assert spikes.shape == membrane.shape == (0, 2, 3)
