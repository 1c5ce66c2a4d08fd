"""What a tape remembers, forgets and frees: modes without gradients, segments, sequences that are dropped."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from delaykit.errors import HistoryError
from tests.functional.step_tape.tape_cases import BOTH_ORDERS, EVERY_KIND, grads, segment_of
from tests.functional.step_tape.test_step_tape import (
    Case,
    assert_close,
    compare,
    inputs,
    loss_of,
    response_step,
    run_naive,
    uninitialised_memory_is_nan,  # noqa: F401 - a fixture
)

pytestmark = pytest.mark.usefixtures("uninitialised_memory_is_nan")


def test_gradient_history_of_a_partial_pass_is_freed_at_its_end():
    case, xs = Case("axonal"), inputs()
    tape = case.tape()
    loss = loss_of([tape.step(x) for x in xs])
    alive = []

    def during(grad):
        alive.append(len(segment_of(tape).passes))

    xs[-2].register_hook(during)
    grads(loss, [xs[-2]], retain_graph=True)
    assert alive == [1] and not segment_of(tape).passes


def test_nothing_requires_grad_records_nothing_and_stays_bounded():
    case = Case("axonal")
    for p in case.parameters():
        p.requires_grad_(False)
    tape = case.tape()
    outputs = [tape.step(x.detach()) for x in inputs(time=300)]
    assert not outputs[-1].requires_grad
    assert segment_of(tape).recording.rows.shape[1] < 60


@EVERY_KIND
@BOTH_ORDERS
def test_truncated_backpropagation_equals_the_naive_one(kind, spread):
    """Three segments, parameters change between them; old inputs are remembered without their graph."""
    case, xs = Case(kind, spread=spread), inputs(time=27)
    tape, wanted, past = case.tape(), case.parameters(), []
    for segment in range(3):
        now = range(9 * segment, 9 * segment + 9)
        if segment:
            with torch.no_grad():
                for p in wanted:
                    p.mul_(1.03)
            tape.detach()
            tape.rebind(*case.arguments())
        found = [tape.step(xs[t]) for t in now]
        response = case.dense()
        expected = [case.naive_after(past, xs[now[0] : t + 1], response) for t in now]
        assert_close(found, expected)
        here = [xs[t] for t in now]
        assert_close(grads(loss_of(found), [*here, *wanted]), grads(loss_of(expected), [*here, *wanted]))
        past = past + case.naive_past(here)
    assert tape.steps == 27


def test_a_step_after_detach_needs_the_new_parameters():
    case, xs = Case("axonal"), inputs()
    tape = case.tape()
    tape.step(xs[0])
    tape.detach()
    with pytest.raises(HistoryError, match="rebind"):
        tape.step(xs[1])
    tape.rebind(*case.arguments())
    tape.step(xs[1])


def test_detach_keeps_a_bounded_past_and_never_truncates_silently():
    case, xs = Case("axonal", max_delay=3.0), inputs(time=200)
    tape = case.tape()
    for x in xs:
        tape.step(x)
        if tape.steps % 10 == 0:
            tape.rebind(*case.arguments())
    assert tape._past.shape[1] < 20
    slow = Case("axonal", max_delay=90.0)
    tape.rebind(*slow.arguments())
    with pytest.raises(HistoryError, match="remember"):
        tape.step(xs[0])
    roomy = case.tape(remember=100)
    with torch.no_grad():
        for x in xs:
            roomy.step(x)
    roomy.rebind(*slow.arguments())
    expected = slow.naive_step(
        [*xs, xs[0]], slow.kernel().response(slow.delay, 100)[..., :100] * slow.weight.unsqueeze(-1)
    )
    assert_close([roomy.step(xs[0])], [expected])


@EVERY_KIND
@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_nothing_is_forgotten_while_a_graph_needs_it(kind, spread):
    """A sequence many times longer than the delays: what a bounded history would drop is wanted by backward."""
    compare(Case(kind, max_delay=1.0, spread=spread), inputs(time=90), tolerance=1e-11)


@EVERY_KIND
@BOTH_ORDERS
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_memory_does_not_grow_without_a_graph(kind, spread, mode):
    case, xs = Case(kind, spread=spread), inputs(time=400)
    with mode():
        tape = case.tape()
        found = [tape.step(xs[0])]
        found += [tape.step(x) for x in xs[1:100]]
        early = segment_of(tape).recording.rows.untyped_storage().nbytes()
        found += [tape.step(x) for x in xs[100:]]
        assert segment_of(tape).recording.rows.untyped_storage().nbytes() == early
        assert_close(found, run_naive(case, xs), 1e-11)


@EVERY_KIND
@BOTH_ORDERS
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("warm", [3, 150])
def test_warm_up_without_grad_then_grad_in_one_segment(kind, spread, mode, warm):
    case, xs = Case(kind, spread=spread), inputs(time=warm + 9)
    tape, found = case.tape(), []
    with mode():
        for x in xs[:warm]:
            tape.step(x)
    found = [tape.step(x) for x in xs[warm:]]
    past, response = case.naive_past(xs[:warm]), case.dense()
    expected = [case.naive_after(past, xs[warm : warm + t + 1], response) for t in range(9)]
    wanted = [*xs[warm:], *case.parameters()]
    assert_close(found, expected, 1e-11)
    assert_close(grads(loss_of(found), wanted), grads(loss_of(expected), wanted), 1e-11)


@EVERY_KIND
@BOTH_ORDERS
def test_steps_without_grad_in_the_middle(kind, spread):
    """What a line remembers of them is a constant: inputs, or, behind the weights, currents."""
    case, xs = Case(kind, spread=spread), inputs(time=12)
    tape, found, expected, response = case.tape(), [], [], case.dense()
    quiet = (4, 5, 9)
    past = [x.detach() if t in quiet else x for t, x in enumerate(xs)]
    loud, still = past, None
    if kind == "dendritic":
        loud = [0 * x if t in quiet else x for t, x in enumerate(xs)]
        still = case.weight.detach().unsqueeze(-1) * case.kernel().response(case.delay, case.depth)
    for t, x in enumerate(xs):
        with torch.set_grad_enabled(t not in quiet):
            found.append(tape.step(x))
            expected.append(case.naive_step(loud[: t + 1], response))
            if still is not None:
                silent = [p - q for p, q in zip(past[: t + 1], loud[: t + 1], strict=True)]
                expected[-1] = expected[-1] + response_step(silent, still)
    wanted = [*(x for t, x in enumerate(xs) if t not in quiet), *case.parameters()]
    kept = [t for t in range(12) if t not in quiet]
    assert_close(found, expected)
    assert_close(grads(loss_of(found, kept), wanted), grads(loss_of(expected, kept), wanted))


@EVERY_KIND
@BOTH_ORDERS
def test_memory_does_not_grow_without_a_graph_after_a_step_with_one(kind, spread):
    """Five steps train, the stream goes on without gradients, then trains again: bounded, and exact all along."""
    case, xs = Case(kind, spread=spread), inputs(time=216)
    tape, quiet = case.tape(), range(5, 207)
    xs = [x.detach() if t in quiet else x for t, x in enumerate(xs)]
    found, sizes = [], set()
    for t, x in enumerate(xs):
        with torch.set_grad_enabled(t not in quiet):
            found.append(tape.step(x))
        sizes.add(segment_of(tape).recording.rows.shape[1])
    assert max(sizes) < 150
    expected = run_naive(case, xs)
    assert_close(found, expected, 1e-11)
    first = [*xs[:5], *case.parameters()]
    pair = [grads(loss_of(ys, range(5)), first, retain_graph=True) for ys in (found, expected)]
    assert_close(*pair)
    past, response = case.naive_past(xs[:207]), case.dense()
    again = [case.naive_after(past, xs[207 : 208 + t], response) for t in range(9)]
    last = [*xs[207:], *case.parameters()]
    assert_close(grads(loss_of(found[207:]), last), grads(loss_of(again), last), 1e-11)


def test_dropping_a_sequence_frees_it_without_the_garbage_collector():
    case, xs = Case("dendritic", spread=9.3), inputs()
    gc.disable()
    try:
        tape = case.tape()
        outputs = [tape.step(x) for x in xs]
        alive = weakref.ref(segment_of(tape))
        loss_of(outputs).backward()
        del tape, outputs
        assert alive() is None
    finally:
        gc.enable()
