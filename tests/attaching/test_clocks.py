"""When a sequence begins: what a membrane and a root call tell."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from delaykit.attaching.clocks import LeftMembrane, NeuronWatch, RootScope, clock_of
from delaykit.attaching.histories import History, Moment
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


def step(watch, left, *given):
    """Step the watched neuron: it leaves ``left``."""
    watch.enter(("input", *given), {}, "neuron")
    watch.module.u = left
    watch.leave()


def test_a_membrane_is_the_same_cut_or_fresh():
    left, seen = LeftMembrane(), torch.ones(2, requires_grad=True) * 1
    assert left.look(seen) == "fresh"
    left.keep(seen)
    assert left.look(seen) == "same"
    assert left.look(seen.detach()) == "cut"
    assert left.look(seen.detach().clone()) == "fresh"
    assert left.look(None) == "fresh" and left.look(torch.empty(0)) == "fresh"
    with torch.no_grad():
        seen.zero_()
    assert left.look(seen) == "fresh"


def test_a_watch_counts_resets_and_cuts():
    watch = NeuronWatch(Holder(), Reader())
    step(watch, torch.ones(2, requires_grad=True) * 1)
    assert watch.moment() == Moment(1, 0)
    watch.module.u = watch.module.u.detach()
    assert watch.moment() == Moment(1, 1)
    watch.module.u = None
    assert watch.moment() == Moment(2, 0)
    step(watch, torch.ones(2))
    assert watch.moment() == Moment(2, 0) and watch.steps == 2


def test_a_fresh_state_after_late_inputs_raises():
    watch, history = NeuronWatch(Holder(), Reader()), History()
    watch.followers.append(history)
    step(watch, torch.ones(2))
    history.age = 2
    with pytest.raises(HistoryError, match="a fresh state passed by hand"):
        step(watch, torch.ones(2), torch.zeros(2))


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda w: pickle.loads(pickle.dumps(w))], ids=["copy", "pickle"])
def test_a_copied_watch_watches_its_own_neuron_from_the_start(twin_of):
    watch = NeuronWatch(Holder(), Reader())
    watch.followers.append(History())
    step(watch, torch.ones(2))
    twin = twin_of(watch)
    assert twin.module is not watch.module and len(twin.followers) == 1
    assert twin.moment() == Moment(1, 0) and twin.steps == 0  # fresh: the copy has left no membrane itself


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
    class Tape:
        cuts = 0

        def detach(self):
            self.cuts += 1

    history, tape = History(), Tape()
    history.enter(Moment(1, 1))
    history.tapes = [tape]
    history.enter(Moment(1, 1))
    assert history.tapes == [tape] and tape.cuts == 0
    history.enter(Moment(1, 2))
    assert history.tapes == [tape] and tape.cuts == 1
    history.enter(Moment(2, 2))
    assert history.tapes == []
