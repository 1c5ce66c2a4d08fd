"""When a sequence begins: what a membrane and a root call tell."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest
import torch
from torch import nn

from delaykit.attaching.batch.membranes import LeftMembrane
from delaykit.attaching.clocks import clock_of
from delaykit.attaching.history.connection_history import History, Moment
from delaykit.attaching.scope import RootScope
from delaykit.attaching.watches import NeuronWatch
from delaykit.errors import HistoryError


class Holder(nn.Module):
    """A neuron that keeps its membrane."""

    def __init__(self):
        super().__init__()
        self.u = None


class Reader:
    """The part of an adapter that a watch asks."""

    def membrane(self, module, state=None):
        return module.u

    def given_membrane(self, module, args, kwargs):
        return args[1] if len(args) > 1 else None

    def held_state(self, module):
        return [module.u]

    def given_state(self, module, args, kwargs):
        return list(args[1:])

    def resting(self, module, state):
        return None


def step(watch, left, *given):
    """Step the watched neuron: it leaves ``left``."""
    watch.enter(watch.module.u, given[0] if given else None, bool(given))
    watch.module.u = left
    watch.leave(left)


def kind(left, membrane):
    change = left.look(membrane)
    return ("cut " if change.cut else "") + change.kind


def test_a_membrane_is_the_same_cut_edited_or_reset():
    left, seen = LeftMembrane(copies=True), torch.ones(2, 3, requires_grad=True) * 1
    assert kind(left, seen) == "same"  # nothing was left before: nothing to compare with
    left.keep(seen)
    assert kind(left, seen) == "same"
    assert kind(left, seen.detach()) == kind(left, seen.detach().clone()) == "cut same"
    assert kind(left, seen.clone()) == "same" and kind(left, seen * 2) == "edit"
    assert kind(left, None) == kind(left, torch.empty(0)) == kind(left, torch.zeros(2, 3)) == "reset"
    assert kind(left, seen[:1]) == "resized" and kind(left, seen.detach() * torch.tensor([[0.0], [1.0]])) == "cut rows"
    assert kind(left, seen.detach() * torch.tensor([[0.0], [2.0]])) == "unclear"
    with torch.no_grad():
        seen.zero_()
    assert kind(left, seen) == "reset"


def test_rows_that_change_places_are_unclear():
    left, seen = LeftMembrane(), torch.arange(6.0).reshape(2, 3)
    left.keep(seen)
    assert kind(left, seen.flip(0)) == "unclear" and kind(left, seen[1:]) == "unclear"


def test_a_watch_counts_resets_and_cuts():
    watch = NeuronWatch(Holder(), Reader())
    step(watch, torch.ones(2, 3, requires_grad=True) * 1)
    assert watch.moment() == Moment(0, 0)
    watch.module.u = watch.module.u.detach()
    assert watch.moment() == watch.moment() == Moment(0, 1)
    watch.module.u = None
    assert watch.moment() == Moment(1, 1)
    step(watch, torch.ones(2, 3))
    assert watch.moment() == Moment(1, 1) and watch.steps == 2
    watch.forget()
    assert watch.moment() == Moment(2, 1) and watch.forgotten == 1


class Late:
    """A stream with something under way."""

    batch = 2

    def silent(self, before_last=False):
        return False


@pytest.mark.parametrize("given", [torch.zeros(2, 3), torch.ones(2, 3) * torch.tensor([[0.0], [3.0]])])
def test_a_state_with_two_readings_after_late_inputs_raises(given):
    watch, history = NeuronWatch(Holder(), Reader()), History("fc")
    watch.inputs.append(history)
    step(watch, torch.ones(2, 3))
    history.age, history.streams = 2, [Late()]
    with pytest.raises(HistoryError, match=r"fc: found another membrane.*dk\.reset\(net, rows=mask\)"):
        step(watch, torch.ones(2, 3), given)


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda w: pickle.loads(pickle.dumps(w))], ids=["copy", "pickle"])
def test_a_copied_watch_watches_its_own_neuron_from_the_start(twin_of):
    watch = NeuronWatch(Holder(), Reader())
    watch.followers.append(History())
    step(watch, torch.ones(2))
    twin = twin_of(watch)
    assert twin.module is not watch.module and len(twin.followers) == 1
    assert twin.moment() == Moment(0, 0) and twin.steps == 0  # the copy has left no membrane itself


def test_a_root_clock_speaks_inside_a_call_only():
    scope = RootScope()
    clock = clock_of("root", "fc", scope, None, owned=False)
    with pytest.raises(HistoryError, match="fc: found a call outside"):
        clock.moment()
    moments = []
    for _ in range(2):
        scope.enter()
        scope.enter()  # a call within the call is no new sequence
        moments.append(clock.moment())
        scope.leave(failed=False)
        scope.leave(failed=False)
    assert moments[0] != moments[1]


def test_policies_listen_to_whom_they_should():
    watch = NeuronWatch(Holder(), Reader())
    step(watch, torch.ones(2))
    for policy, owned, listens in (("follow", False, True), ("manual", False, False), ("manual", True, True)):
        clock = clock_of(policy, "fc", RootScope(), watch, owned)
        before = clock.moment()
        watch.module.u = None
        assert (clock.moment() != before) is listens, (policy, owned)
        step(watch, torch.ones(2))


def test_a_history_is_cleared_by_a_new_sequence_and_cut_by_a_new_segment():
    class Stream:
        cuts = 0

        def detach(self):
            self.cuts += 1

    history, stream = History(), Stream()
    history.enter(Moment(1, 1))
    history.streams = [stream]
    history.enter(Moment(1, 1))
    assert history.streams == [stream] and stream.cuts == 0
    history.enter(Moment(1, 2))
    assert history.streams == [stream] and stream.cuts == 1
    history.enter(Moment(2, 2))
    assert history.streams == []


def test_another_thread_is_kept_out():
    scope, errors = RootScope(), []
    scope.histories.append(History())

    def other():
        try:
            scope.enter()
        except HistoryError as error:
            errors.append(error)

    scope.enter()
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    scope.leave(failed=False)
    assert len(errors) == 1 and "thread" in str(errors[0])
    thread = threading.Thread(target=lambda: (scope.enter(), scope.leave(False)))
    thread.start()
    thread.join()
    assert len(errors) == 1 and scope.serial == 2
