"""Per-synapse decays: the kernels against the spec's forward recomputation and naive autograd, in sequence and step."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from delaykit.errors import HistoryError, ShapeError
from delaykit.functional.decay_tape import SynapseTape
from delaykit.functional.dispatch import backend, implementation_of
from delaykit.functional.filtered_linear import filtered_linear
from delaykit.testing.faults.steady_costs import living
from tests.functional.judging import DTYPES, WITHOUT_TRITON, assert_judged
from tests.functional.judging import drawn as drawn_

TIME, BATCH, PRE, POST = 26, 6, 7, 5
BACKENDS = ("torch", "cpu")


@pytest.fixture(params=BACKENDS)
def chosen(request: pytest.FixtureRequest) -> Iterator[str]:
    with backend(request.param):
        yield request.param


def tensors(graded: bool = False, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    spikes = (rand(TIME, BATCH, PRE) < 0.25).double()
    spikes = spikes * rand(TIME, BATCH, PRE) if graded else spikes
    spikes[:, :, 2] = 0  # an input that never fires
    spikes[:9, 1] = 0  # and a late beginning
    decay = rand(POST, PRE)
    decay[0, 0], decay[1, 1] = 0.0, 1.0  # both bounds; nothing may be divided by a decay
    weight, bias, leak = rand(POST, PRE) - 0.4, rand(POST), rand(POST, 1)
    found = {"spikes": spikes, "weight": weight, "decay": decay, "bias": bias, "leak": leak}
    return {name: value.requires_grad_() for name, value in found.items()}


def naive(spikes: Tensor, weight: Tensor, decay: Tensor, bias: Tensor, leak: Tensor) -> Tensor:
    """The definition, with a state for each synapse and step."""
    state, out = spikes.new_zeros(spikes.shape[1], POST, PRE), []
    for x in spikes:
        before, state = state, decay * state + weight * x.unsqueeze(1)
        out.append((state - leak * before).sum(-1) + bias)
    return torch.stack(out)


def by_tape(spikes: Tensor, weight: Tensor, decay: Tensor, bias: Tensor, leak: Tensor) -> Tensor:
    tape = SynapseTape(decay, weight, bias, leak)
    return torch.stack([tape.step(x) for x in spikes])


def slopes(run: Callable[..., Tensor], given: dict[str, Tensor]) -> list[Tensor]:
    current = run(**given)
    weights = torch.randn(current.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return [current.detach(), *torch.autograd.grad((weights * current).sum(), list(given.values()))]


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("run", [filtered_linear, by_tape])
def test_values_and_all_gradients_equal_naive_autograd(run: Callable[..., Tensor], graded: bool, chosen: str) -> None:
    given = tensors(graded)
    for found, wanted in zip(slopes(run, given), slopes(naive, given), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_one_sweep_back_equals_the_forward_recomputation() -> None:
    given = tensors(graded=True)
    operands = [given[name].detach() for name in ("spikes", "decay", "weight")]
    y = torch.randn(TIME, BATCH, POST, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = []
    for name in BACKENDS:
        with backend(name):
            found.append(implementation_of("decay_filter_gradient", y.device)(operands[0], y, *operands[1:], True))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("run", [filtered_linear, by_tape])
def test_an_input_without_gradient_changes_no_other_gradient(run: Callable[..., Tensor], chosen: str) -> None:
    given = tensors()
    wanted = slopes(naive, given)
    given["spikes"] = given["spikes"].detach()
    current = run(**given)
    weights = torch.randn(current.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    leaves = [value for value in given.values() if value.requires_grad]
    for found, true in zip(torch.autograd.grad((weights * current).sum(), leaves), wanted[2:], strict=True):
        torch.testing.assert_close(found, true, rtol=1e-12, atol=1e-12)


def test_gradcheck_of_the_sequence_operator(chosen: str) -> None:
    given = tensors(graded=True)
    small = {"spikes": given["spikes"][9:15, :2, 1:4], "weight": given["weight"][:3, 1:4]}
    small |= {"decay": 0.1 + 0.8 * given["decay"][:3, 1:4], "bias": given["bias"][:3], "leak": given["leak"][:3]}
    assert torch.autograd.gradcheck(filtered_linear, tuple(v.detach().requires_grad_() for v in small.values()))


@pytest.mark.parametrize("run", [filtered_linear, by_tape])
def test_a_decay_equal_to_the_leak_is_the_bare_product_to_the_bit(run: Callable[..., Tensor], chosen: str) -> None:
    given = {name: value.detach().float() for name, value in tensors().items()}
    given["decay"] = given["leak"].expand(POST, PRE)
    found = run(**given)
    if run is by_tape:
        wanted = torch.stack([torch.nn.functional.linear(x, given["weight"], given["bias"]) for x in given["spikes"]])
    else:
        wanted = torch.nn.functional.linear(given["spikes"], given["weight"], given["bias"])
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("into_inputs", [True, False])
def test_a_loss_that_sees_some_steps_and_a_second_pass(into_inputs: bool, chosen: str) -> None:
    given = tensors()
    given["spikes"] = given["spikes"].detach().requires_grad_(into_inputs)
    leaves = [value for value in given.values() if value.requires_grad]
    one, two = by_tape(**given), naive(**given)
    seen = torch.zeros(TIME, 1, 1, dtype=torch.float64)
    seen[[4, 11, 12]] = 1.0
    for _ in range(2):
        found = torch.autograd.grad((one.pow(2) * seen).sum(), leaves, retain_graph=True)
        wanted = torch.autograd.grad((two.pow(2) * seen).sum(), leaves, retain_graph=True)
        for mine, true in zip(found, wanted, strict=True):
            torch.testing.assert_close(mine, true, rtol=1e-12, atol=1e-12)


def by_recurrence(given: dict[str, Tensor], cuts: tuple[int, ...]) -> Tensor:
    """The definition: a current of each synapse, which is a constant from a cut on."""
    current, out = torch.zeros(BATCH, POST, PRE, dtype=torch.float64), []
    for t, x in enumerate(given["spikes"]):
        current = current.detach() if t in cuts else current
        left = (given["decay"] - given["leak"]) * current
        out.append(left.sum(-1) + x @ given["weight"].T + given["bias"])
        current = given["decay"] * current + given["weight"] * x.unsqueeze(1)
    return torch.stack(out)


@pytest.mark.parametrize("into_inputs", [True, False])
@pytest.mark.parametrize("cuts", [(10,), (3, 10, 11, 18)])
def test_after_a_cut_what_lingers_is_a_constant_that_decays(
    cuts: tuple[int, ...], into_inputs: bool, chosen: str
) -> None:
    """The weight's gradient counts the spikes since the cut, that of decay and leak also what was there before."""
    given = tensors()
    given["spikes"] = given["spikes"].detach().requires_grad_(into_inputs)
    own = [given[name] for name in ("decay", "weight", "bias", "leak")]
    tape, found = SynapseTape(*own), []
    for t, x in enumerate(given["spikes"]):
        if t in cuts:
            tape.detach()
            assert not tape.graph_under_way()
            tape.rebind(*own)
        found.append(tape.step(x))
        assert tape.graph_under_way()
    wanted = by_recurrence(given, cuts)
    torch.testing.assert_close(torch.stack(found), wanted, rtol=0, atol=1e-12)
    leaves = [value for value in given.values() if value.requires_grad]
    one, two = (torch.autograd.grad(y.pow(2).sum(), leaves) for y in (torch.stack(found), wanted))
    for mine, true in zip(one, two, strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-11, atol=1e-11)


def test_a_segment_that_begins_without_gradients_still_trains(chosen: str) -> None:
    given = tensors()
    own = [given[name] for name in ("decay", "weight", "bias", "leak")]
    whole, part = SynapseTape(*own), SynapseTape(*own)
    with torch.no_grad():
        for x in given["spikes"][:6]:
            part.step(x)
    for x in given["spikes"][:6]:
        whole.step(x)
    whole.detach()
    whole.rebind(*own)
    runs = [torch.stack([tape.step(x) for x in given["spikes"][6:]]) for tape in (whole, part)]
    runs.append(by_recurrence(given, (6,))[6:])
    found = [torch.autograd.grad(y.pow(2).sum(), own) for y in runs]
    for *mine, true in zip(*found, strict=True):
        for one in mine:
            torch.testing.assert_close(one, true, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("young_heap")
def test_a_loop_keeps_no_number_for_each_synapse_and_step() -> None:
    pre, post, steps = 60, 50, 40
    weight, decay = torch.randn(post, pre).requires_grad_(), torch.rand(post, pre).requires_grad_()
    tape = SynapseTape(decay, weight)
    held = [living()]
    outputs = []
    for k in range(steps):
        outputs.append(tape.step((torch.rand(8, pre) < 0.1).float()))
        if k in (9, 39):
            held.append(living())
    each = (held[2] - held[1]) / 30
    assert each < 8 * 4 * (2 * pre + 2 * post), "bytes a step: the input's row (its buffer doubles) and the output"
    torch.stack(outputs).sum().backward()
    assert weight.grad is not None and decay.grad is not None


def test_old_currents_that_have_all_but_decayed_become_exact_zeros() -> None:
    decay, weight = torch.full((2, 2), 0.3), torch.ones(2, 2)
    spikes = torch.zeros(200, 1, 2)
    spikes[0] = 1.0
    with backend("cpu"):
        current = filtered_linear(spikes, weight, decay)
    smallest = float(current[current > 0].min())
    assert smallest > torch.finfo(torch.float32).tiny and not current[150:].any()


@pytest.mark.parametrize("run", [filtered_linear, by_tape])
def test_a_nan_is_not_swallowed(run: Callable[..., Tensor], chosen: str) -> None:
    given = tensors()
    given["weight"].data[3, 4] = float("nan")
    current = run(**given)
    assert bool(current[-1, :, 3].isnan().any()) and not bool(current[..., :3].isnan().any())
    (gradient,) = torch.autograd.grad((current * float("nan")).sum(), given["decay"])
    assert bool(gradient[:, [0, 1, 3]].isnan().all())


def test_a_weight_changed_before_backward_and_a_misfit_are_refused() -> None:
    given = tensors()
    tape = SynapseTape(given["decay"], given["weight"])
    loss = tape.step(given["spikes"][0]).sum()
    with torch.no_grad():
        given["weight"].add_(1.0)
    with pytest.raises(HistoryError, match="changed in place"):
        loss.backward()
    with pytest.raises(ShapeError, match="SynapseTape"):
        SynapseTape(given["decay"], given["weight"]).step(torch.zeros(2, PRE + 1, dtype=torch.float64))
    with pytest.raises(ShapeError, match="SynapseTape"):
        SynapseTape(given["decay"][1:], given["weight"])


@pytest.mark.parametrize("name", WITHOUT_TRITON)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_the_judge(name: str, dtype: torch.dtype) -> None:
    """Two segments: outputs, the currents that the first left for the second, and the gradients of both."""

    def run(x: Tensor, decay: Tensor, weight: Tensor, bias: Tensor, leak: Tensor) -> Tensor:
        tape = SynapseTape(decay, weight, bias, leak)
        first = [tape.step(row) for row in x[:5]]
        tape.rebind(decay, 2 * weight, bias, leak)
        return torch.stack([*first, *(tape.step(row) for row in x[5:])])

    inputs = drawn_(9, 2, 3), drawn_(2, 3, seed=1), drawn_(2, 3, seed=2), drawn_(2, seed=3), drawn_(2, 1, seed=4)
    assert_judged(name, dtype, run, *inputs)
