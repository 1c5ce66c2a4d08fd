"""Decays behind responses of the synapses' own: the tape against naive autograd, and what it keeps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import delaykit as dk
from delaykit.arrivals import Gaussian, Hard, Linear, Triangle
from delaykit.engines.decay import _written_out
from delaykit.errors import ShapeError
from delaykit.functional.decay_tape import SynapseTape
from delaykit.functional.decay_tape.arrivals import ArrivalTape
from delaykit.testing.faults.steady_costs import living

TIME, BATCH, PRE, POST, DEPTH = 17, 3, 6, 4, 5


def tensors(decay: tuple[int, int] = (POST, PRE)) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    found = {"x": (rand(TIME, BATCH, PRE) < 0.3).double(), "response": rand(POST, PRE, DEPTH) - 0.4}
    found |= {"decay": rand(*decay), "bias": rand(POST), "leak": rand(POST, 1)}
    return {name: value.requires_grad_() for name, value in found.items()}


def naive(x: Tensor, response: Tensor, decay: Tensor, bias: Tensor, leak: Tensor, cut: int = 0) -> Tensor:
    """The definition, with states and arrivals of each synapse and step; no gradient reaches back before ``cut``."""
    state, out = x.new_zeros(BATCH, POST, PRE), []
    for t in range(TIME):
        state = state.detach() if t == cut else state
        past = [x[t - k].detach() if t - k < cut else x[t - k] for k in range(min(DEPTH, t + 1))]
        arrived = sum(past[k].unsqueeze(1) * response[..., k] for k in range(len(past)))
        out.append((arrived + (decay - leak) * state).sum(-1) + bias)
        state = decay * state + arrived
    return torch.stack(out[cut:])


def by_tape(x: Tensor, response: Tensor, decay: Tensor, bias: Tensor, leak: Tensor, cut: int = 0) -> Tensor:
    tape = ArrivalTape(response, decay, bias, leak)
    for row in x[:cut]:
        tape.step(row)
    if cut:
        tape.rebind(response, decay, bias, leak)
    return torch.stack([tape.step(row) for row in x[cut:]])


@pytest.mark.parametrize("cut", [0, 7])
@pytest.mark.parametrize("into_inputs", [True, False])
@pytest.mark.parametrize("decay", [(POST, PRE), (POST, 1), (1, PRE), (1, 1)])
def test_values_and_all_gradients_equal_naive_autograd(decay: tuple[int, int], into_inputs: bool, cut: int) -> None:
    given = tensors(decay)
    given["x"] = given["x"].detach().requires_grad_(into_inputs)
    leaves = [value for value in given.values() if value.requires_grad]
    found, wanted = by_tape(**given, cut=cut), naive(**given, cut=cut)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    seen = torch.ones(len(found), 1, 1, dtype=torch.float64)
    seen[[2, -1]] = 0.0
    for _ in range(2):  # a loss that does not see all steps; a second pass
        mine, true = (torch.autograd.grad((y.pow(2) * seen).sum(), leaves, retain_graph=True) for y in (found, wanted))
        for one, two in zip(mine, true, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-11)


def paused(step, x: Tensor, quiet: tuple[int, ...]) -> list[Tensor]:
    """Run a loop some of whose steps are taken under ``no_grad``; return what the others gave."""
    out = []
    for t, row in enumerate(x):
        with torch.set_grad_enabled(t not in quiet):
            out.append(step(row.detach() if t in quiet else row))
    return [y for t, y in enumerate(out) if t not in quiet]


@pytest.mark.parametrize("quiet", [(5,), (5, 6, 9), tuple(range(4, 14)), (0, 1, 16), (1, 3, 4, 5, 6, 7, 8, 9, 10, 15)])
@pytest.mark.parametrize("kind", ["arrivals", "synapses"])
def test_steps_without_gradients_cut_what_lingers_as_plain_autograd_does(quiet: tuple[int, ...], kind: str) -> None:
    given = tensors()
    if kind == "synapses":
        given["response"] = given["response"][..., :1].detach().requires_grad_()
    own = [given[name] for name in ("response", "decay", "bias", "leak")]
    past, state = [], torch.zeros(BATCH, POST, PRE, dtype=torch.float64)

    def plainly(row: Tensor) -> Tensor:
        nonlocal state
        past.insert(0, row)
        arrived = sum(x.unsqueeze(1) * r for x, r in zip(past, own[0].unbind(2), strict=False))
        before, state = state, own[1] * state + arrived
        return (arrived + (own[1] - own[3]) * before).sum(-1) + own[2]

    tape = ArrivalTape(*own) if kind == "arrivals" else SynapseTape(own[1], own[0].squeeze(2), *own[2:])
    found, wanted = (torch.stack(paused(step, given["x"], quiet)) for step in (tape.step, plainly))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    mine, true = (torch.autograd.grad(y.pow(2).sum(), list(given.values())) for y in (found, wanted))
    for one, two in zip(mine, true, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kernel", [Linear(), Triangle(1.0), Triangle(6.0), Gaussian(0.7), Hard()], ids=repr)
def test_taps_written_out_are_the_impulse_response(kernel: dk.Kernel) -> None:
    delays = torch.tensor([[0.0, 2.0, 3.7], [5.0, 1.2, 0.4]], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], dtype=torch.float64, requires_grad=True)
    found, wanted = _written_out(kernel.taps(delays), weight), weight.unsqueeze(-1) * kernel.response(delays)
    depth = max(found.shape[2], wanted.shape[2])
    scale = torch.rand(2, 3, depth, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    both = [torch.nn.functional.pad(r, (0, depth - r.shape[2])) for r in (found, wanted)]
    torch.testing.assert_close(*both, rtol=0, atol=1e-12)
    mine, true = (torch.autograd.grad((r * scale).sum(), (weight, delays), allow_unused=True) for r in both)
    for one, two in zip(mine, true, strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            torch.testing.assert_close(one, two, rtol=0, atol=1e-11)


@pytest.mark.usefixtures("young_heap")
def test_a_loop_keeps_no_number_for_each_synapse_and_step() -> None:
    response, decay = torch.randn(40, 50, 6).requires_grad_(), torch.rand(40, 50).requires_grad_()
    tape, outputs, held = ArrivalTape(response, decay), [], []
    for k in range(41):
        outputs.append(tape.step((torch.rand(8, 50) < 0.1).float()))
        if k in (10, 40):
            held.append(living())
    assert (held[1] - held[0]) / 30 < 8 * (2 * 50 + 2 * 4 * 40), "bytes a step: the input's row and the output"
    torch.stack(outputs).sum().backward()
    assert response.grad is not None and decay.grad is not None


def test_a_misfit_is_refused() -> None:
    given = tensors()
    with pytest.raises(ShapeError, match="ArrivalTape"):
        ArrivalTape(given["response"], given["decay"]).step(torch.zeros(2, PRE + 1, dtype=torch.float64))
